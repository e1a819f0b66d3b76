//! As tests/registers.rs in the package: a switch preserves every callee-saved register.

use core::mem::MaybeUninit;

use boards::HeapStack;
use greenlet::{
    Current, Greenlet, StackMemory, Thrown,
    raw::{Context, Departure, Message},
};

use super::{enter, greenlet};

#[cfg_attr(target_arch = "arm", path = "../../../registers/thumb.rs")]
#[cfg_attr(
    any(target_arch = "riscv64", target_arch = "riscv32"),
    path = "../../../registers/riscv.rs"
)]
mod arch;
#[path = "../../../registers/banks.rs"]
mod banks;

use banks::{Banks, Register, filled_call};

/// On RISC-V, `true` if the ABI passes floating-point values in registers.
#[cfg(any(target_arch = "riscv64", target_arch = "riscv32"))]
const HARD_FLOAT: bool = cfg!(hard_float);

const ROUNDS: usize = 16;

fn check(banks: &Banks, round: usize) {
    if let Some((register, set, seen)) = banks.lost().next() {
        panic!("round {round}: {register} was {set:#x}, is {seen:#x}");
    }
}

/// Switches with `banks` filled from one context to the other.
///
/// # Safety
/// `from` runs, `to` is suspended.
unsafe fn switch(banks: &mut Banks, from: *const Context, to: *const Context, round: usize) {
    // SAFETY: the caller's word.
    unsafe { banks::switch_contexts(banks, &*from, &*to) };
    check(banks, round);
}

unsafe extern "C" fn start(
    contexts: *mut (),
    word: MaybeUninit<usize>,
    kind: usize,
    departure: *mut Departure,
) {
    let main = contexts.cast_const().cast::<Context>();
    let me = main.wrapping_add(1);
    let mut banks = Banks::new();
    // SAFETY: the test's main context waits, and `departure` is valid for a write.
    unsafe {
        (banks.word, banks.kind) = (word.assume_init(), kind);
        for round in 0..ROUNDS {
            assert_eq!((banks.word, banks.kind), (round, 4));
            (banks.word, banks.kind) = (round, 8);
            banks.fill(1, round);
            switch(&mut banks, me, main, round);
        }
        departure.write(Departure {
            to: MaybeUninit::new(main),
            message: MaybeUninit::new(Message {
                word: MaybeUninit::new(ROUNDS),
                kind: 8,
            }),
        });
    }
}

pub fn after_a_switch_of_contexts() {
    let stack = HeapStack::new();
    let contexts = [const { Context::new() }; 2];
    let [main, other] = &contexts;
    let mut banks = Banks::new();
    // SAFETY: the contexts and the stack are there until the other one is over; each switch goes
    // to the one that is suspended.
    unsafe {
        other.set_parent(main);
        other.prepare(stack.top(), start, contexts.as_ptr().cast_mut().cast());
        // One round more than the greenlet: its end also switches.
        for round in 0..=ROUNDS {
            (banks.word, banks.kind) = (round, 4);
            banks.fill(0, round);
            switch(&mut banks, main, other, round);
            assert_eq!((banks.word, banks.kind), (round, 8));
        }
    }
}

fn switch_safely<'e, I>(
    banks: &mut Banks,
    me: &Current<'e, I>,
    to: &Greenlet<'e, u64>,
    message: u64,
    round: usize,
) -> Result<I, Thrown> {
    let received = banks::switch_safely(banks, me, to, message);
    check(banks, round);
    received
}

/// Two greenlets exchange numbers, with all registers filled, while `go_on` returns `true`.
fn play(mut go_on: impl FnMut(usize) -> bool) {
    enter(|me| {
        let main = me.handle();
        let other = greenlet(me, move |me, mut n: u64| {
            let mut banks = Banks::new();
            for round in 0.. {
                banks.fill(1, round);
                n = switch_safely(&mut banks, me, &main, n + 1, round)?;
            }
            Ok(n)
        });
        let mut banks = Banks::new();
        let mut round = 0;
        while go_on(round) {
            banks.fill(0, round);
            let n = round as u64;
            assert_eq!(
                switch_safely(&mut banks, me, &other, n, round).unwrap(),
                n + 1
            );
            round += 1;
        }
    });
}

pub fn after_a_switch_of_greenlets() {
    play(|round| round < ROUNDS);
}

/// An interrupt handler runs on the interrupted stack, also in the middle of a switch, and overwrites what
/// lies below the stack pointer.
pub fn while_a_timer_interrupts() {
    let before = boards::ticks();
    boards::start_ticking();
    play(|_| boards::ticks() - before < 1000);
    boards::stop_ticking();
}
