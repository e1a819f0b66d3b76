//! There is no memory: every allocation of all that the crate does fails once.
//!
//! Where the crate's function returns an error, it returns one, what was sent comes back, and
//! nothing is lost, leaked or left in disorder. Elsewhere the process is aborted with the words
//! of [`handle_alloc_error`](std::alloc::handle_alloc_error). What cannot fail does not
//! allocate: switches, kills and drops. Then the limits of the system, and a fork.

mod machine;
mod process;
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    hint::black_box,
    io::{self, Write},
    mem::{self, MaybeUninit},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
    sync::{
        Barrier, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use greenlet::{
    BuildError, Builder, Current, Greenlet, GreenletExit, Snapshot, StackError, StackMemory,
    SwitchError, Thrown, enter, local, raw::Stack, scope,
};
use machine::{emulated, page_size, skip};
use process::in_child;
use support::{
    Number, address_space,
    census::{Cargo, Census, Wide},
    number,
};

/// The system's allocator, which refuses an allocation if it is told to.
struct Failing;

/// Bytes that threads with [`TRACKED`] have allocated and that are not freed.
static LIVE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static TRACKED: Cell<bool> = const { Cell::new(false) };
    /// Are allocations counted, and may they fail?
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

/// How many allocations there were while armed.
static SEEN: AtomicUsize = AtomicUsize::new(0);
/// Which of them fails.
static FAULT: AtomicUsize = AtomicUsize::new(NONE);
const NONE: usize = usize::MAX;
/// Has it?
static FAILED: AtomicBool = AtomicBool::new(false);
/// How often there was something armed.
static TRIED: AtomicUsize = AtomicUsize::new(0);

/// Ahead of each block: how much of it is counted in [`LIVE`]. As every allocator does, this one
/// gives more alignment than it is asked for: the unwinder's own exceptions need it.
#[repr(align(16))]
struct Header(usize);

fn with_header(layout: Layout) -> (Layout, usize) {
    Layout::new::<Header>()
        .extend(layout)
        .expect("no test allocates as much")
}

// SAFETY: the system's allocator does the work, on layouts that contain the ones that are asked
// for, at their alignment.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ARMED.get() {
            let number = SEEN.fetch_add(1, SeqCst);
            if FAULT.load(SeqCst) == number {
                // Once: who says so may allocate.
                FAILED.store(true, SeqCst);
                ARMED.set(false);
                return ptr::null_mut();
            }
        }
        let (whole, offset) = with_header(layout);
        // SAFETY: not of size zero.
        let memory = unsafe { System.alloc(whole) };
        if memory.is_null() {
            return memory;
        }
        let counted = if TRACKED.get() { layout.size() } else { 0 };
        LIVE.fetch_add(counted, SeqCst);
        // SAFETY: within the block, which is aligned for a header.
        unsafe {
            memory.cast::<Header>().write(Header(counted));
            memory.add(offset)
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let (whole, offset) = with_header(layout);
        // SAFETY: made by `alloc` for the same layout.
        unsafe {
            let memory = memory.sub(offset);
            LIVE.fetch_sub(memory.cast::<Header>().read().0, SeqCst);
            System.dealloc(memory, whole);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Does what may meet the fault, and nothing else of the test.
fn armed<R>(act: impl FnOnce() -> R) -> R {
    TRIED.fetch_add(1, SeqCst);
    ARMED.set(!failed());
    let result = act();
    ARMED.set(false);
    result
}

/// Has the fault been met?
fn failed() -> bool {
    FAILED.load(SeqCst)
}

/// One at a time: it counts all memory, and numbers all allocations.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn choose(fault: usize) {
    FAULT.store(fault, SeqCst);
    FAILED.store(false, SeqCst);
    SEEN.store(0, SeqCst);
    TRIED.store(0, SeqCst);
}

/// Runs `scenario` on a thread of its own, on which nobody has used the crate before, and says
/// how many allocations there were while armed, of which the one with this number fails.
#[track_caller]
fn run(scenario: fn(), fault: usize) -> usize {
    // What the process keeps for ever is there before anything is counted.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| thread::spawn(still_works).join().unwrap());

    let live = LIVE.load(SeqCst);
    choose(fault);
    let thread = thread::spawn(move || {
        TRACKED.set(true);
        scenario();
        still_works();
    });
    if let Err(panic) = thread.join() {
        let text = support::panics::text_of(&*panic);
        panic!("with fault {fault:x}: {text}");
    }
    assert!(TRIED.load(SeqCst) > 0, "the scenario tries nothing");
    assert_eq!(failed(), fault != NONE, "fault {fault:x} was not met");
    assert_eq!(
        LIVE.load(SeqCst).wrapping_sub(live),
        0,
        "leaked with fault {fault:x}"
    );
    SEEN.load(SeqCst)
}

/// The crate is good for everything on this thread.
fn still_works() {
    let census = Census::new();
    enter(|me| {
        let sizes = [1, 2, 16].map(|factor| factor * SMALL);
        let greenlets: Vec<_> = (0..30).map(|n| echo(me, sizes[n % sizes.len()])).collect();
        for greenlet in greenlets.iter().cycle().take(3 * greenlets.len()) {
            let reply = me.switch(greenlet, Wide::new(&census, 5)).unwrap();
            assert_eq!(reply.value(), 5);
        }
    });
}

fn report(what: &str, faults: usize) {
    // Past what libtest keeps to itself.
    let _ = writeln!(io::stderr(), "{what}: {faults} faults injected");
}

/// Each allocation that `scenario` makes while armed fails once, and `scenario` sees to it that
/// an error says so.
#[track_caller]
fn each_fault_is_an_error(what: &str, scenario: fn()) {
    let _one = one_at_a_time();
    let faults = run(scenario, NONE);
    assert!(faults > 0, "{what}: nothing is allocated");
    for fault in 0..faults {
        run(scenario, fault);
    }
    report(what, faults);
}

/// Nothing that `scenario` does while armed allocates.
#[track_caller]
fn nothing_allocates(scenario: fn()) {
    let _one = one_at_a_time();
    assert_eq!(run(scenario, NONE), 0, "allocations");
}

/// Each allocation that `scenario` makes while armed fails once, and ends the process in the way
/// that Rust has for that.
#[track_caller]
fn each_fault_aborts(what: &str, scenario: fn()) {
    let _one = one_at_a_time();
    let in_child_with = |fault| {
        in_child(|| {
            choose(fault);
            scenario();
            let seen = SEEN.load(SeqCst).try_into().expect("a few");
            // SAFETY: ends the process.
            unsafe { libc::_exit(seen) }
        })
    };
    let ending = in_child_with(NONE);
    let faults = ending.status.code().expect("an exit");
    // 101 is a panic.
    assert!((1..101).contains(&faults), "{what}: {ending:?}");
    let faults = faults as usize;
    for fault in 0..faults {
        let ending = in_child_with(fault);
        assert!(
            ending.is_abort() && ending.stderr.starts_with("memory allocation of "),
            "{what}, fault {fault}: {ending:?}"
        );
    }
    report(what, faults);
}

const SMALL: usize = Builder::MIN_STACK_SIZE;

/// One that sends back what it receives.
fn echo(me: &Current<Wide>, stack_size: usize) -> Greenlet<Wide> {
    let main = me.handle();
    let builder = Builder::new().stack_size(stack_size);
    builder
        .build(me, move |me, mut message| {
            loop {
                message = me.switch(&main, message)?;
            }
        })
        .unwrap()
}

/// Switches to one that is new. If there is no memory, that is said, the message is back, and
/// another attempt is as good as the first.
#[track_caller]
fn start(me: &Current<Wide>, census: &Census, new: &Greenlet<Wide>) {
    let message = Wide::new(census, 7);
    let reply = match armed(|| me.try_switch(new, message)) {
        Ok(reply) => reply,
        Err(SwitchError::Stack(message, error)) => {
            assert!(failed(), "{error}");
            assert_eq!(error, StackError::OutOfMemory);
            assert!(support::is_new(new));
            assert_eq!((message.value(), census.alive()), (7, 1));
            me.switch(new, message)
        }
        Err(refusal) => panic!("{refusal}"),
    };
    assert_eq!(reply.unwrap().value(), 7);
    assert!(new.is_active());
}

#[test]
fn the_first_stack_of_a_thread() {
    each_fault_is_an_error("the first stack of a thread", || {
        let census = Census::new();
        enter(|me| start(me, &census, &echo(me, SMALL)));
    });
}

#[test]
fn the_first_stack_of_each_size() {
    each_fault_is_an_error("the first stack of each size", || {
        let census = Census::new();
        enter(|me| {
            // So many that the list of sizes has to grow.
            let greenlets: Vec<_> = (1..=9).map(|factor| echo(me, factor * SMALL)).collect();
            greenlets.iter().for_each(|new| start(me, &census, new));
        });
    });
}

#[test]
fn each_slab_of_stacks() {
    each_fault_is_an_error("each slab of stacks", || {
        let census = Census::new();
        enter(|me| {
            // So many that the list of slabs has to grow.
            let greenlets: Vec<_> = (0..300).map(|_| echo(me, SMALL)).collect();
            greenlets.iter().for_each(|new| start(me, &census, new));
        });
    });
}

#[test]
fn a_stack_while_the_thread_ends() {
    struct Starts;

    impl Drop for Starts {
        fn drop(&mut self) {
            let census = Census::new();
            enter(|me| start(me, &census, &echo(me, SMALL)));
            still_works();
        }
    }

    thread_local!(static AT_END: Cell<Option<Starts>> = const { Cell::new(None) });

    each_fault_is_an_error("a stack while the thread ends", || {
        // Before the crate has thread-locals, so that they are gone when this is dropped.
        AT_END.set(Some(Starts));
    });
}

/// Builds a greenlet whose body and stack own something. If there is no memory that is said, and
/// both are gone.
fn build<const WORDS: usize>() {
    struct Memory(Box<[MaybeUninit<u8>]>, Wide);

    // SAFETY: the memory is its own.
    unsafe impl StackMemory for Memory {
        fn top(&self) -> *mut u8 {
            self.0.as_ptr_range().end.cast_mut().cast()
        }

        fn size(&self) -> usize {
            assert_eq!(self.1.value(), 2);
            self.0.len()
        }
    }

    let census = Census::new();
    enter(|me: &Current<usize>| {
        let memory = Memory(Box::new_uninit_slice(4 * SMALL), Wide::new(&census, 2));
        let builder = Builder::new().name("named").stack(memory);
        let (cargo, words) = (Wide::new(&census, 3), [1; WORDS]);
        let body = move |_: &Current<usize>, n: usize| {
            assert_eq!(cargo.value(), 3);
            Ok(n + black_box(words).len())
        };
        match armed(|| builder.build(me, body)) {
            Ok(built) => {
                assert_eq!(built.name(), Some("named"));
                assert_eq!(me.switch(&built, 1).unwrap(), 1 + WORDS);
            }
            Err(error) => assert_eq!((error, failed()), (BuildError::OutOfMemory, true)),
        }
        assert_eq!(census.alive(), 0);
    });
}

#[test]
fn a_built_greenlet() {
    each_fault_is_an_error("a built greenlet", build::<1>);
    each_fault_is_an_error("a built greenlet with a large body", build::<1000>);
}

#[test]
fn a_built_greenlet_of_a_scope() {
    each_fault_is_an_error("a built greenlet of a scope", || {
        let census = Census::new();
        let borrowed = &1;
        enter(|me: &Current<usize>| {
            me.scope(|s| {
                let cargo = Wide::new(&census, 3);
                let body = move |_: &Current<usize>, n: usize| {
                    assert_eq!(cargo.value(), 3);
                    Ok(n + borrowed)
                };
                match armed(|| Builder::new().build_scoped(s, me, body)) {
                    Ok(built) => assert_eq!(me.switch(&built, 1).unwrap(), 2),
                    Err(error) => assert_eq!((error, failed()), (BuildError::OutOfMemory, true)),
                }
                assert_eq!(census.alive(), 0);
            });
        });
    });
}

#[test]
fn a_stack_for_a_parent_to_which_a_value_goes() {
    each_fault_is_an_error("a stack for a parent", || {
        let census = Census::new();
        enter(|me: &Current<Wide>| {
            let child: Greenlet<Wide> = {
                let main = me.handle();
                Greenlet::new(me, move |me, message| me.switch(&main, message))
            };
            let parent = echo(me, 2 * SMALL);
            child.set_parent(&parent).unwrap();
            drop(me.switch(&child, Wide::new(&census, 6)).unwrap());

            let message = Wide::new(&census, 7);
            match armed(|| me.switch(&child, message)) {
                Ok(value) => assert_eq!(value.value(), 7),
                Err(thrown) => {
                    assert!(failed(), "{thrown}");
                    assert!(support::is_new(&parent));
                    assert_eq!(thrown.into_value::<Wide>().unwrap().value(), 7);
                }
            }
            assert!(child.is_dead());
        });
    });
}

/// A suspended one on each of so many stacks.
fn many_suspended(me: &Current<Wide>, census: &Census) -> Vec<Greenlet<Wide>> {
    let greenlets: Vec<_> = (0..300).map(|_| echo(me, SMALL)).collect();
    for greenlet in &greenlets {
        drop(me.switch(greenlet, Wide::new(census, 1)).unwrap());
    }
    greenlets
}

#[test]
fn a_switch_allocates_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me| {
            let greenlets = many_suspended(me, &census);
            let message = Wide::new(&census, 9);
            let message = armed(|| {
                let hop = |message, greenlet| me.switch(greenlet, message).unwrap();
                greenlets.iter().fold(message, hop)
            });
            assert_eq!(message.value(), 9);
        });
    });
}

