//! Looking with an allocator that looks, too (s24), as a heap profiler may.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use greenlet::{Current, Greenlet, Snapshot, enter};

thread_local! {
    /// How many allocations of this thread there are before one takes a snapshot; 0: none does.
    static UNTIL_SNAPSHOT: Cell<usize> = const { Cell::new(0) };
}

struct Profiler;

// SAFETY: the system's allocator.
unsafe impl GlobalAlloc for Profiler {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let left = UNTIL_SNAPSHOT.get();
        UNTIL_SNAPSHOT.set(left.saturating_sub(1));
        if left == 1 {
            drop(Snapshot::take());
        }
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's word.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static PROFILER: Profiler = Profiler;

#[test]
fn s24_an_allocator_may_take_a_snapshot_while_one_is_taken() {
    enter(|me: &Current<usize>| {
        let main = me.handle();
        let waits = Greenlet::new(me, move |me, mut text: String| {
            loop {
                text = me.switch(&main, text.len())?;
            }
        });
        assert_eq!(me.switch(&waits, "one".to_string()).unwrap(), 3);
        let mut nth = 1;
        loop {
            UNTIL_SNAPSHOT.set(nth);
            let snapshot = Snapshot::take();
            let is_past_the_last = UNTIL_SNAPSHOT.replace(0) > 0;
            assert_eq!(snapshot.greenlets().len(), 2);
            let seen = snapshot.greenlets()[1].backtrace.is_some();
            assert!(seen, "with a snapshot in allocation {nth}");
            assert_eq!(me.switch(&waits, "three".to_string()).unwrap(), 5);
            if is_past_the_last {
                break;
            }
            nth += 1;
        }
        assert!(nth > 5, "a snapshot allocates");
    });
}
