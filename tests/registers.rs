//! Every register that the ABI gives to the caller is after a switch what it was before.
//!
//! The registers are filled in assembly, right before the jump into the core: the prologue of
//! a Rust function around it saves some of them, and would hide that the core does not.

#![cfg(not(miri))]

use std::{fmt::Write as _, mem::MaybeUninit};

use greenlet::{
    Current, Greenlet, Thrown, enter,
    raw::{Context, Departure, Message, Stack, StackPointer},
};

#[cfg_attr(target_arch = "x86_64", path = "registers/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "registers/aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "registers/riscv64.rs")]
#[cfg_attr(target_arch = "arm", path = "registers/arm.rs")]
mod arch;

const ROUNDS: usize = 16;

/// A register's name, the bits of it that are tested, and what the others are filled with.
type Register = (&'static str, u64, u64);

/// One value for each of `arch::REGISTERS`, in the low bits if they are narrower.
type Bank = [u64; arch::REGISTERS.len()];

/// What the routines of `arch` load before they jump, and store when control is back.
#[repr(C)]
struct Banks {
    set: Bank,
    seen: Bank,
    word: usize,
    kind: usize,
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
    #[link_name = concat!(
        "greenlet_",
        env!("CARGO_PKG_VERSION_MAJOR"), "_",
        env!("CARGO_PKG_VERSION_MINOR"), "_",
        env!("CARGO_PKG_VERSION_PATCH"), "_switch",
    )]
    fn core_switch();
}

/// One of the two that switch to each other.
struct Side {
    name: &'static str,
    round: usize,
    banks: Banks,
    /// A line for each register that was not preserved.
    lost: String,
}

impl Side {
    fn new(name: &'static str) -> Self {
        let none = [0; arch::REGISTERS.len()];
        let banks = Banks {
            set: none,
            seen: none,
            word: 0,
            kind: 0,
        };
        Self {
            name,
            round: 0,
            banks,
            lost: String::new(),
        }
    }

    /// Another value in each register of each side in each round.
    fn fill(&mut self) {
        let banks = &mut self.banks;
        banks.word = self.round;
        banks.kind = self.name.len();
        for (index, (value, (_, tested, fixed))) in
            banks.set.iter_mut().zip(arch::REGISTERS).enumerate()
        {
            let name = u64::from(self.name.as_bytes()[0]);
            *value =
                scramble(name << 32 | (self.round as u64) << 16 | index as u64) & tested | fixed;
        }
    }

    fn check(&mut self) {
        let Self {
            name,
            round,
            banks,
            lost,
        } = self;
        for ((set, seen), (register, tested, _)) in
            banks.set.iter().zip(banks.seen).zip(arch::REGISTERS)
        {
            if (set ^ seen) & tested != 0 {
                writeln!(
                    lost,
                    "{name}, round {round}: {register} was {set:#x}, is {seen:#x}"
                )
                .unwrap();
            }
        }
        *round += 1;
    }
}

/// SplitMix64's finalizer: unlike inputs give values that differ in about half of the bits.
fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The main side, the greenlet's side, and their contexts.
struct Pair {
    sides: [Side; 2],
    contexts: [Context; 2],
}

/// Switches from the side `me` of `pair` to the other one and checks what comes back.
///
/// # Safety
/// `me` runs, the other one is suspended.
unsafe fn switch(pair: *mut Pair, me: usize) -> (usize, usize) {
    // SAFETY: no reference to the pair is kept across the switch, so the other side may use it.
    // A context begins with its stack pointer.
    unsafe {
        let side = &raw mut (*pair).sides[me];
        let save = (&raw mut (*pair).contexts[me]).cast::<StackPointer>();
        let to = (*pair).contexts[1 - me].stack_pointer();
        (*side).fill();
        filled_switch(&raw mut (*side).banks, save, to);
        (*side).check();
        ((*side).banks.word, (*side).banks.kind)
    }
}

unsafe extern "C" fn start(
    pair: *mut (),
    word: MaybeUninit<usize>,
    kind: usize,
    departure: *mut Departure,
) {
    let pair = pair.cast::<Pair>();
    // SAFETY: `pair` is the test's; its main side waits, and `departure` is valid for a write.
    unsafe {
        let mut received = (word.assume_init(), kind);
        for round in 0..ROUNDS {
            if received != (round, "main".len()) {
                let lost = &mut (*pair).sides[1].lost;
                writeln!(lost, "greenlet, round {round}: received {received:?}").unwrap();
            }
            received = switch(pair, 1);
        }
        departure.write(Departure {
            to: MaybeUninit::new((*pair).contexts[0].stack_pointer()),
            message: MaybeUninit::new(Message {
                word: MaybeUninit::new(ROUNDS),
                kind: 8,
            }),
        });
    }
}

#[test]
fn raw_switch_preserves_all() {
    let stack = Stack::map(64 * 1024, 4096).unwrap();
    let mut pair = Pair {
        sides: [Side::new("main"), Side::new("greenlet")],
        contexts: [const { Context::new() }; 2],
    };
    let at = &raw mut pair;
    // SAFETY: the pair and the stack are there until the greenlet is over; each switch goes to
    // the one that is suspended.
    unsafe {
        let [main, greenlet] = &(*at).contexts;
        greenlet.set_parent(main);
        greenlet.prepare(stack.top(), start, at.cast());
        // One round more than the greenlet has: it is over then, and its end also switches.
        for round in 0..=ROUNDS {
            assert_eq!(switch(at, 0), (round, "greenlet".len()));
        }
    }
    let lost = pair.sides.map(|side| side.lost).concat();
    assert!(lost.is_empty(), "not preserved:\n{lost}");
}

/// A switch of the safe API, in the form that `filled_call` calls.
struct SafeSwitch<'a, I, J> {
    me: &'a Current<I>,
    to: &'a Greenlet<J>,
    message: Option<J>,
    received: Option<Result<I, Thrown>>,
}

unsafe extern "C" fn safe_switch<I, J>(switch: *mut ()) {
    // SAFETY: `switch_safely` calls this with its own.
    let switch = unsafe { &mut *switch.cast::<SafeSwitch<'_, I, J>>() };
    switch.received = Some(switch.me.switch(switch.to, switch.message.take().unwrap()));
}

fn switch_safely<I, J>(
    side: &mut Side,
    me: &Current<I>,
    to: &Greenlet<J>,
    message: J,
) -> Result<I, Thrown> {
    side.fill();
    let mut switch = SafeSwitch {
        me,
        to,
        message: Some(message),
        received: None,
    };
    // SAFETY: the function is called with what it takes, and does not unwind.
    unsafe {
        filled_call(
            &mut side.banks,
            safe_switch::<I, J>,
            (&raw mut switch).cast(),
        )
    };
    side.check();
    switch.received.unwrap()
}

#[test]
fn safe_switch_preserves_all() {
    let lost = enter(|me| {
        let main = me.handle();
        let greenlet = Greenlet::new(me, move |me, ()| {
            let mut side = Side::new("greenlet");
            for _ in 0..ROUNDS {
                switch_safely(&mut side, me, &main, String::new())?;
            }
            Ok(side.lost)
        });
        let mut side = Side::new("main");
        let mut lost = String::new();
        for _ in 0..=ROUNDS {
            lost += &switch_safely(&mut side, me, &greenlet, ()).unwrap();
        }
        assert!(greenlet.is_dead());
        lost + &side.lost
    });
    assert!(lost.is_empty(), "not preserved:\n{lost}");
}
