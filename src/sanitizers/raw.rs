//! [`ToolsFiber`], with which a runtime on the raw layer tells the tools of its stacks.

use super::Fiber;
use crate::stack::StackLimits;

/// What developers' tools know of one context of the raw layer: one beside each
/// [`Context`](crate::raw::Context).
///
/// AddressSanitizer, ThreadSanitizer and Valgrind follow one stack a thread unless they are told
/// of others. With the feature `asan`, `tsan` or `valgrind` the calls below tell them, as the
/// crate's own greenlets do; without, they are nothing. The order for each switch is
/// [`leave`](Self::leave), the switch, [`arrive`](Self::arrive):
///
/// ```
/// use greenlet::raw::{Context, Message, ToolsFiber};
///
/// struct Task {
///     context: Context,
///     fiber: ToolsFiber,
/// }
///
/// #[inline(always)]
/// unsafe fn switch(from: &Task, to: &Task, message: Message) -> Message {
///     unsafe {
///         from.fiber.leave(&to.fiber);
///         let message = from.context.switch(&to.context, message);
///         from.fiber.arrive();
///         message
///     }
/// }
/// ```
///
/// What calls them between a switch and the code of the user is to be `#[inline(always)]`:
/// ThreadSanitizer counts calls and returns for each stack, so a function that has been called
/// on one must not return on another.
#[derive(Debug)]
pub struct ToolsFiber(Fiber);

impl ToolsFiber {
    /// Of a context that has not run, or of the one that runs on a thread's own stack.
    #[must_use]
    pub const fn new() -> Self {
        Self(Fiber::new())
    }

    /// To be called where the context is prepared: it is about to start on a stack.
    ///
    /// # Safety
    /// The stack is mapped, and nothing runs there. This value stays where it is until the context
    /// has finished.
    pub unsafe fn prepare(&self, limits: StackLimits) {
        self.0.prepare(|| limits);
    }

    /// To be called just before the switch from this context, which runs, to that of `to`.
    ///
    /// # Safety
    /// The switch follows, and `to` is of a context that was prepared or left before.
    #[inline(always)]
    pub unsafe fn leave(&self, to: &Self) {
        self.0.leave(&to.0);
    }

    /// As [`leave`](Self::leave), where the context has finished: in its
    /// [`Start`](crate::raw::Start) function, just before that returns.
    ///
    /// # Safety
    /// As of [`leave`](Self::leave); and this value stays until the other has arrived.
    pub unsafe fn leave_for_ever(&self, to: &Self) {
        self.0.leave_for_ever(&to.0);
    }

    /// To be called just after a switch has returned, by the context that was reached.
    ///
    /// # Safety
    /// The one that was left has said so, by `leave` or `leave_for_ever` with this one.
    #[inline(always)]
    pub unsafe fn arrive(&self) {
        self.0.arrive();
    }

    /// As [`arrive`](Self::arrive), at the beginning of the context's
    /// [`Start`](crate::raw::Start) function.
    ///
    /// # Safety
    /// As of [`arrive`](Self::arrive).
    #[inline(always)]
    pub unsafe fn arrive_at_bottom(&self) {
        self.0.arrive_at_bottom();
    }
}

impl Default for ToolsFiber {
    fn default() -> Self {
        Self::new()
    }
}