#[test]
fn the_start_of_a_greenlet_on_a_stack_that_lies_idle_allocates_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me| {
            drop(many_suspended(me, &census));
            let new: Vec<_> = (0..300).map(|_| echo(me, SMALL)).collect();
            new.iter().for_each(|new| start(me, &census, new));
        });
    });
}

#[test]
fn a_throw_of_an_exit_or_of_what_is_a_thrown_already_allocates_nothing() {
    nothing_allocates(|| {
        enter(|me: &Current<bool>| {
            let main = me.handle();
            let catches: Greenlet<()> = Greenlet::new(me, move |me, ()| {
                loop {
                    let caught = me.switch(&main, false).is_err();
                    let _: Result<(), Thrown> = me.switch(&main, caught);
                }
            });
            assert!(!me.switch(&catches, ()).unwrap());
            for thrown in [GreenletExit.into(), Thrown::from(Number(3))] {
                assert!(armed(|| me.throw(&catches, thrown)).unwrap());
                assert!(!me.switch(&catches, ()).unwrap());
            }
        });
    });
}

#[test]
fn the_news_of_an_exit_allocates_nothing() {
    nothing_allocates(|| {
        enter(|me: &Current<()>| {
            let main = me.handle();
            let exits: Greenlet<()> = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
            me.switch(&exits, ()).unwrap();
            let new = Greenlet::new(me, |_, ()| Ok(()));
            for target in [&exits, &new] {
                support::assert_child_exit(armed(|| me.throw(target, GreenletExit)));
                assert!(target.is_dead());
            }
        });
    });
}

