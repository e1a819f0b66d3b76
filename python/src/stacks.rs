//! Stacks, and above each the room in which the shim lays the first chunk of the data stack.
//!
//! One pool under the GIL for all threads, as a greenlet may be freed by another thread than its
//! own.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
};
use std::env;

use greenlet::raw::{Pool, PooledStack, StackLimits};
use pyo3_ffi::{PyErr_Format, PyExc_MemoryError, PyExc_ValueError};

/// Bytes of stack unless `stack_size` or the environment says otherwise.
const DEFAULT_SIZE: usize = 1 << 20;

/// With less, CPython could not call a function and raise an exception in it.
pub(crate) const MIN_SIZE: usize = 64 << 10;

/// More is taken to be a mistake.
pub(crate) const MAX_SIZE: usize = 64 << 30;

/// Says how large stacks are when the module is imported, bytes.
const VARIABLE: &str = "GREENLET_STACK_SIZE";

/// Bytes of guard below a stack. It takes address space only, and is this large because C code need
/// not touch every page of a large frame.
const GUARD: usize = 64 << 10;

/// Bytes of room above a stack: a chunk as large as CPython's own, of which the first
/// [`SHARED`] lie in the page that the stack begins in. So a greenlet that has called little
/// touches that page only.
const ROOM: usize = (16 << 10) + SHARED;
const SHARED: usize = 1 << 10;

static SIZE: AtomicUsize = AtomicUsize::new(DEFAULT_SIZE);

struct Shared(UnsafeCell<Pool>);

// SAFETY: only `take` and `give_back` use it, with the GIL, and neither gives that up.
unsafe impl Sync for Shared {}

static POOL: Shared = Shared(UnsafeCell::new(Pool::with_room_above(ROOM)));

/// A stack that is in use. It is leaked unless it is given back.
pub(crate) struct Stack(PooledStack);

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
                c"GREENLET_STACK_SIZE must be a number of bytes from %zd to %zd".as_ptr(),
                MIN_SIZE,
                MAX_SIZE,
            );
        }
    }
    set.map(|_| ())
}

impl Stack {
    /// `None`: with an exception.
    pub(crate) unsafe fn take() -> Option<Self> {
        let size = size();
        // SAFETY: the GIL is held.
        match unsafe { (*POOL.0.get()).take(size, GUARD) } {
            Ok(stack) => Some(Self(stack)),
            Err(_) => {
                // SAFETY: the GIL is held.
                unsafe {
                    PyErr_Format(
                        PyExc_MemoryError,
                        c"cannot allocate a stack of %zd bytes for a greenlet".as_ptr(),
                        size,
                    );
                }
                None
            }
        }
    }

    /// The lowest usable address, the one just above the stack, and the end of the room above it.
    pub(crate) fn limits(&self) -> [*mut u8; 3] {
        let top = self.0.top();
        [self.0.limits().bottom(), top, top.wrapping_add(ROOM)]
    }

    /// Where it lies.
    pub(crate) fn bounds(&self) -> StackLimits {
        self.0.limits()
    }

    /// # Safety
    /// The GIL is held, and nothing uses the stack or the room any more.
    pub(crate) unsafe fn give_back(self) {
        // SAFETY: it is of this pool, and nothing uses it any more (contract).
        unsafe { (*POOL.0.get()).give_back(self.0) }
    }
}
