//! Faults as POSIX tells of them: by a signal, whose handler runs on a stack of its own.

use core::{
    mem::{self, MaybeUninit},
    ptr,
};
use std::{
    cell::{Cell, OnceCell},
    io,
    sync::OnceLock,
};

use libc::{SA_ONSTACK, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGBUS, SIGSEGV, c_int, c_void, siginfo_t};

use crate::raw::Stack;

/// Bytes for the handlers of a thread to run on, besides the frame that the system makes for a
/// signal, where what the thread has is too small.
const HANDLERS_STACK_SIZE: usize = 64 * 1024;

/// So much of it, besides that frame, is enough for the handler here: a build without
/// optimization uses about 3 KiB. std leaves no more than its guess of what it needs itself,
/// which is nothing where the frame has the state of AMX.
const ENOUGH: usize = 16 * 1024;

/// What was installed before, of the signals in [`SIGNALS`].
static PREVIOUS: OnceLock<[libc::sigaction; 2]> = OnceLock::new();

/// Depending on the system, a fault in a guard is one or the other.
const SIGNALS: [c_int; 2] = [SIGSEGV, SIGBUS];

thread_local! {
    /// The stack for signal handlers that the crate has given this thread, if any.
    static HANDLERS_STACK: OnceCell<HandlersStack> = const { OnceCell::new() };
    /// `true` if the thread has been given a large enough stack for signal handlers, as far as possible.
    static IS_READY: Cell<bool> = const { Cell::new(false) };
}

struct HandlersStack(Stack);

pub(super) fn install() -> io::Result<()> {
    give_handlers_a_stack()?;
    IS_READY.set(true);
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
    for (signal, previous) in SIGNALS.into_iter().zip(&previous) {
        // SAFETY: all zeros is a valid sigaction.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        action.sa_mask = previous.sa_mask;
        // SAFETY: the handler keeps to what a handler may do: it writes, aborts, calls the handler
        // before it, and reads what is whole wherever code of this thread can fault, which the
        // registry of greenlets (`tree/registry.rs`) and their stacks (`stack/memory.rs`) see to.
        check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    }
    Ok(())
}

/// To be called by a thread that is to run greenlets: its handlers get their stack now, if
/// overflows are reported.
#[inline]
pub(crate) fn prepare_thread() {
    if PREVIOUS.get().is_some() && !IS_READY.get() {
        IS_READY.set(true);
        // If it fails, an overflow ends the process all the same, and says nothing.
        let _ = give_handlers_a_stack();
    }
}

/// Bytes of the largest frame that the system makes for a signal.
fn signal_frame() -> usize {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        /// Of include/uapi/linux/auxvec.h; x86 since Linux 5.14, and others.
        const AT_MINSIGSTKSZ: libc::c_ulong = 51;
        // SAFETY: no precondition; 0 if the system does not say.
        let told = unsafe { libc::getauxval(AT_MINSIGSTKSZ) } as usize;
        told.max(libc::MINSIGSTKSZ)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        libc::MINSIGSTKSZ
    }
}

/// Gives the thread a stack for signal handlers, unless it has one that is large enough. The handler cannot
/// run on the stack that has overflowed.
fn give_handlers_a_stack() -> io::Result<()> {
    let there = handlers_stack()?;
    let is_disabled = there.ss_flags & libc::SS_DISABLE != 0;
    if !is_disabled && there.ss_size >= signal_frame() + ENOUGH {
        return Ok(());
    }
    let given = HANDLERS_STACK.try_with(|kept| {
        let HandlersStack(memory) = match kept.get() {
            Some(kept) => kept,
            None => {
                let size = signal_frame() + HANDLERS_STACK_SIZE;
                let memory = Stack::map(size, 4096).map_err(io::Error::other)?;
                kept.get_or_init(|| HandlersStack(memory))
            }
        };
        let stack = libc::stack_t {
            ss_sp: memory.bottom().cast(),
            ss_flags: 0,
            ss_size: memory.size(),
        };
        // SAFETY: the memory stays until the thread ends, and is taken away before it is unmapped.
        check(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) })
    });
    match given {
        Ok(Err(error)) if is_disabled => Err(error),
        Err(_) if is_disabled => Err(io::Error::other(
            "the thread is ending: it cannot keep a signal stack any more",
        )),
        // A small stack for handlers is better than none.
        _ => Ok(()),
    }
}

/// Returns the signal stack of this thread.
fn handlers_stack() -> io::Result<libc::stack_t> {
    let mut there = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: asks only.
    check(unsafe { libc::sigaltstack(ptr::null(), there.as_mut_ptr()) })?;
    // SAFETY: written by sigaltstack.
    Ok(unsafe { there.assume_init() })
}

impl Drop for HandlersStack {
    fn drop(&mut self) {
        // The program may have given the thread another one since.
        if handlers_stack().is_ok_and(|there| there.ss_sp == self.0.bottom().cast()) {
            let none = libc::stack_t {
                ss_sp: ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: 0,
            };
            // SAFETY: handlers go back to the thread's own stack.
            unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) };
        }
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
    let info_seen = unsafe { &*info };
    // Codes of faults are positive; a signal that was sent has no address.
    let was_sent = info_seen.si_code <= 0;
    if !was_sent {
        // SAFETY: of a fault, the address is there.
        let address = unsafe { info_seen.si_addr() }.cast::<u8>().cast_const();
        if super::is_reported(address) {
            // SAFETY: async-signal-safe (POSIX 2.4.3).
            unsafe { libc::abort() };
        }
    }
    pass_on(signal, was_sent, info, context);
}

/// Not ours: does what would have been done without us.
fn pass_on(signal: c_int, was_sent: bool, info: *mut siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get().expect("set before this was installed");
    let previous = &previous[usize::from(signal == SIGNALS[1])];
    let handler = previous.sa_sigaction;
    if handler == SIG_IGN && was_sent {
        return;
    }
    let is_default = handler == SIG_DFL || handler == SIG_IGN;
    if is_default || previous.sa_flags & libc::SA_RESETHAND != 0 {
        // SAFETY: all zeros but for the default is a valid sigaction.
        unsafe {
            let mut default: libc::sigaction = MaybeUninit::zeroed().assume_init();
            default.sa_sigaction = SIG_DFL;
            libc::sigaction(signal, &raw const default, ptr::null_mut());
        }
    }
    if !is_default && previous.sa_flags & SA_SIGINFO != 0 {
        // SAFETY: a handler that was installed with SA_SIGINFO has this signature.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
            unsafe { mem::transmute(handler) };
        handler(signal, info, context);
    } else if !is_default {
        // SAFETY: a handler that was installed without has this one.
        let handler: extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
        handler(signal);
    }
    // Where the default is back, by std's handler for one, a fault happens again on return, and
    // ends the process. What was sent would be lost: it is sent again, and arrives on return.
    if was_sent && previous.sa_flags & libc::SA_RESETHAND == 0 && has_default_action(signal) {
        // SAFETY: async-signal-safe.
        unsafe { libc::raise(signal) };
    }
}

fn has_default_action(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; zeros are a valid sigaction, of the default, should it fail.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == SIG_DFL
    }
}

/// Writes some of `bytes` to standard error and returns how many; 0 if it cannot be written to.
pub(super) fn write(bytes: &[u8]) -> usize {
    loop {
        // SAFETY: async-signal-safe, and the bytes are there.
        let written = unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) };
        if let Ok(written) = usize::try_from(written) {
            return written;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return 0;
        }
    }
}
