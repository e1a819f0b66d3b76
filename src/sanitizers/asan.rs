//! AddressSanitizer and LeakSanitizer.
//!
//! When a panic unwinds, AddressSanitizer clears its shadow memory of the stack, so it must know the
//! bounds of that stack. Otherwise it reports errors that are none and misses others. It is told of each
//! switch and of each new stack (`sanitizer/common_interface_defs.h` and `sanitizer/asan_interface.h` of
//! compiler-rt).
//!
//! LeakSanitizer comes with it and by itself searches only the stacks of threads for pointers. It is
//! told of each stack while a greenlet runs on it (`sanitizer/lsan_interface.h`). It searches the whole
//! stack, so a pointer that a finished call has left there hides a leak, as on a thread's stack.

use core::{
    cell::Cell,
    ffi::c_void,
    ptr::{null, null_mut},
};

use super::runtime::weak_function;

type Start = unsafe extern "C" fn(*mut *mut c_void, *const c_void, usize);
type Finish = unsafe extern "C" fn(*mut c_void, *mut *const c_void, *mut usize);
type Unpoison = unsafe extern "C" fn(*const c_void, usize);
type RootRegion = unsafe extern "C" fn(*const c_void, usize);

weak_function!(start: Start = "__sanitizer_start_switch_fiber");
weak_function!(finish: Finish = "__sanitizer_finish_switch_fiber");
weak_function!(unpoison: Unpoison = "__asan_unpoison_memory_region");
weak_function!(register: RootRegion = "__lsan_register_root_region");
weak_function!(unregister: RootRegion = "__lsan_unregister_root_region");

/// Of a larger stack only the top is cleared before use: an eighth of what is cleared becomes
/// resident, and the sanitizer itself clears no more when a stack unwinds.
const MOST_UNPOISONED: usize = 64 << 20;

/// What AddressSanitizer knows of a stack.
///
/// # Invariants
/// The bounds are known once it has been prepared or left. `fake` is the record of a suspended
/// greenlet's frames that the sanitizer gave when it was left.
#[derive(Debug)]
pub(super) struct Fiber {
    bottom: Cell<*const c_void>,
    size: Cell<usize>,
    fake: Cell<*mut c_void>,
}

impl Fiber {
    pub(super) const fn new() -> Self {
        Self {
            bottom: Cell::new(null()),
            size: Cell::new(0),
            fake: Cell::new(null_mut()),
        }
    }

    /// Clears what functions that never returned have left of their marks.
    pub(super) fn prepare(&self, bottom: *mut u8, top: *mut u8) {
        self.bottom.set(bottom.cast());
        self.size.set(top.addr() - bottom.addr());
        if let Some(unpoison) = unpoison() {
            let bytes = self.size.get().min(MOST_UNPOISONED);
            // SAFETY: the memory of a stack on which nothing runs.
            unsafe { unpoison(top.wrapping_sub(bytes).cast(), bytes) };
        }
        if let Some(register) = register() {
            // SAFETY: readable until `end`.
            unsafe { register(self.bottom.get(), self.size.get()) };
        }
    }

    /// Nothing runs any more on the stack that was prepared.
    fn end(&self) {
        if let Some(unregister) = unregister() {
            // SAFETY: as it was registered.
            unsafe { unregister(self.bottom.get(), self.size.get()) };
        }
    }

    #[inline(always)]
    pub(super) fn leave(&self, to: &Self) {
        if let Some(start) = start() {
            // SAFETY: the bounds of the stack that is switched to.
            unsafe { start(self.fake.as_ptr(), to.bottom.get(), to.size.get()) };
        }
    }

    #[inline(always)]
    pub(super) fn arrive(&self, left: &Self) {
        if let Some(finish) = finish() {
            let fake = self.fake.replace(null_mut());
            // SAFETY: ends the switch to this stack that `leave` has started.
            unsafe { finish(fake, left.bottom.as_ptr(), left.size.as_ptr()) };
        }
    }

    /// The record of a dead one's frames is freed by a switch that does not ask for it. But it
    /// still had to return from functions when it left, so that is made up for here.
    pub(super) fn arrive_from_dead(&self, left: &Self) {
        left.end();
        let (Some(start), Some(finish)) = (start(), finish()) else {
            return;
        };
        // SAFETY: ends the switch that `leave` has started, as if it had failed, and starts and
        // ends it again for good.
        unsafe {
            finish(left.fake.replace(null_mut()), null_mut(), null_mut());
            start(null_mut(), self.bottom.get(), self.size.get());
            finish(self.fake.replace(null_mut()), null_mut(), null_mut());
        }
    }
}
