//! `enter`: lends a root to a closure, and afterwards kills the greenlets that were made (rule s20).

use core::{
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

use super::{
    Block, Registry,
    kill::{self, Killed},
    root::{RootKind, with_root},
};
use crate::{Current, host};

/// Runs `body` with a new root greenlet, then kills all greenlets that were made under it.
pub(crate) fn enter<'env, I, R, F>(body: F) -> R
where
    I: 'static,
    F: for<'e> FnOnce(&crate::Root<'e, 'env, I>) -> R,
{
    with_root(&RootKind::<I>::STATIC, |root| {
        let registry = Registry::new(root);
        // A signal handler that finds it by the root finds it whole.
        compiler_fence(Ordering::Release);
        root.set_home(&registry);
        let _end = EndOfEnter(&registry, root);
        // SAFETY: the block's inbox type is I, its greenlet runs, and `'env` outlives this call.
        body(unsafe { crate::Root::of(root) })
    })
}

/// As [`enter`], but greenlets that are made under it may outlive it.
pub(crate) fn enter_unscoped<I: 'static, R>(body: impl FnOnce(&Current<'static, I>) -> R) -> R {
    with_root(&RootKind::<I>::STATIC, |root| {
        // SAFETY: the block's inbox type is I, and its greenlet runs.
        body(unsafe { Current::of(root) })
    })
}

/// Runs `body` with a new root greenlet in the `enter` that `member` belongs to.
pub(crate) fn with_inbox<'e, J: 'e, R>(
    member: &Block,
    body: impl FnOnce(&Current<'e, J>) -> R,
) -> R {
    with_root(&RootKind::<J>::BORROWING, |root| {
        root.set_home(member.home());
        // SAFETY: the block's inbox type is J, and its greenlet runs.
        body(unsafe { Current::of(root) })
    })
}

/// Kills the members that are alive when an `enter` ends. Dropped in its root.
struct EndOfEnter<'a>(&'a Registry, &'a Block);

impl Drop for EndOfEnter<'_> {
    fn drop(&mut self) {
        let Self(registry, root) = self;
        while let Some(member) = registry.first() {
            match kill::end(member) {
                // After an interruption by a destructor of the member: try again.
                Killed::Dead | Killed::Interrupted => {}
                Killed::Itself | Killed::Beneath | Killed::InProgress => {
                    // Step 3 of the argument in `handles/root.rs` excludes this. To go on is unsound.
                    host::abort(format_args!("{member:?} lives at the end of its `enter`"));
                }
            }
        }
        root.set_home(ptr::null());
        compiler_fence(Ordering::Release);
    }
}