#[test]
fn kills_and_drops_allocate_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me| {
            let suspended = many_suspended(me, &census);
            armed(|| suspended.iter().for_each(|victim| me.kill(victim).unwrap()));
            armed(|| drop(suspended));

            // What the pool keeps of so many is given back meanwhile.
            for idle in [0, 10, 256] {
                greenlet::set_idle_stacks(idle);
                let suspended = many_suspended(me, &census);
                armed(|| drop(suspended));
            }
            let new: Vec<_> = (0..300).map(|_| echo(me, SMALL)).collect();
            let weak: Vec<_> = new.iter().map(|new| armed(|| new.downgrade())).collect();
            armed(|| assert!(weak.iter().all(|weak| weak.upgrade().is_some())));
            armed(|| drop(new));
            armed(|| drop(weak));
        });
    });
}

#[test]
fn an_end_by_a_value_or_an_error_allocates_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me: &Current<Wide>| {
            let value: Greenlet<Wide> = Greenlet::new(me, |_, message| Ok(message));
            let error: Greenlet<Thrown> = Greenlet::new(me, |_, thrown| Err(thrown));
            let message = Wide::new(&census, 4);
            let warm = me.switch(&Greenlet::new(me, |_, message: Wide| Ok(message)), message);
            let message = warm.unwrap();
            assert_eq!(armed(|| me.switch(&value, message)).unwrap().value(), 4);
            let thrown = Thrown::from(Number(5));
            assert_eq!(number(armed(|| me.switch(&error, thrown))), 5);
        });
    });
}

