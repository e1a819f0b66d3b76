//! A message for a stack overflow (rule s26). Opt-in, because it needs a signal handler, which
//! belongs to the whole process.

use core::{
    fmt::{self, Write as _},
    mem::MaybeUninit,
    ptr,
};
use std::{cell::OnceCell, io, sync::OnceLock};

use libc::{SA_ONSTACK, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGBUS, SIGSEGV, c_int, c_void, siginfo_t};

use crate::{raw::Stack, thread};

/// Bytes for the handler to run on, where the thread has given it no stack.
const HANDLER_STACK: usize = 64 * 1024;

/// What was installed before, of the signals in [`SIGNALS`].
static PREVIOUS: OnceLock<[libc::sigaction; 2]> = OnceLock::new();

/// A guard is a fault of one or the other, by the system.
const SIGNALS: [c_int; 2] = [SIGSEGV, SIGBUS];

thread_local! {
    /// The stack that this thread's handlers run on, if we had to give it one.
    static HANDLERS_STACK: OnceCell<HandlersStack> = const { OnceCell::new() };
}

struct HandlersStack {
    _memory: Stack,
}

/// From now on an overflow of a greenlet's stack names the greenlet, its stack and what to do
/// on standard error before it ends the process, as an overflow of a thread's stack does.
///
/// Without this an overflow ends the process as well, by a fault in the guard, but says
/// nothing. Any other fault goes on to the handler that was installed before, std's among
/// them. To be called once a process, after handlers of the program's own; and on each thread
/// that was not started by Rust and has no signal stack.
///
/// # Errors
/// Those of `sigaction` and `sigaltstack`, and of mapping a stack for the handler. And one of its
/// own, if the thread has no such stack and is ending, so that it cannot be given one any more.
///
/// ```
/// greenlet::report_stack_overflow()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn report_stack_overflow() -> io::Result<()> {
    give_handlers_a_stack()?;
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    let mut previous = [MaybeUninit::zeroed(), MaybeUninit::zeroed()];
    for (signal, previous) in SIGNALS.into_iter().zip(&mut previous) {
        // SAFETY: asks only.
        check(unsafe { libc::sigaction(signal, ptr::null(), previous.as_mut_ptr()) })?;
    }
    // SAFETY: written by sigaction.
    let previous = previous.map(|action| unsafe { action.assume_init() });
    // Before the handler can be called; one thread wins.
    if PREVIOUS.set(previous).is_err() {
        return Ok(());
    }
    for signal in SIGNALS {
        // SAFETY: all zeros is a valid sigaction.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        // SAFETY: the handler keeps to what a handler may do.
        check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    }
    Ok(())
}

/// The handler cannot run on the stack that has overflowed.
fn give_handlers_a_stack() -> io::Result<()> {
    let mut there = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: asks only.
    check(unsafe { libc::sigaltstack(ptr::null(), there.as_mut_ptr()) })?;
    // SAFETY: written by sigaltstack.
    if unsafe { there.assume_init() }.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(());
    }
    let given = HANDLERS_STACK.try_with(|kept| {
        let memory = Stack::map(HANDLER_STACK, 4096).map_err(io::Error::other)?;
        let stack = libc::stack_t {
            ss_sp: memory.bottom().cast(),
            ss_flags: 0,
            ss_size: memory.size(),
        };
        // SAFETY: the memory stays until the thread ends, and is taken away before it is unmapped.
        check(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) })?;
        // None was there, or the thread would have had a signal stack.
        let _ = kept.set(HandlersStack { _memory: memory });
        Ok(())
    });
    given.unwrap_or_else(|_| {
        Err(io::Error::other(
            "the thread is ending: it cannot keep a signal stack any more",
        ))
    })
}

impl Drop for HandlersStack {
    fn drop(&mut self) {
        let none = libc::stack_t {
            ss_sp: ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: 0,
        };
        // SAFETY: handlers go back to the thread's own stack.
        unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) };
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Allocates nothing, takes no lock, and does not return from an overflow.
extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes what SA_SIGINFO promises.
    let address = unsafe { (*info).si_addr() }.cast::<u8>();
    let mut message = Message::new();
    // Which of them runs is not asked: an overflow may happen in the midst of a switch.
    thread::for_each_greenlet(|block| {
        let Some(limits) = block.stack_limits() else {
            return;
        };
        if limits.is_guard(address) {
            // What does not fit is not said.
            let _ = write!(
                message,
                "\ngreenlet {:?} (#{}) has overflowed its stack of {} bytes at {address:p}\n\
                 give it more with greenlet::Builder::stack_size\n\
                 fatal runtime error: stack overflow, aborting\n",
                block.settings().name.as_deref().unwrap_or("<unnamed>"),
                block.id(),
                limits.size(),
            );
        }
    });
    if message.length > 0 {
        // SAFETY: async-signal-safe (POSIX 2.4.3), and the bytes are there.
        unsafe {
            libc::write(2, message.bytes.as_ptr().cast(), message.length);
            libc::abort();
        }
    }
    pass_on(signal, info, context);
}

/// Not ours: does what would have been done without us.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get().expect("set before this was installed");
    let previous = &previous[usize::from(signal == SIGNALS[1])];
    let handler = previous.sa_sigaction;
    if handler == SIG_DFL || handler == SIG_IGN {
        // The instruction faults again on return, and the default ends the process.
        // SAFETY: all zeros but for the default is a valid sigaction.
        unsafe {
            let mut default: libc::sigaction = MaybeUninit::zeroed().assume_init();
            default.sa_sigaction = SIG_DFL;
            libc::sigaction(signal, &raw const default, ptr::null_mut());
        }
    } else if previous.sa_flags & SA_SIGINFO != 0 {
        // SAFETY: a handler that was installed with SA_SIGINFO has this signature.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
            unsafe { core::mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: a handler that was installed without has this one.
        let handler: extern "C" fn(c_int) = unsafe { core::mem::transmute(handler) };
        handler(signal);
    }
}

/// Text in a buffer of its own.
struct Message {
    bytes: [u8; 512],
    length: usize,
}

impl Message {
    fn new() -> Self {
        Self {
            bytes: [0; 512],
            length: 0,
        }
    }
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
