//! The layer below greenlets, for building another runtime: contexts, the switch, stacks. It is `unsafe`; the
//! tree of greenlets uses nothing else.
//!
//! A [`Context`] holds the saved registers of one coroutine, and a parent link for unwinders. It is *running* (at
//! most one on each thread), *suspended* or *finished*. The runtime decides which context switches to which,
//! what a message means, and when a stack is freed.
//!
//! ```
//! use core::{cell::Cell, mem::MaybeUninit};
//! use greenlet::raw::{Context, Departure, Message, Stack};
//!
//! thread_local!(static MAIN: Context = const { Context::new() });
//!
//! // Adds one to each number that it is sent, and finishes when it is sent zero.
//! unsafe extern "C" fn start(me: *mut (), mut word: MaybeUninit<usize>, _: usize, out: *mut Departure) {
//!     MAIN.with(|main| unsafe {
//!         while word.assume_init() != 0 {
//!             let reply = Message { word: MaybeUninit::new(word.assume_init() + 1), kind: 0 };
//!             word = (*me.cast::<Context>()).switch(main, reply).word;
//!         }
//!         out.write(Departure {
//!             to: MaybeUninit::new(main),
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

use core::{cell::Cell, ptr};

use crate::arch::{self, Registers};
#[cfg(windows)]
use crate::host::windows::Room;

pub use crate::arch::{Departure, Message, Start};
#[cfg(feature = "std")]
pub use crate::{
    diagnostics::overflow::{OverflowHook, set_overflow_hook},
    sanitizers::ToolsFiber,
    stack::{Pool, PooledStack, Stack, StackLimits},
};

/// The saved registers of a coroutine while it is suspended, and its parent.
///
/// # Invariants
/// * The registers come first: the switch core and the unwind tables read them by the address of
///   the context (`asm/README.md`, "Unwinding into the parent").
/// * They are valid while the context is suspended or prepared.
/// * `parent` is null, or the address of a context that lives as long as unwinders pass through this one.
///
/// ```
/// use core::{mem::MaybeUninit, ptr};
/// use greenlet::raw::{self, Context, Departure, Message, Stack};
///
/// unsafe extern "C" fn start(to: *mut (), word: MaybeUninit<usize>, kind: usize, out: *mut Departure) {
///     let to = MaybeUninit::new(to.cast::<Context>().cast_const());
///     let message = MaybeUninit::new(Message { word, kind });
///     // SAFETY: the core lends it, and `to` waits in the switch to this context.
///     unsafe { out.write(Departure { to, message }) };
/// }
///
/// let (stack, main, echo) = (Stack::map(16 * 1024, 4096)?, Context::new(), Context::new());
/// let sent = Message { word: MaybeUninit::new(7), kind: 0 };
/// // SAFETY: the three live until `echo` has finished, which is when the switch returns.
/// let received = unsafe {
///     echo.set_parent(&main);
///     echo.prepare(stack.top(), start, (&raw const main).cast_mut().cast());
///     main.switch(&echo, sent).word.assume_init()
/// };
/// assert_eq!(received, 7);
/// # Ok::<(), greenlet::StackError>(())
/// ```
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    registers: Registers,
    parent: Cell<*const Context>,
}

#[cfg(feature = "std")]
impl Context {
    /// Where a debugger finds the parent.
    pub(crate) const DEBUGGED: usize = core::mem::offset_of!(Self, parent);
}

impl Context {
    /// Returns a context without a parent that has never been suspended, such as that of a thread's own stack.
    #[must_use]
    pub const fn new() -> Self {
        Self::under(ptr::null())
    }

    /// Returns a context with a parent, or null.
    pub(crate) const fn under(parent: *const Context) -> Self {
        Self {
            registers: Registers::new(),
            parent: Cell::new(parent),
        }
    }

    /// Sets the parent. At the bottom of this context's stack unwinders continue in the frame in which `parent`
    /// is suspended; at [`END`] they stop.
    ///
    /// # Safety
    /// `parent` lives, unmoved, until another parent is set or this context has finished, and the
    /// parent links form no cycle. It is null only while this context has no stack that it was
    /// prepared with.
    pub unsafe fn set_parent(&self, parent: *const Context) {
        self.parent.set(parent);
    }

