//! The registers of a suspended greenlet, and the switch, whose text is in `asm/`.
//!
//! [`Registers`] is the same for all architectures except for `MoreRegisters`. Its layout is checked
//! against the constants in the `.S` file. Each architecture has a file with the rest: `switch`, which
//! includes the text and declares the registers that it changes, and a few constants.
//! Knows registers; knows neither memory management nor the tree.

use core::{cell::Cell, mem::MaybeUninit};

use crate::raw::Context;

#[cfg_attr(miri, path = "miri.rs")]
#[cfg_attr(all(not(miri), target_arch = "x86_64"), path = "x86_64.rs")]
#[cfg_attr(all(not(miri), target_arch = "aarch64"), path = "aarch64.rs")]
#[cfg_attr(
    all(not(miri), any(target_arch = "riscv64", target_arch = "riscv32")),
    path = "riscv.rs"
)]
#[cfg_attr(all(not(miri), target_arch = "arm"), path = "arm.rs")]
mod imp;

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "riscv32",
    target_arch = "arm"
)))]
compile_error!("greenlet has a switch core for x86_64, aarch64, riscv64, riscv32 and arm only");

#[cfg(feature = "std")]
pub(crate) use imp::STACK_PROBES;
pub(crate) use imp::{STACK_ALIGN, switch};
#[cfg(thread_words)]
pub(crate) use imp::{hop, running, running_word, set_running};

/// Symbols and layout of the switch core, written by `build.rs` from the `.S` file.
#[allow(
    dead_code,
    reason = "each architecture uses the constants of its own registers"
)]
pub(crate) mod core_layout {
    include!(concat!(env!("OUT_DIR"), "/core.rs"));
}

/// The registers that the switch core saves of a suspended greenlet, and the address at which it resumes.
/// All other registers are declared clobbered, so the compiler saves those that the caller needs.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Registers {
    /// Together with `resume` this is a frame record, a link of the frame-pointer chain.
    frame_pointer: Cell<usize>,
    resume: Cell<usize>,
    #[cfg(not(windows))]
    stack_pointer: Cell<usize>,
    /// The register from which `entry` takes the argument. `CONTEXT_*` of the `.S` file says which.
    argument: Cell<usize>,
    #[cfg(windows)]
    exception_list: Cell<usize>,
    /// As far from `resume` as the unwind table there wants it.
    #[cfg(windows)]
    stack_pointer: Cell<usize>,
    more: imp::MoreRegisters,
}

#[cfg(not(miri))]
mod layout {
    use core::mem::offset_of;

    use static_assertions::const_assert_eq;

    use super::{Registers, core_layout};

    const_assert_eq!(size_of::<Registers>(), core_layout::SIZE);
    const_assert_eq!(
        offset_of!(Registers, frame_pointer),
        core_layout::FRAME_POINTER
    );
    const_assert_eq!(offset_of!(Registers, resume), core_layout::RESUME);
    const_assert_eq!(
        offset_of!(Registers, stack_pointer),
        core_layout::STACK_POINTER
    );
    const_assert_eq!(offset_of!(Registers, argument), core_layout::ARGUMENT);
}

impl Registers {
    pub(crate) const fn new() -> Self {
        Self {
            frame_pointer: Cell::new(0),
            resume: Cell::new(0),
            stack_pointer: Cell::new(0),
            argument: Cell::new(0),
            #[cfg(windows)]
            exception_list: Cell::new(0),
            more: imp::MoreRegisters::new(),
        }
    }

    /// Makes these the registers of a greenlet that starts with `start(argument, …)` on the stack below `top`.
    /// They must already [lead to](Self::lead_to) the parent.
    ///
    /// # Safety
    /// `top` is the end of a few words of writable memory that nothing else uses.
    #[inline(always)]
    pub(crate) unsafe fn prepare(&self, top: *mut u8, start: Start, argument: *mut ()) {
        let top = top.map_addr(|address| address & !(STACK_ALIGN - 1));
        let bottom_frame = top.wrapping_sub(STACK_ALIGN).cast::<Start>();
        // SAFETY: the caller gives memory below `top`, and the alignment of a stack is no smaller
        // than that of a word.
        unsafe { bottom_frame.write(start) };
        self.stack_pointer.set(bottom_frame.expose_provenance());
        self.argument.set(argument.expose_provenance());
        self.more.prepare();
    }

    /// Makes an unwinder that reaches these registers continue in the context that `link` points to.
    #[inline(always)]
    pub(crate) fn lead_to(&self, link: *const ()) {
        self.frame_pointer.set(link.expose_provenance());
        self.resume.set(core_layout::entry_pc as *const () as usize);
    }

    /// Makes an unwinder that reaches these registers stop.
    #[inline(always)]
    pub(crate) fn lead_nowhere(&self) {
        self.frame_pointer.set(0);
        self.resume.set(0);
    }

    /// Returns the stack pointer of a suspended greenlet.
    pub(crate) fn stack_pointer(&self) -> usize {
        self.stack_pointer.get()
    }
}

/// What a switch carries, in two registers. The switch core does not interpret it.
///
/// ```
/// use core::mem::MaybeUninit;
/// use greenlet::raw::Message;
///
/// // Two sides that agree on it: kind 0 is a number, kind 1 the end.
/// let number = Message { word: MaybeUninit::new(7), kind: 0 };
/// let end = Message { word: MaybeUninit::uninit(), kind: 1 };
/// # let _ = (number, end);
/// ```
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Message {
    /// A value of a word or less, or a pointer to one.
    pub word: MaybeUninit<usize>,
    /// How to read `word`; the two sides agree on it.
    pub kind: usize,
}

/// Which context resumes when a greenlet finishes, and with which message. Its [`Start`] function fills this
/// in.
///
/// ```
/// use core::mem::MaybeUninit;
/// use greenlet::raw::{Context, Departure, Message};
///
/// /// Finishes at once: sends what it was sent to the context whose address is the argument.
/// unsafe extern "C" fn start(
///     to: *mut (),
///     word: MaybeUninit<usize>,
///     kind: usize,
///     departure: *mut Departure,
/// ) {
///     let to = MaybeUninit::new(to.cast::<Context>().cast_const());
///     let message = MaybeUninit::new(Message { word, kind });
///     // SAFETY: the core lends it, and the one that `to` leads to waits.
///     unsafe { departure.write(Departure { to, message }) };
/// }
/// ```
#[repr(C)]
pub struct Departure {
    /// The context that is resumed, which is suspended.
    pub to: MaybeUninit<*const Context>,
    /// What it receives.
    pub message: MaybeUninit<Message>,
}

/// The function at the bottom of a stack: called once with the argument of
/// [`prepare`](crate::raw::Context::prepare) and the first message; fills in the departure
/// and returns when the greenlet finishes. It must not unwind.
pub type Start = unsafe extern "C" fn(
    argument: *mut (),
    word: MaybeUninit<usize>,
    kind: usize,
    departure: *mut Departure,
);