/// In a child, because handles that are forgotten keep their blocks.
#[test]
fn the_end_of_a_scope_with_forgotten_members_allocates_nothing() {
    let _one = one_at_a_time();
    let ending = in_child(|| {
        choose(NONE);
        let census = &Census::new();
        enter(|me: &Current<Wide>| {
            let main = &me.handle();
            me.scope(|s| {
                for n in 0..300 {
                    let member = s.greenlet(me, move |me, message: Wide| me.switch(main, message));
                    if n % 2 == 0 {
                        drop(me.switch(&member, Wide::new(census, n)).unwrap());
                    }
                    mem::forget(member);
                }
                // Until after the end of the scope.
                ARMED.set(true);
            });
            ARMED.set(false);
        });
        assert_eq!(SEEN.load(SeqCst), 0);
    });
    assert!(ending.is_success(), "{ending:?}");
}

#[test]
fn a_handler_for_overflows_is_installed_without_an_allocation() {
    let _one = one_at_a_time();
    let ending = in_child(|| {
        choose(NONE);
        armed(greenlet::report_stack_overflow).unwrap();
        assert_eq!(SEEN.load(SeqCst), 0);
    });
    assert!(ending.is_success(), "{ending:?}");
}

#[test]
fn a_new_greenlet() {
    each_fault_aborts("a new greenlet", || {
        enter(|me: &Current<()>| {
            drop(armed(|| Greenlet::new(me, |_, ()| Ok(()))));
            let large = [1u8; 4096];
            drop(armed(|| {
                Greenlet::new(me, move |_, ()| {
                    black_box(&large);
                    Ok(())
                })
            }));
        });
    });
}

