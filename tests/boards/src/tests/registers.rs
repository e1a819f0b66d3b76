//! As tests/registers.rs in the package: every register that the ABI gives to the caller is after
//! a switch what it was before.

use core::mem::MaybeUninit;

use boards::HeapStack;
use greenlet::{
    Current, Greenlet, StackMemory, Thrown,
    raw::{Context, Departure, Message, StackPointer},
};

use super::{enter, greenlet};

#[cfg_attr(target_arch = "arm", path = "registers/thumb.rs")]
#[cfg_attr(target_arch = "riscv64", path = "registers/riscv64.rs")]
mod arch;

const ROUNDS: usize = 16;

/// A register's name, the bits of it that are tested, and what the others are filled with.
type Register = (&'static str, u64, u64);

/// One value for each of `arch::REGISTERS`, in the low bits if they are narrower.
type Bank = [u64; arch::REGISTERS.len()];

/// What the routines of `arch` load before they jump, and store when control is back.
#[repr(C)]
struct Banks {
    word: usize,
    kind: usize,
    set: Bank,
    seen: Bank,
}

unsafe extern "C" {
    /// Fills the registers from `set`, switches with the message of `banks`, stores the
    /// registers in `seen` and the message received in `banks`.
    ///
    /// `save` and `to` are the core's: see `greenlet::raw::Context::switch`.
    fn filled_switch(banks: *mut Banks, save: *mut StackPointer, to: StackPointer);

    /// Fills the registers from `set`, calls `function(argument)`, stores the registers in
    /// `seen`.
    fn filled_call(banks: *mut Banks, function: unsafe extern "C" fn(*mut ()), argument: *mut ());

    /// The crate's own, which the routines of `arch` jump to.
    #[link_name = "greenlet_0_1_0_switch"]
    fn core_switch();
}

impl Banks {
    fn new() -> Self {
        Self {
            word: 0,
            kind: 0,
            set: [0; _],
            seen: [0; _],
        }
    }

    /// Another value in each register of each side in each round.
    fn fill(&mut self, side: u64, round: usize) {
        for (index, (value, (_, tested, fixed))) in
            self.set.iter_mut().zip(arch::REGISTERS).enumerate()
        {
            *value = scramble(side << 32 | (round as u64) << 16 | index as u64) & tested | fixed;
        }
    }

    fn check(&self, round: usize) {
        for ((set, seen), (register, tested, _)) in
            self.set.iter().zip(self.seen).zip(arch::REGISTERS)
        {
            assert_eq!(set & tested, seen & tested, "{register}, round {round}");
        }
    }
}

/// SplitMix64's finalizer: unlike inputs give values that differ in about half of the bits.
fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Switches with `banks` filled from one context to the other.
///
/// # Safety
/// `from` runs, `to` is suspended.
unsafe fn switch(banks: &mut Banks, from: *const Context, to: *const Context, round: usize) {
    // SAFETY: the caller's word. A context begins with its stack pointer.
    unsafe { filled_switch(banks, from.cast_mut().cast(), (*to).stack_pointer()) };
    banks.check(round);
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
            to: MaybeUninit::new((*main).stack_pointer()),
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
        // One round more than the other has: it is over then, and its end also switches.
        for round in 0..=ROUNDS {
            (banks.word, banks.kind) = (round, 4);
            banks.fill(0, round);
            switch(&mut banks, main, other, round);
            assert_eq!((banks.word, banks.kind), (round, 8));
        }
    }
}

/// A switch of the safe API, in the form that `filled_call` calls.
struct SafeSwitch<'a, I> {
    me: &'a Current<I>,
    to: &'a Greenlet<u64>,
    message: u64,
    received: Option<Result<I, Thrown>>,
}

unsafe extern "C" fn safe_switch<I>(switch: *mut ()) {
    // SAFETY: `switch_safely` calls this with its own.
    let switch = unsafe { &mut *switch.cast::<SafeSwitch<'_, I>>() };
    switch.received = Some(switch.me.switch(switch.to, switch.message));
}

fn switch_safely<I>(
    banks: &mut Banks,
    me: &Current<I>,
    to: &Greenlet<u64>,
    message: u64,
    round: usize,
) -> Result<I, Thrown> {
    let mut switch = SafeSwitch {
        me,
        to,
        message,
        received: None,
    };
    // SAFETY: the function is called with what it takes, and does not unwind.
    unsafe { filled_call(banks, safe_switch::<I>, (&raw mut switch).cast()) };
    banks.check(round);
    switch.received.unwrap()
}

/// Two greenlets send each other numbers, with all registers filled, while `go_on` says so.
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

/// Handlers run on the stack of whom they interrupt, also in the midst of a switch: what lies
/// below the stack pointer is lost then.
pub fn while_a_timer_interrupts() {
    let before = boards::ticks();
    boards::start_ticking();
    play(|_| boards::ticks() - before < 1000);
    boards::stop_ticking();
}
