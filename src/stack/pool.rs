//! Stacks kept for reuse: a thread's own, so that no lock is needed.

use std::cell::RefCell;

use super::{Stack, StackError, mapping::round_up_to_page};

/// How many free stacks a thread keeps.
const CAPACITY: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Stack>> = const { RefCell::new(Vec::new()) };
}

/// A stack of at least `size` usable bytes over at least `guard` bytes of guard.
pub(crate) fn acquire(size: usize, guard: usize) -> Result<Stack, StackError> {
    let kept = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        let fits = |stack: &Stack| {
            Some(stack.size()) == round_up_to_page(size)
                && Some(stack.guard_size()) == round_up_to_page(guard)
        };
        free.iter()
            .rposition(fits)
            .map(|index| free.swap_remove(index))
    });
    match kept {
        Ok(Some(stack)) => Ok(stack),
        // Nothing fits, or the thread is ending and its pool is gone.
        Ok(None) | Err(_) => Stack::map(size, guard),
    }
}

/// Takes back a stack on which nothing runs any more.
pub(crate) fn release(stack: Stack) {
    // When the pool is full, or gone with the thread, the stack is unmapped here.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < CAPACITY {
            free.push(stack);
        }
    });
}
