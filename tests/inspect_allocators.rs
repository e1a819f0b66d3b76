//! Inspections with an allocator that uses the crate, and how much an inspection allocates (rule s24).

#![cfg(unix)] // not on Windows: it forks

mod process;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::{Cell, RefCell},
    fmt,
    hint::black_box,
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use greenlet::{Builder, Child, Current, Generator, Greenlet, Root, Snapshot, enter, local};
use process::in_child;

thread_local! {
    /// The number of the call of the allocator that takes a snapshot, counted down; 0: none does.
    static UNTIL_SNAPSHOT: Cell<usize> = const { Cell::new(0) };
    /// The number of greenlets in that snapshot.
    static SEEN: Cell<Option<usize>> = const { Cell::new(None) };
    /// KiB of stack that each allocation takes.
    static HUNGER: Cell<usize> = const { Cell::new(0) };
    /// Each call enters a root.
    static ENTERS: Cell<bool> = const { Cell::new(false) };
    /// Each call is counted in a value of the running greenlet.
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    /// Bytes that this thread has allocated.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

local! {
    static OF_GREENLET: Cell<usize> = Cell::new(0);
}

struct Odd;

// SAFETY: the system's allocator.
unsafe impl GlobalAlloc for Odd {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size());
        take_stack(HUNGER.get());
        use_the_crate();
        // SAFETY: the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        use_the_crate();
        // SAFETY: the caller's word.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ODD: Odd = Odd;

/// Does what the thread-locals above say.
fn use_the_crate() {
    if ENTERS.replace(false) {
        enter(|_: &Root<()>| ());
        ENTERS.set(true);
    }
    if COUNTS.replace(false) {
        OF_GREENLET.try_with(|count| count.set(count.get() + 1));
        COUNTS.set(true);
    }
    let left = UNTIL_SNAPSHOT.get();
    UNTIL_SNAPSHOT.set(left.saturating_sub(1));
    if left == 1 {
        SEEN.set(Some(Snapshot::take().greenlets().len()));
    }
}

#[inline(never)]
fn take_stack(kib: usize) {
    if kib > 0 {
        let frame = black_box([0_u8; 1024]);
        take_stack(kib - 1);
        black_box(&frame);
    }
}

/// Taken by every test here: all take backtraces, and one of them in a forked child (see [`in_child`]).
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn s24_an_allocator_may_take_a_snapshot_while_one_is_taken() {
    let _alone = alone();
    enter(|me: &Root<usize>| {
        let main = me.handle();
        let waits = Greenlet::new(me, move |me, mut text: String| {
            loop {
                text = me.switch(&main, text.len())?;
            }
        });
        assert_eq!(me.switch(&waits, "one".to_string()).unwrap(), 3);
        let (mut outside, mut within) = (0, 0);
        for nth in 1.. {
            SEEN.set(None);
            UNTIL_SNAPSHOT.set(nth);
            let snapshot = Snapshot::take();
            UNTIL_SNAPSHOT.set(0);
            assert_eq!(snapshot.greenlets().len(), 2);
            let seen = snapshot.greenlets()[1].backtrace.is_some();
            assert!(seen, "with a snapshot in allocation {nth}");
            assert_eq!(me.switch(&waits, "three".to_string()).unwrap(), 5);
            match SEEN.get() {
                Some(0) => within += 1,
                Some(seen) => {
                    assert_eq!(seen, 2);
                    outside += 1;
                }
                None => break,
            }
        }
        assert!(outside > 0 && within > 0, "{outside} {within}");
    });
}

#[test]
fn s24_an_allocator_that_enters_while_a_stack_is_inspected_aborts_with_a_message() {
    let _alone = alone();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let waits = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
        me.switch(&waits, ()).unwrap();
        let child = in_child(|| {
            ENTERS.set(true);
            drop(waits.backtrace());
        });
        assert!(
            child.stderr.contains("while a stack is inspected"),
            "{child:?}"
        );
    });
}

#[test]
fn s24_an_allocator_may_take_more_stack_than_the_inspected_has() {
    let _alone = alone();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let build = Builder::new().stack_size(16 * 1024);
        let waits = build.build(me, move |me, ()| {
            let frame = black_box([3_u8; 4096]);
            let answer = me.switch(&main, ());
            black_box(&frame);
            answer
        });
        let waits = waits.unwrap();
        me.switch(&waits, ()).unwrap();
        HUNGER.set(24);
        let snapshot = Snapshot::take();
        let backtrace = waits.backtrace();
        HUNGER.set(0);
        assert!(snapshot.greenlets()[1].backtrace.is_some());
        assert!(backtrace.is_some());
        me.switch(&waits, ()).unwrap();
    });
}

/// Starts a chain of greenlets, each the parent of the next.
fn descend<'e>(
    me: &Current<'e, ()>,
    main: Greenlet<'e, ()>,
    kept: Kept<'e>,
    depth: usize,
) -> Greenlet<'e, ()> {
    let build = Builder::new().stack_size(32 * 1024);
    let greenlet = build.build(me, move |me, ()| {
        if depth == 0 {
            return me.switch(&main, ());
        }
        let next = descend(me, main, Rc::clone(&kept), depth - 1);
        kept.borrow_mut().push(next.clone());
        me.switch(&next, ())
    });
    greenlet.unwrap()
}

