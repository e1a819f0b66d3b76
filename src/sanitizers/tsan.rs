//! ThreadSanitizer.
//!
//! It keeps a history and a call stack for each thread. Each greenlet needs its own, or accesses of one
//! are reported with the calls of another (`sanitizer/tsan_interface.h` of compiler-rt). A switch
//! synchronizes: what is before it happens before what is after it.

use core::{
    cell::Cell,
    ffi::{c_uint, c_void},
    ptr::null_mut,
};

use super::runtime::weak_function;

type Current = unsafe extern "C" fn() -> *mut c_void;
type Create = unsafe extern "C" fn(c_uint) -> *mut c_void;
type Switch = unsafe extern "C" fn(*mut c_void, c_uint);
type Destroy = unsafe extern "C" fn(*mut c_void);
type FunctionEntry = unsafe extern "C" fn(*mut c_void);

weak_function!(current: Current = "__tsan_get_current_fiber");
weak_function!(create: Create = "__tsan_create_fiber");
weak_function!(switch: Switch = "__tsan_switch_to_fiber");
weak_function!(destroy: Destroy = "__tsan_destroy_fiber");
weak_function!(function_entry: FunctionEntry = "__tsan_func_entry");

/// No flags: a switch is an order in time.
const ORDERED: c_uint = 0;

/// What ThreadSanitizer calls the greenlet: null before it starts, and on a thread's own stack
/// until it is left.
#[derive(Debug)]
pub(super) struct Fiber(Cell<*mut c_void>);

impl Fiber {
    pub(super) const fn new() -> Self {
        Self(Cell::new(null_mut()))
    }

    pub(super) fn create(&self) {
        if let Some(create) = create() {
            // SAFETY: may be called at any time.
            self.0.set(unsafe { create(ORDERED) });
        }
    }

    #[inline(always)]
    pub(super) fn leave(&self, to: &Self) {
        if let (Some(current), Some(switch)) = (current(), switch()) {
            // SAFETY: the one that is switched to was made by `create`, or left here.
            unsafe {
                self.0.set(current());
                switch(to.0.get(), ORDERED);
            }
        }
    }

    /// A dead one still had to return from functions when it left, so the switch comes only now.
    ///
    /// `called`: the function that was reached has just been called, which so far is counted
    /// among the calls of the dead one.
    #[inline(always)]
    pub(super) fn arrive_from_dead(&self, left: &Self, called: bool) {
        if let (Some(switch), Some(destroy), Some(enter)) = (switch(), destroy(), function_entry())
        {
            // SAFETY: as in `leave`; nothing runs any more in the one that is destroyed; and what
            // is entered is left by the function's return.
            unsafe {
                switch(self.0.get(), ORDERED);
                destroy(left.0.replace(null_mut()));
                if called {
                    enter(null_mut());
                }
            }
        }
    }
}