#[test]
fn a_greenlet_of_a_scope() {
    each_fault_aborts("a greenlet of a scope", || {
        scope(|s, me: &Current<()>| drop(armed(|| s.greenlet(me, |_, ()| Ok(())))));
    });
}

#[test]
fn what_a_builder_keeps() {
    each_fault_aborts("a builder's name and stack", || {
        let stack: &'static mut [MaybeUninit<u8>] = Box::leak(Box::new_uninit_slice(SMALL));
        drop(armed(|| Builder::new().name("named").stack(stack)));
    });
}

#[test]
fn entering_on_a_thread() {
    each_fault_aborts("entering", || {
        // All places that there are in the list of threads for debuggers are taken.
        let (places, hold) = (Barrier::new(3), Barrier::new(3));
        thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    enter(|_: &Current<()>| {
                        places.wait();
                        hold.wait();
                    });
                });
            }
            places.wait();
            armed(|| enter(|_: &Current<()>| ()));
            hold.wait();
        });
    });
}

#[test]
fn what_is_thrown() {
    each_fault_aborts("what is thrown", || {
        enter(|me: &Current<()>| {
            let fails = Greenlet::new(me, |_, ()| armed(|| Err(Number(1).into())));
            assert_eq!(number(me.switch(&fails, ())), 1);
        });
    });
}

#[test]
fn a_refusal_that_is_thrown() {
    each_fault_aborts("a refusal that is thrown", || {
        enter(|me: &Current<()>| {
            let dead: Greenlet<u64> = Greenlet::new(me, |_, _| Ok(()));
            me.kill(&dead).unwrap();
            let refused = armed(|| me.switch(&dead, 1));
            assert_eq!(support::refusal(refused), SwitchError::Dead(()));
        });
    });
}

#[test]
fn a_value_that_nobody_takes() {
    each_fault_aborts("a value that nobody takes", || {
        let census = Census::new();
        enter(|me: &Current<Wide>| {
            // So that there is a stack that lies idle.
            drop(me.switch(
                &Greenlet::new(me, |_, first: Wide| Ok(first)),
                Wide::new(&census, 1),
            ));
            let child = Greenlet::new(me, |_, message: Wide| Ok(message));
            enter(|inner: &Current<()>| {
                let message = Wide::new(&census, 4);
                let stray = armed(|| inner.switch(&child, message)).unwrap_err();
                assert_eq!(stray.into_value::<Wide>().unwrap().value(), 4);
            });
        });
    });
}

