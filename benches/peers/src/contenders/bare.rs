//! The floor: an inlined switch that keeps the callee-saved registers and does nothing else. It
//! checks nothing, unwinds nothing, and leaves the floating-point state alone.

use std::{arch::asm, cell::Cell};

use crate::{
    clock::Stopwatch,
    contender::{Contender, Outcome, Skip},
    mxcsr::Status,
    population::Watch,
    slab::Stack,
    work::{self, time, time_warm},
};

pub struct Bare;

impl Contender for Bare {
    fn name(&self) -> &'static str {
        "bare switch"
    }

    fn flat(&self, ops: u64, status: Status) -> Outcome {
        let adder = started(adder, 0)?;
        let mut x = 0;
        // SAFETY: here and below, what is switched to is suspended.
        let elapsed = status.during(|| time(ops, || x = unsafe { to(&adder, x) }));
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn deep(&self, frames: usize, ops: u64) -> Outcome {
        let adder = started(deep_adder, frames)?;
        let mut x = 0;
        let elapsed = time(ops, || x = unsafe { to(&adder, x) });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn deep_on_both(&self, frames: usize, ops: u64) -> Outcome {
        let adder = started(deep_adder, frames)?;
        let mut x = 0;
        let elapsed = time(ops, || {
            x = work::deep(frames, &mut || unsafe { to(&adder, x) });
        });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn ring(&self, size: usize, ops: u64) -> Outcome {
        let ring = (0..size)
            .map(|_| started(hopper, 0))
            .collect::<Result<Vec<_>, Skip>>()?;
        for (index, member) in ring.iter().enumerate() {
            member.next.set(&raw const *ring[(index + 1) % size]);
        }
        unsafe { to(&ring[0], 2 * size as u64) };
        let elapsed = time(1, || {
            unsafe { to(&ring[0], ops) };
        });
        Ok(elapsed)
    }

    fn round_robin(&self, order: &[usize], frames: usize, passes: u64) -> Outcome {
        let body = if frames == 0 { adder } else { deep_adder };
        let adders = order
            .iter()
            .map(|_| started(body, frames))
            .collect::<Result<Vec<_>, Skip>>()?;
        let mut x = 0;
        let elapsed = time_warm(1, passes, || {
            for &index in order {
                x = unsafe { to(&adders[index], x) };
            }
        });
        assert_eq!(x, (1 + passes) * order.len() as u64);
        Ok(elapsed)
    }

    fn pooled(&self, ops: u64) -> Outcome {
        let mut x = 0;
        let elapsed = time(ops, || {
            let stack = Stack::take().expect("there is memory");
            let once = Context::new(0);
            // SAFETY: the stack is unused, and `once` lives as long as anything runs on it.
            unsafe { once.prepare(stack, add_once) };
            once.argument.set(x);
            x = unsafe { to(&once, (&raw const once).expose_provenance() as u64) };
            stack.give_back();
        });
        assert_eq!(x, ops);
        Ok(elapsed)
    }

    fn populate(&self, count: usize, watch: &Watch) -> Skip {
        let start = Stopwatch::start();
        match suspended(count) {
            Ok(_adders) => watch.report(start.elapsed()),
            Err(skip) => skip,
        }
    }
}

/// Where something is suspended.
struct Context {
    stack_pointer: Cell<usize>,
    /// The next one in a ring.
    next: Cell<*const Context>,
    frames: usize,
    argument: Cell<u64>,
}

impl Context {
    const fn new(frames: usize) -> Self {
        Self {
            stack_pointer: Cell::new(0),
            next: Cell::new(std::ptr::null()),
            frames,
            argument: Cell::new(0),
        }
    }

    /// # Safety
    /// Nothing is on `stack`.
    unsafe fn prepare(&self, stack: Stack, body: Body) {
        // The first switch takes the address off the stack and leaves it aligned as after a call.
        let frame = stack.top() - 16;
        // SAFETY: just below the top of an unused stack.
        unsafe {
            std::ptr::with_exposed_provenance_mut::<usize>(frame).write(body as *const () as usize);
        }
        self.stack_pointer.set(frame);
    }
}

thread_local! {
    static MAIN: Context = const { Context::new(0) };
}

/// The first word is the address of the context.
type Body = unsafe extern "C" fn(*const Context) -> !;

/// # Safety
/// `from` runs, and `to` is suspended or prepared.
#[inline(always)]
unsafe fn switch(from: &Context, to: &Context, word: u64) -> u64 {
    let received;
    // SAFETY: what is not declared as clobbered is kept on the stack.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "lea rax, [rip + 2f]",
            "push rax",
            "mov [rsi], rsp",
            "mov rsp, rdx",
            "pop rax",
            "jmp rax",
            "2:",
            "pop rbp",
            "pop rbx",
            inout("rsi") from.stack_pointer.as_ptr() => _,
            inout("rdx") to.stack_pointer.get() => _,
            inout("rdi") word => received,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
            clobber_abi("sysv64"),
        );
    }
    received
}

/// # Safety
/// The main side runs, `context` is suspended or prepared.
#[inline(always)]
unsafe fn to(context: &Context, word: u64) -> u64 {
    MAIN.with(|main| unsafe { switch(main, context, word) })
}

/// # Safety
/// `context` runs.
#[inline(always)]
unsafe fn back(context: &Context, word: u64) -> u64 {
    MAIN.with(|main| unsafe { switch(context, main, word) })
}

unsafe extern "C" fn adder(me: *const Context) -> ! {
    unsafe {
        let mut x = back(&*me, 0);
        loop {
            x = back(&*me, x + 1);
        }
    }
}

unsafe extern "C" fn deep_adder(me: *const Context) -> ! {
    unsafe {
        let mut x = back(&*me, 0);
        loop {
            x = work::deep((*me).frames, &mut || back(&*me, x + 1));
        }
    }
}

unsafe extern "C" fn add_once(me: *const Context) -> ! {
    unsafe {
        back(&*me, (*me).argument.get() + 1);
    }
    unreachable!("nobody comes back");
}

unsafe extern "C" fn hopper(me: *const Context) -> ! {
    unsafe {
        let mut hops = back(&*me, 0);
        loop {
            hops = match hops.checked_sub(1) {
                Some(left) => switch(&*me, &*(*me).next.get(), left),
                None => back(&*me, 0),
            };
        }
    }
}

/// A context that does not move, and its stack.
struct Started {
    context: Box<Context>,
    stack: Stack,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.stack.give_back();
    }
}

impl std::ops::Deref for Started {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

/// Runs `body` up to its first switch.
fn started(body: Body, frames: usize) -> Result<Started, Skip> {
    let started = Started {
        context: Box::new(Context::new(frames)),
        stack: Stack::take()?,
    };
    // SAFETY: a stack of its own, and a context that lives as long.
    unsafe {
        started.prepare(started.stack, body);
        let me: *const Context = &raw const *started.context;
        to(&started, me.expose_provenance() as u64);
    }
    Ok(started)
}

/// That many adders, each waiting for its second number.
fn suspended(count: usize) -> Result<Vec<Started>, Skip> {
    (0..count).map(|_| started(adder, 0)).collect()
}
