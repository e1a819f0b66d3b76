//! Tells sanitizers and Valgrind of stacks and switches. Each tool has a feature of its name. Of the tree
//! this assumes only the order of the calls.
//!
//! Just before a switch the tree calls [`Fiber::leave`] or [`Fiber::leave_for_ever`]; just after it, on
//! the other stack, [`Fiber::arrive`] or [`Fiber::arrive_at_bottom`]. Without the features these
//! functions are empty. With a feature, but not under its tool, they are a few instructions without
//! effect.
//!
//! [`ToolsFiber`] is the same for users of the raw layer.
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

#[cfg(feature = "std")]
mod raw;

pub(crate) use imp::Fiber;
#[cfg(feature = "std")]
pub use raw::ToolsFiber;

#[cfg(any(feature = "asan", feature = "tsan", feature = "valgrind"))]
mod imp {
    use core::{cell::Cell, ptr};

    use crate::stack::StackLimits;

    std::thread_local! {
        /// Who has left, until the other has arrived; and whether that is for ever.
        static LEFT: Cell<(*const Fiber, bool)> = const { Cell::new((ptr::null(), false)) };
    }

    /// What the tools know of one greenlet's stack.
    #[derive(Debug)]
    pub(crate) struct Fiber {
        #[cfg(feature = "asan")]
        asan: super::asan::Fiber,
        #[cfg(feature = "tsan")]
        tsan: super::tsan::Fiber,
        #[cfg(feature = "valgrind")]
        valgrind: super::valgrind::Stack,
    }

    impl Fiber {
        pub(crate) const fn new() -> Self {
            Self {
                #[cfg(feature = "asan")]
                asan: super::asan::Fiber::new(),
                #[cfg(feature = "tsan")]
                tsan: super::tsan::Fiber::new(),
                #[cfg(feature = "valgrind")]
                valgrind: super::valgrind::Stack::new(),
            }
        }

        /// A greenlet is about to start on a stack, where nothing runs so far.
        pub(crate) fn prepare(&self, limits: impl FnOnce() -> StackLimits) {
            let limits = limits();
            let (bottom, top) = (limits.bottom(), limits.top());
            #[cfg(feature = "asan")]
            self.asan.prepare(bottom, top);
            #[cfg(feature = "tsan")]
            self.tsan.create();
            #[cfg(feature = "valgrind")]
            self.valgrind.register(bottom, top);
            let _ = (bottom, top);
        }

        /// To be called just before the switch from this one, which runs, to `to`.
        #[inline(always)]
        pub(crate) fn leave(&self, to: &Self) {
            LEFT.set((self, false));
            #[cfg(feature = "asan")]
            self.asan.leave(&to.asan);
            #[cfg(feature = "tsan")]
            self.tsan.leave(&to.tsan);
            let _ = to;
        }

        /// As [`leave`](Self::leave), by one that has finished: functions still return on its stack
        /// before the switch.
        pub(crate) fn leave_for_ever(&self, to: &Self) {
            LEFT.set((self, true));
            #[cfg(feature = "asan")]
            self.asan.leave(&to.asan);
            let _ = to;
        }

        /// To be called just after the switch, by the one that was reached.
        #[inline(always)]
        pub(crate) fn arrive(&self) {
            self.arrive_in(false);
        }

        /// As [`arrive`](Self::arrive), by the function at the bottom of a new stack.
        #[inline(always)]
        pub(crate) fn arrive_at_bottom(&self) {
            self.arrive_in(true);
        }

        #[inline(always)]
        fn arrive_in(&self, bottom: bool) {
            let (left, is_over) = LEFT.replace((ptr::null(), false));
            // SAFETY: whoever leaves says so first, and its block is there until its message has
            // been taken out.
            let left = unsafe { &*left };
            if is_over {
                #[cfg(feature = "asan")]
                self.asan.arrive_from_dead(&left.asan);
                #[cfg(feature = "tsan")]
                self.tsan.arrive_from_dead(&left.tsan, bottom);
                #[cfg(feature = "valgrind")]
                left.valgrind.deregister();
            } else {
                #[cfg(feature = "asan")]
                self.asan.arrive(&left.asan);
            }
            let _ = (left, bottom);
        }
    }
}

#[cfg(not(any(feature = "asan", feature = "tsan", feature = "valgrind")))]
mod imp {
    use static_assertions::assert_eq_size;

    /// Nobody is to be told.
    #[derive(Debug)]
    pub(crate) struct Fiber;

    assert_eq_size!(Fiber, ());

    impl Fiber {
        pub(crate) const fn new() -> Self {
            Self
        }

        #[cfg(feature = "std")]
        #[inline(always)]
        pub(crate) fn prepare<L>(&self, _limits: impl FnOnce() -> L) {}

        #[inline(always)]
        pub(crate) fn leave(&self, _to: &Self) {}

        #[inline(always)]
        pub(crate) fn leave_for_ever(&self, _to: &Self) {}

        #[inline(always)]
        pub(crate) fn arrive(&self) {}

        #[inline(always)]
        pub(crate) fn arrive_at_bottom(&self) {}
    }
}