type Kept<'e> = Rc<RefCell<Vec<Greenlet<'e, ()>>>>;

#[test]
fn s24_a_snapshot_takes_memory_in_proportion_to_the_depth() {
    fn allocated_for(depth: usize) -> usize {
        enter(|me: &Root<()>| {
            let first = descend(me, me.handle(), Rc::default(), depth);
            me.switch(&first, ()).unwrap();
            let before = ALLOCATED.get();
            let snapshot = Snapshot::take();
            let allocated = ALLOCATED.get() - before;
            assert_eq!(snapshot.greenlets().len(), depth + 2);
            allocated
        })
    }
    let _alone = alone();
    let (half, whole) = (allocated_for(100), allocated_for(200));
    assert!(
        whole < 3 * half,
        "{half} bytes, and {whole} for twice the depth"
    );
}

#[test]
fn s23_an_allocator_may_use_values_of_the_greenlet_that_allocates() {
    local! {
        static A: Cell<u32> = Cell::new(1);
        static B: Cell<u32> = Cell::new(2);
        static C: Cell<u32> = Cell::new(3);
        static D: Cell<u32> = Cell::new(4);
        static E: Cell<u32> = Cell::new(5);
    }
    let _alone = alone();
    // Its value is the first of the greenlet, or comes when there are others.
    for others in 0..5 {
        enter(|_: &Root<()>| {
            let mut sum = 0;
            for (nth, key) in [&A, &B, &C, &D, &E].into_iter().enumerate() {
                COUNTS.set(nth >= others);
                sum += key.with(Cell::get);
            }
            COUNTS.set(false);
            assert_eq!(sum, 15);
            assert!(OF_GREENLET.with(Cell::get) >= 5 - others);
        });
    }
}

/// Does a bit of everything, and returns what came of it.
fn a_bit_of_everything() -> Vec<String> {
    let mut seen = Vec::new();
    enter(|me: &Root<String>| {
        let echo = Greenlet::new(me, |me: &Child<String, String>, mut text| {
            loop {
                text = me.switch_to_parent(text + "!")?;
            }
        });
        seen.push(me.switch(&echo, "a".to_string()).unwrap());
        seen.push(me.throw(&echo, fmt::Error).unwrap_err().to_string());
        let fails = Greenlet::new(me, |_, ()| panic::resume_unwind(Box::new(7)));
        let payload = panic::catch_unwind(AssertUnwindSafe(|| me.switch(&fails, ())));
        seen.push(format!("{:?}", payload.unwrap_err().downcast_ref::<i32>()));
        // Its value finds its parent busy.
        let value = Greenlet::new(me, |_, ()| Ok("b".to_string()));
        let thrown = enter(|me: &Root<()>| me.switch(&value, ()).unwrap_err());
        seen.push(thrown.into_value::<String>().unwrap());
        let stubborn = Greenlet::new(me, |me: &Child<(), String>, ()| {
            loop {
                let _refused = me.switch_to_parent("c".to_string());
            }
        });
        seen.push(me.switch(&stubborn, ()).unwrap());
        drop(stubborn);
        let mut letters = Generator::new(me, |yielder, ()| {
            yielder.give('d')?;
            panic::resume_unwind(Box::new(8))
        });
        seen.extend(letters.next().map(String::from));
        let payload = panic::catch_unwind(AssertUnwindSafe(|| letters.next()));
        seen.push(format!("{:?}", payload.unwrap_err().downcast_ref::<i32>()));
        let mut dropped = Generator::new(me, |yielder, ()| {
            loop {
                let _refused = yielder.give('e');
            }
        });
        seen.extend(dropped.next().map(String::from));
        let builder = Builder::new().name("named").stack_size(100 * 1024);
        let named = builder.build(me, |_, ()| Ok("f".to_string())).unwrap();
        named.set_parent(&me.handle()).unwrap();
        seen.push(me.switch(&named, ()).unwrap());
    });
    seen
}

#[test]
fn s24_an_allocator_may_inspect_or_enter_in_any_call() {
    let _alone = alone();
    let expected = thread::spawn(a_bit_of_everything).join().unwrap();
    for nth in 1.. {
        // A thread has its own pool, and keeps its own memory.
        let inspected = thread::spawn(move || {
            UNTIL_SNAPSHOT.set(nth);
            let seen = a_bit_of_everything();
            UNTIL_SNAPSHOT.set(0);
            (seen, SEEN.get().is_some())
        });
        let (seen, is_inspected) = inspected.join().unwrap();
        assert_eq!(seen, expected, "with a snapshot in call {nth}");
        if !is_inspected {
            break;
        }
    }
    let entered = thread::spawn(|| {
        ENTERS.set(true);
        let seen = a_bit_of_everything();
        ENTERS.set(false);
        seen
    });
    assert_eq!(entered.join().unwrap(), expected);
}
