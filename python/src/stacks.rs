//! Stacks, and above each the room in which the shim lays the first chunk of the data stack.
//!
//! Under the GIL, for all threads: a greenlet may be freed by another thread than its own.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
};

use std::env;

use greenlet::{StackError, raw};
use pyo3_ffi::{PyErr_Format, PyExc_MemoryError, PyExc_ValueError};

/// Bytes of stack unless `stack_size` or the environment says otherwise.
const DEFAULT_SIZE: usize = 1 << 20;

/// Less would not do for CPython to start a function and raise an exception in it.
pub(crate) const MIN_SIZE: usize = 64 << 10;

/// More is a mistake.
pub(crate) const MAX_SIZE: usize = 64 << 30;

/// Says how large stacks are when the module is imported, bytes.
const VARIABLE: &str = "GREENLET_STACK_SIZE";

/// Bytes of guard below a stack.
const GUARD: usize = 4096;

/// Bytes of room above a stack: what a first chunk has in CPython, and a little.
const ROOM: usize = (16 << 10) + 1536;

/// So many idle stacks are kept.
const IDLE: usize = 256;

static SIZE: AtomicUsize = AtomicUsize::new(DEFAULT_SIZE);

/// A stack that is in use.
pub(crate) struct Stack(raw::Stack);

struct Idle(UnsafeCell<Vec<raw::Stack>>);
// SAFETY: used by whoever holds the GIL, and by no code that gives it up.
unsafe impl Sync for Idle {}
static POOL: Idle = Idle(UnsafeCell::new(Vec::new()));

/// How large the stacks of greenlets are that start from now on, bytes.
pub(crate) fn size() -> usize {
    SIZE.load(Ordering::Relaxed)
}

/// Sets it, and returns what it was. `None`: no stack is of this size.
pub(crate) fn set_size(bytes: isize) -> Option<usize> {
    let bytes = usize::try_from(bytes).ok()?;
    (MIN_SIZE..=MAX_SIZE)
        .contains(&bytes)
        .then(|| SIZE.swap(bytes, Ordering::Relaxed))
}

/// Takes the size from the environment. `None`: with an exception.
pub(crate) unsafe fn configure() -> Option<()> {
    let Some(given) = env::var_os(VARIABLE) else {
        return Some(());
    };
    let set = given
        .to_str()
        .and_then(|text| text.trim().parse().ok())
        .and_then(set_size);
    if set.is_none() {
        // SAFETY: the GIL is held.
        unsafe {
            PyErr_Format(
                PyExc_ValueError,
                c"GREENLET_STACK_SIZE is not a number of bytes from %zd to %zd".as_ptr(),
                MIN_SIZE,
                MAX_SIZE,
            );
        }
        return None;
    }
    Some(())
}

impl Stack {
    /// `None`: with an exception.
    ///
    /// # Safety
    /// The GIL is held.
    pub(crate) unsafe fn take() -> Option<Self> {
        let size = size();
        // SAFETY: the GIL is held.
        let pool = unsafe { &mut *POOL.0.get() };
        while let Some(stack) = pool.pop() {
            if stack.size() == size + ROOM.next_multiple_of(4096) {
                return Some(Self(stack));
            }
        }
        match raw::Stack::map(size + ROOM, GUARD) {
            Ok(stack) => Some(Self(stack)),
            Err(error) => {
                // SAFETY: the GIL is held.
                unsafe { refuse(size, &error) };
                None
            }
        }
    }

    /// The lowest usable address, the one just above the stack, and the end of the room above it.
    pub(crate) fn limits(&self) -> [*mut u8; 3] {
        let end = self.0.top();
        [self.0.bottom(), end.wrapping_sub(ROOM), end]
    }

    /// # Safety
    /// The GIL is held, and nothing runs on it any more.
    pub(crate) unsafe fn give_back(self) {
        // SAFETY: the GIL is held.
        let pool = unsafe { &mut *POOL.0.get() };
        if pool.len() < IDLE {
            pool.push(self.0);
        }
    }
}

unsafe fn refuse(size: usize, error: &StackError) {
    let _ = error;
    unsafe {
        PyErr_Format(
            PyExc_MemoryError,
            c"no stack of %zu bytes for a greenlet".as_ptr(),
            size,
        );
    }
}
