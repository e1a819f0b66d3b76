//! The switch under Miri, which runs no assembly.
//!
//! Each started greenlet has a thread, and one of them runs at a time: a switch wakes the target's
//! thread and parks the caller's. wasmtime's fibers do the same. The values of the crate's thread-locals
//! follow: see `host/carried.rs`.
//!
//! Bodies do not run on the greenlet's stack memory. But each switch writes to it, so that Miri reports
//! a stack that is given back too early or used twice.

use core::{
    cell::{Cell, UnsafeCell},
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle, Thread},
};

use super::{Context, Departure, Message, Registers, Start};
use crate::host::carried;

/// As on x86_64.
pub(crate) const STACK_ALIGN: usize = 16;
pub(crate) const STACK_PROBES: bool = true;

/// Where the thread of a suspended context waits.
#[derive(Debug)]
pub(super) struct MoreRegisters {
    /// Null if it has not started.
    waiting: Cell<*const Waiting>,
}

impl MoreRegisters {
    pub(super) const fn new() -> Self {
        Self {
            waiting: Cell::new(ptr::null()),
        }
    }

    pub(super) fn prepare(&self) {
        self.waiting.set(ptr::null());
    }
}

/// A local variable of a `switch` that waits.
struct Waiting {
    thread: Thread,
    resumed: AtomicBool,
    message: UnsafeCell<MaybeUninit<Message>>,
    /// The thread of the greenlet that has finished by resuming this one.
    finished: Cell<Option<JoinHandle<()>>>,
}

impl Waiting {
    fn new() -> Self {
        Self {
            thread: thread::current(),
            resumed: AtomicBool::new(false),
            message: UnsafeCell::new(MaybeUninit::uninit()),
            finished: Cell::new(None),
        }
    }

    /// Waits until it is resumed, and returns what was sent.
    fn wait(&self) -> Message {
        while !self.resumed.load(Ordering::Acquire) {
            thread::park();
        }
        join(self.finished.take());
        // SAFETY: written before `resumed`, and by nobody after it.
        unsafe { (*self.message.get()).assume_init() }
    }
}

std::thread_local! {
    /// The bottom frame on the stack of the greenlet whose thread this is; null on any other thread.
    static STACK: Cell<*mut Start> = const { Cell::new(ptr::null_mut()) };
}

/// Uses the stack as a greenlet that runs on it would.
fn write_to_stack() {
    let stack = STACK.get();
    if !stack.is_null() {
        // SAFETY: the stack is this greenlet's until it has finished, and its first frame is read
        // no more.
        unsafe { stack.cast::<usize>().write_volatile(0) };
    }
}

fn join(finished: Option<JoinHandle<()>>) {
    if let Some(thread) = finished {
        thread.join().expect("`start` does not unwind");
    }
}

/// Suspends the caller, whose context is `me`, and resumes `to` with `message`. Returns what the caller
/// is resumed with.
///
/// # Safety
/// `me` is the context that runs on this thread. `to` is suspended, or prepared, on this thread,
/// and is resumed only this once.
pub(crate) unsafe fn switch(me: *const Context, to: *const Context, message: Message) -> Message {
    let waiting = Waiting::new();
    write_to_stack();
    let message = carried::while_suspended(|| {
        // SAFETY: `me` runs, and `to` is suspended or prepared and is resumed only this once (contract).
        unsafe {
            (*registers(me)).more.waiting.set(&raw const waiting);
            resume(to, message, None);
        }
        waiting.wait()
    });
    write_to_stack();
    message
}

/// Returns the registers of a context, which come first in it.
fn registers(context: *const Context) -> *const Registers {
    context.cast()
}

/// # Safety
/// `to` is suspended, or prepared, on this thread, and is resumed only this once.
unsafe fn resume(to: *const Context, message: Message, finished: Option<JoinHandle<()>>) {
    // SAFETY: `to` is suspended or prepared (contract). `waiting` may be gone as soon as `resumed` is set.
    unsafe {
        let registers = registers(to);
        let waiting = (*registers).more.waiting.get();
        if waiting.is_null() {
            let stack = (*registers).stack_pointer.get();
            let argument = (*registers).argument.get();
            return begin(
                ptr::with_exposed_provenance_mut(stack),
                ptr::with_exposed_provenance_mut(argument),
                message,
                finished,
            );
        }
        let thread = (*waiting).thread.clone();
        (*waiting).message.get().write(MaybeUninit::new(message));
        (*waiting).finished.set(finished);
        (*waiting).resumed.store(true, Ordering::Release);
        thread.unpark();
    }
}

/// What a new thread is given. One greenlet of them runs at a time.
struct Given<T>(T);

// SAFETY: the threads of one thread's greenlets run one at a time, each after it was resumed.
unsafe impl<T> Send for Given<T> {}

impl<T> Given<T> {
    fn take(self) -> T {
        self.0
    }
}

/// Begins what `prepare` has prepared, on a thread of its own.
///
/// # Safety
/// `stack` and `argument` are what the registers say.
unsafe fn begin(
    stack: *mut Start,
    argument: *mut (),
    message: Message,
    finished: Option<JoinHandle<()>>,
) {
    // SAFETY: `prepare` has written it there.
    let start = unsafe { stack.read() };
    let handle = Arc::new(Mutex::new(None));
    let own_handle = Arc::clone(&handle);
    let given = Given((stack, start, argument, message, finished, carried::home()));
    let locked = || handle.lock().unwrap_or_else(PoisonError::into_inner);
    let mut slot = locked();
    *slot = Some(thread::spawn(move || {
        let (stack, start, argument, message, finished, home) = given.take();
        join(finished);
        carried::follow(home);
        STACK.set(stack);
        write_to_stack();
        let mut departure = MaybeUninit::<Departure>::uninit();
        // SAFETY: what `prepare` was given, called once; it fills in the departure.
        let Departure { to, message } = unsafe {
            start(argument, message.word, message.kind, departure.as_mut_ptr());
            departure.assume_init()
        };
        let handle = own_handle.lock().ok().and_then(|mut slot| slot.take());
        // SAFETY: the departure is of one that is suspended (contract of `Start`).
        unsafe { resume(to.assume_init(), message.assume_init(), handle) };
    }));
}
