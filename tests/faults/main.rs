//! Out of memory: each allocation of each operation of the crate fails once.
//!
//! * `errors.rs`: functions that can return an error return one, the message comes back, and nothing is lost
//!   or leaked
//! * `aborts.rs`: other functions abort through [`handle_alloc_error`](std::alloc::handle_alloc_error)
//! * `nothing.rs`: operations that cannot fail, such as switches, kills and drops, do not allocate

#![cfg(unix)] // not on Windows: it makes each allocation fail in a forked child

#[path = "../machine/mod.rs"]
mod machine;
#[path = "../process/mod.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;

mod aborts;
mod errors;
mod nothing;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{self, Write},
    ptr,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use greenlet::{Current, Greenlet, StackError, SwitchError};
use process::in_child;
use support::{
    census::{Census, Payload, Wide},
    echoes::still_works,
};

/// The system's allocator, which refuses one allocation on request.
struct Failing;

/// The bytes that threads with [`TRACKED`] have allocated and not freed.
static LIVE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static TRACKED: Cell<bool> = const { Cell::new(false) };
    /// `true` while allocations are counted and may fail.
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

/// The number of allocations while armed.
static SEEN: AtomicUsize = AtomicUsize::new(0);
/// The number of the allocation that fails.
static FAULT: AtomicUsize = AtomicUsize::new(NONE);
const NONE: usize = usize::MAX;
/// `true` when it has failed.
static FAILED: AtomicBool = AtomicBool::new(false);
/// How often the fault was armed.
static TRIED: AtomicUsize = AtomicUsize::new(0);

/// The head of each block: how much of the block is counted in [`LIVE`]. It keeps the alignment that
/// allocators usually give beyond the request, which the unwinder's exceptions need.
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
                // Only once, because the report may allocate.
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

/// Runs the part of a test in which allocations may fail.
fn armed<R>(act: impl FnOnce() -> R) -> R {
    TRIED.fetch_add(1, SeqCst);
    ARMED.set(!failed());
    let result = act();
    ARMED.set(false);
    result
}

/// Returns `true` if the allocation has failed.
fn failed() -> bool {
    FAILED.load(SeqCst)
}

/// Taken by each test, because memory and allocations are counted for the process.
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

/// Runs `scenario` on a new thread, on which the crate was not used before. The allocation with this number
/// fails. Returns the number of allocations while armed.
#[track_caller]
fn run(scenario: fn(), fault: usize) -> usize {
    // Allocates what lives as long as the process, before counting begins.
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

fn report(what: &str, faults: usize) {
    // Not captured by libtest.
    let _ = writeln!(io::stderr(), "{what}: {faults} faults injected");
}

/// Runs `scenario` with each of its armed allocations failing once. `scenario` checks that an error is
/// returned.
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

/// Checks that `scenario` does not allocate while armed.
#[track_caller]
fn nothing_allocates(scenario: fn()) {
    let _one = one_at_a_time();
    assert_eq!(run(scenario, NONE), 0, "allocations");
}

/// Runs `scenario` with each of its armed allocations failing once. Each must end the process through
/// `handle_alloc_error`.
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
    // 101 is the status after a panic.
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

/// Switches to a new greenlet. If there is no memory, the error must say so, the message must come back, and a
/// second attempt must work.
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