#[cfg(panic = "unwind")]
#[test]
fn a_panic_that_travels() {
    each_fault_aborts("a panic that travels", || {
        enter(|me: &Current<()>| {
            let panics: Greenlet<()> =
                Greenlet::new(me, |_, ()| armed(|| resume_unwind(Box::new("on purpose"))));
            let caught = catch_unwind(AssertUnwindSafe(|| me.switch(&panics, ())));
            ARMED.set(false);
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"on purpose"));
        });
    });
}

local! {
    static FIRST: Cell<u8> = Cell::new(1);
    static SECOND: Cell<[u64; 9]> = Cell::new([2; 9]);
}

#[test]
fn greenlet_locals() {
    each_fault_aborts("greenlet-locals", || {
        enter(|_: &Current<()>| {
            assert_eq!(armed(|| FIRST.with(Cell::get)), 1);
            assert_eq!(armed(|| SECOND.with(Cell::get)), [2; 9]);
        });
    });
}

/// Of new greenlets, which have no backtrace: when the allocator fails while std captures one,
/// std waits for ever for a lock that it holds.
#[test]
fn a_snapshot() {
    each_fault_aborts("a snapshot", || {
        let new = enter(|me: &Current<()>| {
            let builder = Builder::new().name("named");
            builder.build(me, |_: &Current<()>, ()| Ok(())).unwrap()
        });
        let seen = armed(Snapshot::take);
        assert_eq!(seen.greenlets()[0].name.as_deref(), new.name());
    });
}

#[cfg(feature = "trace")]
#[test]
fn a_tracer() {
    each_fault_aborts("a tracer", || {
        let tracer = armed(|| greenlet::trace::Tracer::new(|_| ()));
        drop(greenlet::trace::set(Some(tracer)));
    });
}

#[cfg(feature = "trace")]
#[test]
fn switches_and_kills_that_are_traced_allocate_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        enter(|me| {
            let suspended = many_suspended(me, &census);
            greenlet::trace::set(Some(greenlet::trace::Tracer::new(|_| ())));
            let message = Wide::new(&census, 9);
            let message = armed(|| {
                let hop = |message, greenlet| me.switch(greenlet, message).unwrap();
                suspended.iter().fold(message, hop)
            });
            assert_eq!(message.value(), 9);
            armed(|| drop(suspended));
            greenlet::trace::set(None);
        });
    });
}

/// Whoever kills is a greenlet, and where none runs one is made.
#[test]
fn drops_outside_every_greenlet_allocate_nothing() {
    nothing_allocates(|| {
        let census = Census::new();
        let suspended = enter(|me| many_suspended(me, &census));
        armed(|| drop(suspended));
    });
}

/// When the crate's own thread-locals are gone, too.
#[test]
fn drops_at_the_end_of_a_thread_allocate_nothing() {
    struct Kept {
        suspended: Vec<Greenlet<Wide>>,
        _census: Census,
    }

    impl Drop for Kept {
        fn drop(&mut self) {
            armed(|| self.suspended.clear());
        }
    }

    thread_local!(static KEPT: Cell<Option<Kept>> = const { Cell::new(None) });

    nothing_allocates(|| {
        // Before the crate has thread-locals, so that they are gone when this is dropped.
        KEPT.set(None);
        let census = Census::new();
        let suspended = enter(|me| many_suspended(me, &census));
        KEPT.set(Some(Kept {
            suspended,
            _census: census,
        }));
    });
}

/// Starts greenlets until there is no memory for another one's stack; the message is back. When
/// one is given back, that one starts.
#[track_caller]
fn start_until_refused(me: &Current<Wide>) {
    let census = Census::new();
    let mut started = Vec::with_capacity(100_000);
    let (refused, error) = loop {
        let next = echo(me, SMALL);
        match me.try_switch(&next, Wide::new(&census, 8)) {
            Ok(reply) => assert_eq!(reply.unwrap().value(), 8),
            Err(SwitchError::Stack(message, error)) => {
                assert_eq!((message.value(), census.alive()), (8, 1));
                break (next, error);
            }
            Err(refusal) => panic!("{refusal}"),
        }
        started.push(next);
        assert!(started.len() < 100_000, "no limit");
    };
    assert!(matches!(error, StackError::Map { .. }), "{error:?}");
    assert!(support::is_new(&refused));
    // An allocator, or a thread, has room to go on.
    drop(Stack::map(1 << 20, page_size()).expect("room for something else"));

    started.pop();
    let reply = me.switch(&refused, Wide::new(&census, 9)).unwrap();
    assert_eq!(reply.value(), 9);
    drop((reply, refused, started));
    assert_eq!(census.alive(), 0);
}

