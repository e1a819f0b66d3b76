//! boost.context: its assembly routine called directly, and its class `fiber`. The workloads are
//! in `boost.cpp`, in the same order.

use std::{ffi::c_void, ptr, time::Duration};

use crate::{
    clock::Stopwatch,
    contender::{Contender, Outcome, STACK_SIZE, Skip},
    mxcsr::Status,
    population::Watch,
    slab::Stack,
};

pub struct Boost {
    name: &'static str,
    flat: unsafe extern "C" fn(u64, u32) -> i64,
    message: unsafe extern "C" fn(u64) -> i64,
    deep: unsafe extern "C" fn(usize, u64) -> i64,
    deep_on_both: unsafe extern "C" fn(usize, u64) -> i64,
    ring: unsafe extern "C" fn(usize, u64) -> i64,
    round_robin: unsafe extern "C" fn(*const usize, usize, usize, u64) -> i64,
    pooled: unsafe extern "C" fn(u64) -> i64,
    fresh: unsafe extern "C" fn(u64, usize) -> i64,
    kill: Option<unsafe extern "C" fn(usize, u64) -> i64>,
    throw: Option<unsafe extern "C" fn(u64) -> i64>,
    populate: unsafe extern "C" fn(usize) -> i64,
}

pub static JUMP: &Boost = &Boost {
    name: "boost jump_fcontext",
    flat: jump_flat,
    message: jump_message,
    deep: jump_deep,
    deep_on_both: jump_deep_on_both,
    ring: jump_ring,
    round_robin: jump_round_robin,
    pooled: jump_pooled,
    fresh: jump_fresh,
    kill: None,
    throw: None,
    populate: jump_populate,
};

pub static FIBER: &Boost = &Boost {
    name: "boost fiber",
    flat: fiber_flat,
    message: fiber_message,
    deep: fiber_deep,
    deep_on_both: fiber_deep_on_both,
    ring: fiber_ring,
    round_robin: fiber_round_robin,
    pooled: fiber_pooled,
    fresh: fiber_fresh,
    kill: Some(fiber_kill),
    throw: Some(fiber_throw),
    populate: fiber_populate,
};

// Each returns nanoseconds, or -1 when there is no memory.
unsafe extern "C" {
    fn jump_flat(ops: u64, mxcsr: u32) -> i64;
    fn jump_message(ops: u64) -> i64;
    fn jump_deep(frames: usize, ops: u64) -> i64;
    fn jump_deep_on_both(frames: usize, ops: u64) -> i64;
    fn jump_ring(size: usize, ops: u64) -> i64;
    fn jump_round_robin(order: *const usize, count: usize, frames: usize, passes: u64) -> i64;
    fn jump_pooled(ops: u64) -> i64;
    fn jump_fresh(ops: u64, stack_size: usize) -> i64;
    fn jump_populate(count: usize) -> i64;

    fn fiber_flat(ops: u64, mxcsr: u32) -> i64;
    fn fiber_message(ops: u64) -> i64;
    fn fiber_deep(frames: usize, ops: u64) -> i64;
    fn fiber_deep_on_both(frames: usize, ops: u64) -> i64;
    fn fiber_ring(size: usize, ops: u64) -> i64;
    fn fiber_round_robin(order: *const usize, count: usize, frames: usize, passes: u64) -> i64;
    fn fiber_pooled(ops: u64) -> i64;
    fn fiber_fresh(ops: u64, stack_size: usize) -> i64;
    fn fiber_kill(frames: usize, ops: u64) -> i64;
    fn fiber_throw(ops: u64) -> i64;
    fn fiber_populate(count: usize) -> i64;
}

impl Contender for &Boost {
    fn name(&self) -> &'static str {
        self.name
    }

    fn flat(&self, ops: u64, status: Status) -> Outcome {
        // SAFETY: here and below, the C++ side asks for nothing but valid arguments.
        outcome(unsafe { (self.flat)(ops, status.bits()) })
    }

    fn message(&self, ops: u64) -> Outcome {
        outcome(unsafe { (self.message)(ops) })
    }

    fn deep(&self, frames: usize, ops: u64) -> Outcome {
        outcome(unsafe { (self.deep)(frames, ops) })
    }

    fn deep_on_both(&self, frames: usize, ops: u64) -> Outcome {
        outcome(unsafe { (self.deep_on_both)(frames, ops) })
    }

    fn ring(&self, size: usize, ops: u64) -> Outcome {
        outcome(unsafe { (self.ring)(size, ops) })
    }

    fn round_robin(&self, order: &[usize], frames: usize, passes: u64) -> Outcome {
        outcome(unsafe { (self.round_robin)(order.as_ptr(), order.len(), frames, passes) })
    }

    fn pooled(&self, ops: u64) -> Outcome {
        outcome(unsafe { (self.pooled)(ops) })
    }

    fn fresh(&self, ops: u64) -> Outcome {
        outcome(unsafe { (self.fresh)(ops, STACK_SIZE) })
    }

    fn kill(&self, frames: usize, ops: u64) -> Outcome {
        let kill = self.kill.ok_or(Skip::NotOffered)?;
        outcome(unsafe { kill(frames, ops) })
    }

    fn throw(&self, ops: u64) -> Outcome {
        let throw = self.throw.ok_or(Skip::NotOffered)?;
        outcome(unsafe { throw(ops) })
    }

    fn populate(&self, count: usize, watch: &Watch) -> Skip {
        match outcome(unsafe { (self.populate)(count) }) {
            Ok(elapsed) => watch.report(elapsed),
            Err(skip) => skip,
        }
    }
}

fn outcome(nanoseconds: i64) -> Outcome {
    let nanoseconds = u64::try_from(nanoseconds).map_err(|_| Skip::because("std::bad_alloc"))?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// The stopwatch, as a number of nanoseconds.
#[unsafe(no_mangle)]
extern "C" fn peers_start() -> i64 {
    Stopwatch::start().to_nanos() as i64
}

#[unsafe(no_mangle)]
extern "C" fn peers_elapsed(start: i64) -> i64 {
    Stopwatch::from_nanos(start as u64).elapsed().as_nanos() as i64
}

/// A stack of the slab, with the top that a stack of the slab has; null if there is none.
#[unsafe(no_mangle)]
extern "C" fn peers_take_stack(size: &mut usize) -> *mut c_void {
    Stack::take().map_or(ptr::null_mut(), |stack| {
        *size = stack.top() - stack.bottom();
        ptr::with_exposed_provenance_mut(stack.top())
    })
}

#[unsafe(no_mangle)]
extern "C" fn peers_give_stack(top: *mut c_void, size: usize) {
    Stack::of(top.addr(), size).give_back();
}
