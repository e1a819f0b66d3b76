//! Signals that arrive while a greenlet runs. The handler runs on the greenlet's stack or on the thread's
//! signal stack; its backtrace shows the greenlet and its parents in both cases.

#![cfg(unix)] // not on Windows: there are no signals

use std::{
    backtrace::Backtrace,
    cell::{Cell, RefCell},
    hint::black_box,
    mem, ptr,
    rc::Rc,
    sync::{Mutex, PoisonError},
};

use greenlet::{Current, Greenlet, Root, Snapshot, StackUsage, Status, Thrown, enter, raw::Stack};

use crate::machine::skip;
use crate::order::assert_in_order;

thread_local! {
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// What the handler has recorded.
struct Seen {
    /// The address of its frame.
    frame: usize,
    /// Its callers.
    backtrace: Backtrace,
    /// How much of its stack the interrupted greenlet uses.
    usage: Option<StackUsage>,
}

/// Returns an address on the caller's stack.
#[inline(always)]
fn here() -> usize {
    let local = Cell::new(0u8);
    black_box(&local).as_ptr().addr()
}

/// Calls functions that are not async-signal-safe. It may, because it interrupts nothing but `raise`.
#[inline(never)]
extern "C" fn handler_looks(_: libc::c_int) {
    let snapshot = Snapshot::take();
    let mut greenlets = snapshot.greenlets().iter();
    let interrupted = greenlets.find(|greenlet| greenlet.status == Status::Running);
    SEEN.set(Some(Seen {
        frame: here(),
        backtrace: Backtrace::force_capture(),
        usage: interrupted.expect("a greenlet runs").stack,
    }));
}

#[inline(never)]
fn child_is_interrupted() {
    // SAFETY: the handler returns.
    assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
    black_box("interrupted");
}

#[inline(never)]
fn parent_waits(me: &Current<()>, child: &Greenlet<()>) -> Result<(), Thrown> {
    black_box("parent");
    black_box(me.switch(child, ()))
}

/// The stack on which the handler ran.
#[derive(Debug, PartialEq)]
enum Place {
    GreenletsStack,
    SignalStack,
}

/// Raises the signal in a greenlet, on a thread with a signal stack, with these flags of `sigaction`. Returns on
/// which stack the handler ran, and how much of its stack the greenlet used.
fn handle(flags: libc::c_int) -> (Place, Option<StackUsage>) {
    // The action belongs to the process, and tests run at the same time.
    static ACTION: Mutex<()> = Mutex::new(());
    let _action = ACTION.lock().unwrap_or_else(PoisonError::into_inner);

    let memory = Stack::map(256 * 1024, 4096).expect("there is memory");
    // SAFETY: the memory stays until the thread has its former signal stack again, and no signal
    // is handled on it then; nobody else here has a use for SIGUSR1.
    let (before, action_before) = unsafe {
        let ours = libc::stack_t {
            ss_sp: memory.bottom().cast(),
            ss_flags: 0,
            ss_size: memory.size(),
        };
        let (mut before, mut action_before) = (mem::zeroed(), mem::zeroed());
        assert_eq!(libc::sigaltstack(&raw const ours, &raw mut before), 0);
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler_looks as *const () as usize;
        action.sa_flags = flags;
        let done = libc::sigaction(libc::SIGUSR1, &raw const action, &raw mut action_before);
        assert_eq!(done, 0);
        (before, action_before)
    };

    let in_child = Rc::new(Cell::new(0));
    enter(|me: &Root<()>| {
        let in_child = Rc::clone(&in_child);
        let child = Greenlet::new(me, move |_, ()| {
            in_child.set(here());
            child_is_interrupted();
            Ok(())
        });
        parent_waits(me, &child).expect("nothing is thrown");
    });

    // SAFETY: as above.
    unsafe {
        libc::sigaction(libc::SIGUSR1, &raw const action_before, ptr::null_mut());
        assert_eq!(libc::sigaltstack(&raw const before, ptr::null_mut()), 0);
    }
    let Seen {
        frame,
        backtrace,
        usage,
    } = SEEN.take().expect("the handler was called");
    if cfg!(target_env = "musl") {
        skip("musl does not tell unwinders what a signal has interrupted");
    } else {
        assert_in_order(
            &backtrace.to_string(),
            &[
                "signals::handler_looks",
                "signals::child_is_interrupted",
                "signals::parent_waits",
                // libtest, which called the test
                "test::",
            ],
        );
    }
    let on_signal_stack = (memory.bottom().addr()..memory.top().addr()).contains(&frame);
    let on_greenlets_stack = in_child.get().abs_diff(frame) < 64 * 1024;
    let place = match (on_greenlets_stack, on_signal_stack) {
        (true, false) => Place::GreenletsStack,
        (false, true) => Place::SignalStack,
        _ => panic!("the handler ran at {frame:#x}"),
    };
    (place, usage)
}

#[test]
fn a_handler_runs_on_the_greenlets_stack_unless_it_asks_for_the_signal_stack() {
    assert_eq!(handle(0).0, Place::GreenletsStack);
    assert_eq!(handle(libc::SA_ONSTACK).0, Place::SignalStack);
}

#[test]
fn s25_what_is_in_use_of_a_stack_is_not_said_while_the_thread_runs_on_another() {
    let usage = handle(0).1.expect("its own stack is the current one");
    assert!(
        usage.in_use <= usage.peak && usage.peak <= usage.size,
        "{usage:?}"
    );
    assert_eq!(handle(libc::SA_ONSTACK).1, None);
}
