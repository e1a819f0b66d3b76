//! Inspecting the stack of a greenlet that does not run (rules s24, s25).
//!
//! The inspecting code runs on another stack, in a context whose parent is the inspected greenlet. So an
//! unwinder goes on from it into the inspected frames, and nothing runs on the inspected stack, however
//! little of it is left.
//!
//! An inspection may call the program's allocator. Meanwhile no greenlet counts as running, so none can
//! switch. Entering, killing and setting parents abort, because the contexts through which the unwinder
//! passes must not change.

use core::{mem::MaybeUninit, ptr};

use super::{Block, message, root, thread, waits};
use crate::{
    arch::Departure,
    host,
    raw::{self, Context},
    sanitizers::ToolsFiber,
    stack,
};

/// Where an unwinder ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// At the bottom of the inspected stack.
    OwnStack,
    /// At the bottom of the thread's own stack, through all parents.
    Parents,
}

/// The argument of [`start`].
struct Inspection<'a> {
    asker: &'a Block,
    fiber: &'a ToolsFiber,
    capture: &'a mut dyn FnMut(),
}

/// Calls `capture` where an unwinder goes on from its own frames to those of `block`.
///
/// Returns `None` if `block` has no frames, if there is no memory for a stack, or inside another
/// inspection.
pub(crate) fn inspect<R>(block: &Block, reach: Reach, capture: impl FnOnce() -> R) -> Option<R> {
    if !block.is_active() || thread::inspects() {
        return None;
    }
    let supply = stack::Supply::default();
    let stack = supply.realize().ok()?;
    let fiber = ToolsFiber::new();
    let (mut capture, mut seen) = (Some(capture), None);
    root::with_current(|asker| {
        let mut inspection = Inspection {
            asker,
            fiber: &fiber,
            capture: &mut || seen = capture.take().map(|capture| capture()),
        };
        let context = Context::under(ptr::from_ref(waits::top_of_stack(block)).cast());
        let bottom = &waits::bottom_of_stack(block).context;
        let parent = bottom.parent();
        let cuts = reach == Reach::OwnStack && !parent.is_null();
        thread::set_inspects(true);
        thread::set_current(None);
        // SAFETY: the asker runs; the context is made ready on a stack that nothing else uses, and
        // has finished when this goes on. Nothing uses the parent of a block while `inspects` is set.
        unsafe {
            if cuts {
                bottom.set_parent(raw::END);
            }
            context.prepare(stack, start, (&raw mut inspection).cast());
            fiber.prepare(supply.limits().expect("it is there"));
            asker.fiber.leave(&fiber);
            asker.context.switch(&context, message::NOTHING_SENT);
            asker.fiber.arrive();
            if cuts {
                bottom.set_parent(parent);
            }
        }
        thread::set_inspects(false);
        thread::set_current(Some(asker));
    });
    supply.give_back();
    seen
}

/// The bottom frame of the stack on which an [`Inspection`] runs.
///
/// # Safety
/// `inspection` is one, which nothing else uses meanwhile; `departure` is valid for a write.
unsafe extern "C" fn start(
    inspection: *mut (),
    _word: MaybeUninit<usize>,
    _kind: usize,
    departure: *mut Departure,
) {
    // SAFETY: it is an `Inspection` that nothing else uses meanwhile (contract).
    let inspection = unsafe { &mut *inspection.cast::<Inspection<'_>>() };
    // SAFETY: this has just been switched to.
    unsafe { inspection.fiber.arrive_at_bottom() };
    host::contain(|| (inspection.capture)());
    // SAFETY: valid for a write; the asker waits in `inspect`.
    unsafe {
        inspection.fiber.leave_for_ever(&inspection.asker.fiber);
        departure.write(Departure {
            to: MaybeUninit::new(&inspection.asker.context),
            message: MaybeUninit::new(message::NOTHING_SENT),
        });
    }
}
