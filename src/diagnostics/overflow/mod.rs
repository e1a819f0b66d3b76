//! The message of a stack overflow (rule s26). Opt-in, because it needs a fault handler, which is installed
//! for the whole process. One file has the handler of POSIX, another that of Windows.

use core::{
    fmt::{self, Write as _},
    mem, ptr,
    sync::atomic::{AtomicPtr, Ordering},
};
use std::io;

use crate::tree::thread;

#[cfg_attr(not(windows), path = "signals.rs")]
#[cfg_attr(windows, path = "exceptions.rs")]
mod system;

/// The most characters of a greenlet's name that are printed.
const NAME_SHOWN: usize = 200;

/// Installs a handler that reports overflows of greenlets' stacks. Before the process ends, it prints the
/// greenlet, the size of its stack and what to do on standard error.
///
/// Without this, an overflow also ends the process, by a fault in the guard, but prints nothing. The handler passes
/// any other fault, and signals that were sent, to the handler that was installed before, such as std's.
///
/// Call it once in a process, after the program has installed its own handlers. The handler runs on the thread's
/// signal stack. If that is missing or too small, the calling thread gets another one, and so does each thread that
/// enters afterwards. (std's is too small where AMX is in use.) A thread that is already inside
/// [`enter`](crate::enter), or that only uses [`raw`](crate::raw), must call this itself. For stacks of `raw`,
/// [`set_overflow_hook`](crate::raw::set_overflow_hook) names the owner.
///
/// On Windows this adds a vectored exception handler before the existing ones. It runs on the stack that has
/// overflowed, which keeps some pages for it.
///
/// # Errors
/// Returns an error of `sigaction`, `sigaltstack` or of mapping a stack for the handler; or an error of its own if
/// the thread has no signal stack and is ending, so that it cannot get one. On Windows, returns an error of
/// `AddVectoredExceptionHandler`.
///
/// ```
/// greenlet::report_stack_overflow()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn report_stack_overflow() -> io::Result<()> {
    system::install()
}

pub(crate) use system::prepare_thread;

/// A function that names the stack of an overflow.
///
/// It receives the address of the fault. If that lies in the guard of a stack that it knows
/// ([`StackLimits::is_guard`](crate::raw::StackLimits::is_guard)), it writes lines to the report and returns `true`.
pub type OverflowHook = fn(address: *const u8, report: &mut dyn fmt::Write) -> bool;

static HOOK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Sets the function that [`report_stack_overflow`] asks about faults outside the stacks of
/// greenlets, for runtimes on [`raw`](crate::raw). Returns the previous function, which the new one may call. If the
/// hook returns `true`, the process prints std's message for a stack overflow and aborts.
///
/// ```
/// use std::{cell::Cell, fmt};
/// use greenlet::raw::{StackLimits, set_overflow_hook};
///
/// thread_local!(static RUNNING: Cell<Option<StackLimits>> = const { Cell::new(None) });
///
/// fn name(address: *const u8, report: &mut dyn fmt::Write) -> bool {
///     let Some(limits) = RUNNING.get().filter(|limits| limits.is_guard(address)) else {
///         return false;
///     };
///     let _ = writeln!(report, "a task has overflowed its stack of {} bytes", limits.size());
///     true
/// }
///
/// // SAFETY: it reads a thread-local without a destructor, and formats a number.
/// unsafe { set_overflow_hook(Some(name)) };
/// greenlet::report_stack_overflow()?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Safety
/// The hook runs in a signal handler, on the thread that has faulted, and on its signal stack, of
/// which it may use 8 KiB; on Windows in a vectored exception handler, on what is left of the stack that
/// has overflowed, of which it may use as much. It neither unwinds, nor allocates, nor takes a lock, nor calls what is
/// not async-signal-safe; and what it reads is whole wherever code of the thread can fault.
pub unsafe fn set_overflow_hook(hook: Option<OverflowHook>) -> Option<OverflowHook> {
    let new = hook.map_or(ptr::null_mut(), |hook| hook as *mut ());
    let before = HOOK.swap(new, Ordering::AcqRel);
    // SAFETY: only such functions, or null, are stored.
    unsafe { mem::transmute::<*mut (), Option<OverflowHook>>(before) }
}

/// Says so if the fault at `address` is an overflow that is known, and returns whether it is; the
/// process is to be aborted then. Allocates nothing and takes no lock.
fn is_reported(address: *const u8) -> bool {
    let mut report = Report::new();
    let is_overflow = say_whose_stack(address, &mut report);
    if is_overflow {
        let _ = report.write_str("fatal runtime error: stack overflow, aborting\n");
        report.flush();
    }
    is_overflow
}

/// Reports the stack whose guard contains the address. Returns `true` if the crate or the hook knows that stack.
fn say_whose_stack(address: *const u8, report: &mut Report) -> bool {
    let mut is_known = false;
    // Searches all greenlets, not the running one: a stack may overflow in the middle of a switch.
    thread::for_each_greenlet(|block| {
        let Some(limits) = block
            .stack_limits()
            .filter(|limits| limits.is_guard(address))
        else {
            return;
        };
        is_known = true;
        let name = block.settings.name.as_deref().unwrap_or("<unnamed>");
        let (name, rest) = match name.char_indices().nth(NAME_SHOWN) {
            Some((end, _)) => (&name[..end], "..."),
            None => (name, ""),
        };
        let _ = write!(
            report,
            "\ngreenlet {name:?}{rest} (#{}) has overflowed its stack of {} bytes at {address:p}\n\
             give it more with greenlet::Builder::stack_size\n",
            block.id,
            limits.size(),
        );
    });
    let hook = HOOK.load(Ordering::Acquire);
    // SAFETY: only such functions, or null, are stored.
    let hook = unsafe { mem::transmute::<*mut (), Option<OverflowHook>>(hook) };
    is_known || hook.is_some_and(|hook| hook(address, report))
}

/// Text for standard error, which is written without std's lock.
struct Report {
    bytes: [u8; 512],
    length: usize,
}

impl Report {
    fn new() -> Self {
        Self {
            bytes: [0; 512],
            length: 0,
        }
    }

    fn flush(&mut self) {
        let mut rest = &self.bytes[..self.length];
        while !rest.is_empty() {
            match system::write(rest) {
                // Standard error is closed.
                0 => break,
                written => rest = &rest[written..],
            }
        }
        self.length = 0;
    }
}

impl fmt::Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.as_bytes().chunks(self.bytes.len()) {
            if self.bytes.len() - self.length < piece.len() {
                self.flush();
            }
            let end = self.length + piece.len();
            self.bytes[self.length..end].copy_from_slice(piece);
            self.length = end;
        }
        Ok(())
    }
}
