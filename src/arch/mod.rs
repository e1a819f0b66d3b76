//! What the rest of the crate must know of a processor: the first frame of a new stack, and
//! the way into the switch core in `asm/`.
//!
//! One file an architecture, all of the same shape: a `Frame` whose layout is checked against
//! the numbers in the `.S` file, and `switch`, the few instructions that jump into the core.
//! Knows registers; knows neither memory management nor the tree.

use core::{mem::MaybeUninit, num::NonZeroUsize};

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
#[cfg_attr(target_arch = "arm", path = "arm.rs")]
mod imp;

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "arm"
)))]
compile_error!("greenlet has a switch core for x86_64, aarch64, riscv64 and arm only");

#[cfg(feature = "std")]
pub(crate) use imp::STACK_PROBES;
pub(crate) use imp::{Frame, STACK_ALIGN, prepare_to_switch, switch};

/// Symbols and frame layout of the switch core, written by `build.rs` from the `.S` file.
#[allow(
    dead_code,
    reason = "each architecture uses the constants of its own registers"
)]
mod core_layout {
    include!(concat!(env!("OUT_DIR"), "/core.rs"));
}

impl Frame {
    /// The frame record of a greenlet that has no frames: an unwinder passes through it to
    /// the parent. It is the beginning of a [`Frame`] on every architecture. What else an unwinder
    /// reads of one may be anything, but must be there to be read: as many bytes as a frame has.
    pub(crate) fn record(parent_link: *const ()) -> [usize; 2] {
        [
            parent_link.expose_provenance(),
            core_layout::entry_pc as *const () as usize,
        ]
    }
}

/// Where a suspended greenlet's registers lie: the address of its frame.
///
/// Made by [`raw::Context::prepare`](crate::raw::Context::prepare) and by each switch; never
/// null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct StackPointer(NonZeroUsize);

impl StackPointer {
    /// The stack pointer that names `frame`.
    pub(crate) fn of(frame: *const Frame) -> Self {
        Self(NonZeroUsize::new(frame.expose_provenance()).expect("a frame is not at address zero"))
    }

    /// Its address.
    #[must_use]
    pub fn address(self) -> usize {
        self.0.get()
    }
}

/// What a switch carries, in two registers. The core does not look at it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Message {
    /// A value of a word or less, or a pointer to one.
    pub word: MaybeUninit<usize>,
    /// How to read `word`; the two sides agree on it.
    pub kind: usize,
}

/// Who goes on when a greenlet is over, and with what: filled in by its `Start` function.
#[repr(C)]
pub struct Departure {
    /// The saved stack pointer of the one that is resumed.
    pub to: MaybeUninit<StackPointer>,
    /// What it receives.
    pub message: MaybeUninit<Message>,
}

/// The function at the bottom of a stack: called once with the argument of
/// [`prepare`](crate::raw::Context::prepare) and the first message; fills in the departure
/// and returns when the greenlet is over. It must not unwind.
pub type Start = unsafe extern "C" fn(
    argument: *mut (),
    word: MaybeUninit<usize>,
    kind: usize,
    departure: *mut Departure,
);
