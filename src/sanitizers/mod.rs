//! Tells sanitizers and Valgrind of stacks and switches. Each tool has a feature of its name. Of the tree
//! this assumes only the order of the calls.
//!
//! The tree and users of the raw layer call [`ToolsFiber`]. Without the features its functions are empty.
//! With a feature, but not under its tool, they are a few instructions without effect.
//!
//! Functions between the tree's switch and the tool's are inlined, also without optimization.
//! ThreadSanitizer counts calls and returns for each stack, so a function that calls its switch must not
//! return on the other stack.

#[cfg(feature = "asan")]
mod asan;
#[cfg(any(feature = "asan", feature = "tsan"))]
mod runtime;
#[cfg(feature = "tsan")]
mod tsan;
#[cfg(feature = "valgrind")]
mod valgrind;

#[cfg(any(feature = "asan", feature = "tsan", feature = "valgrind"))]
use core::{cell::Cell, ptr};

#[cfg(feature = "std")]
use crate::stack::StackLimits;

/// `true` if a feature for one of the tools is enabled.
#[cfg(feature = "std")]
pub(crate) const ARE_TOLD: bool = cfg!(any(
    feature = "asan",
    feature = "tsan",
    feature = "valgrind"
));

#[cfg(any(feature = "asan", feature = "tsan", feature = "valgrind"))]
std::thread_local! {
    /// The fiber that was left, until the next one has arrived; and whether it has finished.
    static LEFT: Cell<(*const ToolsFiber, bool)> = const { Cell::new((ptr::null(), false)) };
}

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
pub struct ToolsFiber {
    #[cfg(feature = "asan")]
    asan: asan::Fiber,
    #[cfg(feature = "tsan")]
    tsan: tsan::Fiber,
    #[cfg(feature = "valgrind")]
    valgrind: valgrind::Stack,
}

impl ToolsFiber {
    /// Returns the fiber of a context that has not run, or of the one that runs on a thread's own stack.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            #[cfg(feature = "asan")]
            asan: asan::Fiber::new(),
            #[cfg(feature = "tsan")]
            tsan: tsan::Fiber::new(),
            #[cfg(feature = "valgrind")]
            valgrind: valgrind::Stack::new(),
        }
    }

    /// Announces that the context is about to start on a stack. Call it when the context is prepared.
    ///
    /// # Safety
    /// The stack is mapped, and nothing runs there. This value stays where it is until the context
    /// has finished.
    #[cfg(feature = "std")]
    pub unsafe fn prepare(&self, limits: StackLimits) {
        let (bottom, top) = (limits.bottom(), limits.top());
        #[cfg(feature = "asan")]
        self.asan.prepare(bottom, top);
        #[cfg(feature = "tsan")]
        self.tsan.create();
        #[cfg(feature = "valgrind")]
        self.valgrind.register(bottom, top);
        let _ = (bottom, top);
    }

    /// Announces a switch from this context, which runs, to that of `to`. Call it just before the switch.
    ///
    /// # Safety
    /// The switch follows, and `to` is of a context that was prepared or left before.
    #[inline(always)]
    pub unsafe fn leave(&self, to: &Self) {
        self.note_leave(to, false);
        #[cfg(feature = "tsan")]
        self.tsan.leave(&to.tsan);
    }

    /// Announces the last switch of a context that has finished. Call it in its [`Start`](crate::raw::Start)
    /// function, just before that returns.
    ///
    /// # Safety
    /// As for [`leave`](Self::leave). This value stays until the other context has arrived.
    pub unsafe fn leave_for_ever(&self, to: &Self) {
        self.note_leave(to, true);
    }

    #[inline(always)]
    fn note_leave(&self, to: &Self, for_ever: bool) {
        #[cfg(any(feature = "asan", feature = "tsan", feature = "valgrind"))]
        LEFT.set((self, for_ever));
        #[cfg(feature = "asan")]
        self.asan.leave(&to.asan);
        let _ = (to, for_ever);
    }

    /// Announces that a switch has reached this context. Call it just after the switch has returned.
    ///
    /// # Safety
    /// The context that was left has called `leave` or `leave_for_ever` with this fiber.
    #[inline(always)]
    pub unsafe fn arrive(&self) {
        self.note_arrival(false);
    }

    /// Announces that a switch has started this context. Call it at the beginning of its
    /// [`Start`](crate::raw::Start) function.
    ///
    /// # Safety
    /// As for [`arrive`](Self::arrive).
    #[inline(always)]
    pub unsafe fn arrive_at_bottom(&self) {
        self.note_arrival(true);
    }

    #[inline(always)]
    fn note_arrival(&self, at_bottom: bool) {
        #[cfg(any(feature = "asan", feature = "tsan", feature = "valgrind"))]
        {
            let (left, for_ever) = LEFT.replace((ptr::null(), false));
            // SAFETY: whoever leaves says so first, and its block is there until its message has
            // been taken out.
            let left = unsafe { &*left };
            if for_ever {
                #[cfg(feature = "asan")]
                self.asan.arrive_from_dead(&left.asan);
                #[cfg(feature = "tsan")]
                self.tsan.arrive_from_dead(&left.tsan, at_bottom);
                #[cfg(feature = "valgrind")]
                left.valgrind.deregister();
            } else {
                #[cfg(feature = "asan")]
                self.asan.arrive(&left.asan);
            }
            let _ = left;
        }
        let _ = at_bottom;
    }
}

impl Default for ToolsFiber {
    fn default() -> Self {
        Self::new()
    }
}