#[test]
fn where_address_space_is_limited_a_stack_is_refused_before_all_of_it_is_gone() {
    if emulated() {
        return skip("the limit would be the emulator's own");
    }
    let _one = one_at_a_time();
    // What is left over depends on how the sizes of stacks divide what there is.
    for more in (64..=80).step_by(4) {
        let ending = in_child(|| {
            let most = (address_space() + (more << 20))
                .try_into()
                .expect("a limit");
            let limit = libc::rlimit {
                rlim_cur: most,
                rlim_max: most,
            };
            // SAFETY: a system call with a valid argument.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
            enter(start_until_refused);
        });
        assert!(ending.is_success(), "{more} MiB: {ending:?}");
    }
}

/// So many mappings a test may use up.
const MOST: usize = 1 << 17;

/// How many mappings the system lets a process have.
fn mappings_allowed() -> usize {
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").expect("Linux has it");
    limit.trim().parse().expect("a number")
}

/// Maps pages one by one, which cannot be merged, until the system refuses another.
fn use_up_mappings() -> impl FnOnce() {
    let mut pages = Vec::with_capacity(MOST);
    for access in [libc::PROT_READ, libc::PROT_NONE]
        .into_iter()
        .cycle()
        .take(MOST)
    {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory.
        match unsafe { libc::mmap(ptr::null_mut(), page_size(), access, flags, -1, 0) } {
            libc::MAP_FAILED => {
                return move || {
                    for page in pages {
                        // SAFETY: mapped above, and used by nobody.
                        unsafe { libc::munmap(page, page_size()) };
                    }
                };
            }
            page => pages.push(page),
        }
    }
    panic!("no limit");
}

#[test]
fn where_the_number_of_mappings_is_limited_a_stack_is_refused() {
    if emulated() {
        return skip("the limit would be the emulator's own");
    }
    if mappings_allowed() >= MOST {
        return skip("vm.max_map_count is higher than usual");
    }
    let _one = one_at_a_time();
    let ending = in_child(|| {
        let give_back = use_up_mappings();
        let census = Census::new();
        enter(|me| {
            let greenlet = echo(me, SMALL);
            match me.try_switch(&greenlet, Wide::new(&census, 8)) {
                Err(SwitchError::Stack(message, StackError::Map { .. })) => {
                    assert_eq!((message.value(), census.alive()), (8, 1));
                }
                other => panic!("{other:?}"),
            }
            give_back();
            let reply = me.switch(&greenlet, Wide::new(&census, 9)).unwrap();
            assert_eq!(reply.value(), 9);
        });
    });
    assert!(ending.is_success(), "{ending:?}");
}

#[test]
fn a_forked_child_goes_on_with_its_greenlets_and_its_parent_with_its_own() {
    let _one = one_at_a_time();
    // On a thread that has ended, and given up its place in the list of threads for debuggers,
    // before the next test counts.
    thread::spawn(fork_and_go_on).join().expect("both go on");
}

fn fork_and_go_on() {
    let census = Census::new();
    enter(|me| {
        let greenlets = many_suspended(me, &census);
        let go_on = || {
            for (n, greenlet) in (0..).zip(&greenlets) {
                let reply = me.switch(greenlet, Wide::new(&census, n)).unwrap();
                assert_eq!(reply.value(), n);
            }
            let another = echo(me, 3 * SMALL);
            let reply = me.switch(&another, Wide::new(&census, 5)).unwrap();
            assert_eq!(reply.value(), 5);
            assert_eq!(Snapshot::take().greenlets().len(), greenlets.len() + 2);
            me.kill(&another).unwrap();
        };
        let ending = in_child(|| {
            go_on();
            greenlets.iter().for_each(|victim| me.kill(victim).unwrap());
            thread::spawn(still_works).join().expect("another thread");
        });
        assert!(ending.is_success(), "{ending:?}");
        go_on();
    });
}
