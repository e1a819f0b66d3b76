//! Contexts without a policy, for those who build another runtime: a saved stack pointer, a
//! parent link for unwinders, and the switch. `unsafe` throughout; the greenlet tree is built
//! on nothing else.
//!
//! A [`Context`] is either *running* (at most one a thread), *suspended* or *over*. Who may
//! switch to whom, what a message means, who frees a stack: all yours.
//!
//! ```
//! use core::{cell::Cell, mem::MaybeUninit};
//! use greenlet::raw::{Context, Departure, Message, Stack};
//!
//! thread_local!(static MAIN: Context = const { Context::new() });
//!
//! // Adds one to each number that it is sent; over when it is sent zero.
//! unsafe extern "C" fn start(me: *mut (), mut word: MaybeUninit<usize>, _: usize, out: *mut Departure) {
//!     MAIN.with(|main| unsafe {
//!         while word.assume_init() != 0 {
//!             let reply = Message { word: MaybeUninit::new(word.assume_init() + 1), kind: 0 };
//!             word = (*me.cast::<Context>()).switch(main, reply).word;
//!         }
//!         out.write(Departure {
//!             to: MaybeUninit::new(main.stack_pointer()),
//!             message: MaybeUninit::new(Message { word, kind: 1 }),
//!         });
//!     });
//! }
//!
//! let stack = Stack::map(64 * 1024, 4096)?;
//! let adder = Context::new();
//! let replies = MAIN.with(|main| unsafe {
//!     adder.set_parent(main);
//!     adder.prepare(stack.top(), start, (&raw const adder).cast_mut().cast());
//!     [1, 41, 0].map(|word| {
//!         let message = Message { word: MaybeUninit::new(word), kind: 0 };
//!         let reply = main.switch(&adder, message);
//!         (reply.word.assume_init(), reply.kind)
//!     })
//! });
//! assert_eq!(replies, [(2, 0), (42, 0), (0, 1)]);
//! # Ok::<(), greenlet::StackError>(())
//! ```

use core::{cell::Cell, mem::MaybeUninit, ptr};

use crate::arch::{self, Frame};

pub use crate::arch::{Departure, Message, StackPointer, Start};
#[cfg(feature = "std")]
pub use crate::{
    overflow::{OverflowHook, set_overflow_hook},
    stack::{Pool, PooledStack, Stack, StackLimits},
    tools::ToolsFiber,
};

/// The record of one context: where its registers lie while it is suspended, and its parent.
///
/// # Invariants
/// * The two fields come first and in this order: the core's `entry` and the unwind tables
///   read them (`asm/README.md`, "Unwinding into the parent").
/// * `stack_pointer` is meaningful while the context is suspended.
/// * `parent` is null or the address of a context that lives as long as this one is unwound
///   through.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    stack_pointer: Cell<MaybeUninit<StackPointer>>,
    parent: Cell<*const Context>,
}

impl Context {
    /// A context that has never been suspended, without a parent: right for the one that
    /// runs on a thread's own stack.
    #[must_use]
    pub const fn new() -> Self {
        Self::under(ptr::null())
    }

    /// A context under a parent, or null.
    pub(crate) const fn under(parent: *const Context) -> Self {
        Self {
            stack_pointer: Cell::new(MaybeUninit::uninit()),
            parent: Cell::new(parent),
        }
    }

    /// Where unwinders go on at the bottom of this context's stack.
    ///
    /// # Safety
    /// `parent` lives, unmoved, until another parent is set or this context is over, and the
    /// parent links form no cycle.
    pub unsafe fn set_parent(&self, parent: *const Context) {
        self.parent.set(parent);
    }

    /// The parent that was set, or null.
    #[must_use]
    pub fn parent(&self) -> *const Context {
        self.parent.get()
    }

    /// Lays the first frame below `top`; the next switch to this context calls
    /// `start(argument, word, kind, departure)` there.
    ///
    /// # Safety
    /// `top` is the end of writable memory that is large enough for `start`, unused by anybody
    /// else until the context is over; this context stays where it is, and on this thread, as
    /// long.
    pub unsafe fn prepare(&self, top: *mut u8, start: Start, argument: *mut ()) {
        let top = top.map_addr(|address| address & !(arch::STACK_ALIGN - 1));
        let frame = top.wrapping_sub(size_of::<Frame>()).cast::<Frame>();
        // SAFETY: the caller gives writable memory below `top`; the frame's size is a multiple
        // of its alignment and so is the rounded top.
        unsafe { frame.write(Frame::new(self.parent_link(), start, argument)) };
        self.set_stack_pointer(StackPointer::of(frame));
        arch::prepare_to_switch();
    }

    /// Where this context is suspended.
    ///
    /// # Safety
    /// It is suspended, or prepared.
    #[must_use]
    #[inline(always)]
    pub unsafe fn stack_pointer(&self) -> StackPointer {
        // SAFETY: a suspended or prepared context has stored it.
        unsafe { self.stack_pointer.get().assume_init() }
    }

    /// Suspends this context, resumes `to` with `message`, and returns what this one is
    /// resumed with.
    ///
    /// # Safety
    /// This context is the running one of this thread. `to` is suspended, or prepared, and has
    /// been so on this thread: a context never leaves the thread that it was prepared on, not
    /// even between two switches (on x86_64 the switch remembers who left last in the thread).
    #[inline(always)]
    pub unsafe fn switch(&self, to: &Context, message: Message) -> Message {
        // SAFETY: the field is writable through its cell, and the caller says that `to` is
        // suspended; resuming it ends that, so it is resumed once.
        unsafe {
            arch::switch(
                self.stack_pointer.as_ptr().cast(),
                to.stack_pointer.as_ptr().cast(),
                message,
            )
        }
    }

    pub(crate) fn set_stack_pointer(&self, stack_pointer: StackPointer) {
        self.stack_pointer.set(MaybeUninit::new(stack_pointer));
    }

    /// What the bottom frame of this context's stack holds of it.
    pub(crate) fn parent_link(&self) -> *const () {
        self.parent.as_ptr().cast_const().cast()
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}
