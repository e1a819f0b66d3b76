//! Kills in which a killer waits, and the greenlets that they block so that every kill ends (rule s15).
//!
//! A greenlet that is being killed cannot switch, but its destructors may enter, and a nested root
//! may switch. If that could switch to any greenlet, control might never return to the victim. So while
//! a kill is in progress, only greenlets that were made since it began can be switched to; all others
//! count as busy. The results of the new ones cannot leave either: they go to the greenlet that the kill
//! waits for.

use core::{cell::Cell, ptr};

use super::{Block, thread};

/// A kill whose killer waits. It lies in the killer's frame.
///
/// # Invariants
/// While it is in the thread's list it stays where it is, and `killer` is busy. Newer kills come first:
/// `last_made` never increases along the list.
pub(crate) struct KillInProgress {
    killer: *const Block,
    /// The greenlet that was made last when it began.
    last_made: u64,
    older: Cell<*const KillInProgress>,
}

impl KillInProgress {
    pub(super) fn new(killer: &Block) -> Self {
        Self {
            killer,
            last_made: thread::last_id(),
            older: Cell::new(ptr::null()),
        }
    }

    /// Enters the thread's list.
    ///
    /// # Safety
    /// It stays where it is until it leaves the list, and its killer is busy until then.
    pub(super) unsafe fn begin(&self) {
        self.older.set(thread::kill());
        thread::set_kill(self);
    }

    /// Leaves the list. It need not be the newest: a killer that is killed waits no longer.
    pub(super) fn end(&self) {
        let older = self.older.get();
        // SAFETY: what is in the list stays where it is (invariant), and this is in it.
        unsafe {
            let mut newer = thread::kill();
            if ptr::eq(newer, self) {
                return thread::set_kill(older);
            }
            while !ptr::eq((*newer).older.get(), self) {
                newer = (*newer).older.get();
            }
            (*newer).older.set(older);
        }
    }

    fn killer(&self) -> &Block {
        // SAFETY: a busy greenlet is not freed, and `killer` is busy while this is in the list (invariant).
        unsafe { &*self.killer }
    }
}

/// Returns the kill that began last.
fn newest<'a>() -> Option<&'a KillInProgress> {
    // SAFETY: null, or in the list. Callers do not switch while they have it.
    unsafe { thread::kill().as_ref() }
}

/// Returns `true` if a killer waits.
pub(crate) fn exists() -> bool {
    !thread::kill().is_null()
}

/// Returns `true` if `block` must wait until a kill has ended.
pub(super) fn is_blocked(block: &Block) -> bool {
    newest().is_some_and(|kill| block.id <= kill.last_made)
}

/// Returns the greenlet that receives an error in place of `busy`: the one that it waits for. If that is
/// blocked, or `busy` is only blocked by a kill, it is the one that the newest kill waits for.
pub(super) fn in_place_of(busy: &Block) -> &Block {
    let end = busy.end_of_waits();
    match newest() {
        Some(kill) if is_blocked(end) => kill.killer().end_of_waits(),
        _ => end,
    }
}