    /// Returns the parent that was set, or null.
    #[must_use]
    pub fn parent(&self) -> *const Context {
        self.parent.get()
    }

    /// Makes the next switch to this context call `start(argument, word, kind, departure)` on the
    /// stack below `top`. With feature `fp-control` it starts with the caller's control words.
    ///
    /// # Safety
    /// A parent has been set. `top` is the end of writable memory that is large enough for `start`,
    /// unused by anybody else until the context has finished; this context stays where it is, and on
    /// this thread, as long.
    ///
    /// On Windows the system is asked where the stack below `top` ends, by a call for each doubling of
    /// its size.
    #[inline(always)]
    pub unsafe fn prepare(&self, top: *mut u8, start: Start, argument: *mut ()) {
        self.registers.lead_to(self.parent_link());
        #[cfg(windows)]
        self.set_room(Room::below(top));
        // SAFETY: `top` is the end of writable memory that nothing else uses (contract).
        unsafe { self.registers.prepare(top, start, argument) };
    }

    /// Says where the stack lies that this context is prepared for.
    #[cfg(windows)]
    #[inline]
    pub(crate) fn set_room(&self, room: Room) {
        self.registers.set_room(room);
    }

    /// As [`prepare`](Self::prepare), for a context that [leads to its parent](Self::lead_to_parent).
    ///
    /// # Safety
    /// As for `prepare`.
    #[inline(always)]
    pub(crate) unsafe fn prepare_settled(&self, top: *mut u8, start: Start, argument: *mut ()) {
        // SAFETY: `top` is the end of writable memory that nothing else uses (contract).
        unsafe { self.registers.prepare(top, start, argument) };
    }

    /// Returns the stack pointer: the lowest address of the stack that is in use.
    ///
    /// # Safety
    /// The context is suspended or prepared.
    #[must_use]
    pub unsafe fn stack_pointer(&self) -> usize {
        self.registers.stack_pointer()
    }

    /// Suspends this context, resumes `to` with `message`, and returns what this one is
    /// resumed with.
    ///
    /// # Safety
    /// This context is the running one of this thread. `to` is suspended, or prepared, and has
    /// been so on this thread: a context never leaves the thread that it was prepared on, not
    /// even between two switches.
    #[inline(always)]
    pub unsafe fn switch(&self, to: &Context, message: Message) -> Message {
        // SAFETY: this context runs, and `to` is suspended or prepared on this thread (contract). It is resumed
        // once, because it is not suspended afterwards.
        unsafe { arch::switch(self, to, message) }
    }

    /// Makes an unwinder that reaches this context, which has no frames, continue in its parent.
    #[inline]
    pub(crate) fn lead_to_parent(&self) {
        if self.parent.get().is_null() {
            self.registers.lead_nowhere();
        } else {
            self.registers.lead_to(self.parent_link());
        }
    }

    /// Makes an unwinder that reaches this context, which runs, continue in the context at `link`.
    pub(crate) fn lead_to(&self, link: *const *const Context) {
        self.registers.lead_to(link.cast());
    }

    /// Returns the address of the parent's address, which `entry` keeps in the frame pointer.
    fn parent_link(&self) -> *const () {
        self.parent.as_ptr().cast_const().cast()
    }
}

/// The end of a chain of parents: unwinders stop at the bottom of the stack of a context with this parent. It
/// must not be switched to.
///
/// It is for runtimes in which no context waits for the result of another, or in which the waiting context is
/// not known at the start.
///
/// ```
/// use greenlet::raw::{Context, END};
///
/// let context = Context::new();
/// unsafe { context.set_parent(END) };
/// assert_eq!(context.parent(), END);
/// ```
pub const END: *const Context = &raw const NOWHERE.0;

static NOWHERE: Nowhere = Nowhere(Context::new());

struct Nowhere(Context);

// SAFETY: nothing writes to it. Only a pointer to constant leads to it, nothing switches to it, and the other
// functions that write are called for contexts that run or are about to run.
unsafe impl Sync for Nowhere {}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}
