//! A switch preserves every callee-saved register of the ABI.
//!
//! The registers are filled in assembly, right before the call of a function that switches. The text of
//! the switch saves some of them. The others are declared clobbered, so the compiler saves those. Both
//! together preserve what the ABI requires.

#![cfg(not(miri))]

use std::{fmt::Write as _, mem::MaybeUninit};

use greenlet::{
    Current, Greenlet, Thrown, enter,
    raw::{Context, Departure, Message, Stack},
};

#[cfg_attr(
    all(target_arch = "x86_64", not(windows)),
    path = "registers/x86_64.rs"
)]
#[cfg_attr(
    all(target_arch = "x86_64", windows),
    path = "registers/x86_64_windows.rs"
)]
#[cfg_attr(target_arch = "aarch64", path = "registers/aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "registers/riscv.rs")]
#[cfg_attr(target_arch = "arm", path = "registers/arm.rs")]
mod arch;
#[path = "registers/banks.rs"]
mod banks;

use banks::{Banks, Register, filled_call};

/// On riscv64, the ABI passes floating-point values in registers.
#[cfg(target_arch = "riscv64")]
const HARD_FLOAT: bool = true;

const ROUNDS: usize = 16;

/// One of two contexts that switch to each other.
struct Side {
    name: &'static str,
    round: usize,
    banks: Banks,
    /// A line for each register that was not preserved.
    lost: String,
}

impl Side {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            round: 0,
            banks: Banks::new(),
            lost: String::new(),
        }
    }

    fn fill(&mut self) {
        self.banks.word = self.round;
        self.banks.kind = self.name.len();
        self.banks.fill(self.name.as_bytes()[0], self.round);
    }

    fn check(&mut self) {
        let Self { name, round, .. } = *self;
        for (register, set, seen) in self.banks.lost() {
            let line = format_args!("{name}, round {round}: {register} was {set:#x}, is {seen:#x}");
            writeln!(self.lost, "{line}").unwrap();
        }
        self.round += 1;
    }
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
    unsafe {
        let side = &raw mut (*pair).sides[me];
        let [from, to] = [me, 1 - me].map(|side| &(*pair).contexts[side]);
        (*side).fill();
        banks::switch_contexts(&mut (*side).banks, from, to);
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
            to: MaybeUninit::new(&raw const (*pair).contexts[0]),
            message: MaybeUninit::new(Message {
                word: MaybeUninit::new(ROUNDS),
                kind: 8,
            }),
        });
    }
}

#[test]
fn raw_switch_preserves_callee_saved_registers() {
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
        // One round more than the greenlet: its end also switches.
        for round in 0..=ROUNDS {
            assert_eq!(switch(at, 0), (round, "greenlet".len()));
        }
    }
    let lost = pair.sides.map(|side| side.lost).concat();
    assert!(lost.is_empty(), "not preserved:\n{lost}");
}

fn switch_safely<'e, I, J>(
    side: &mut Side,
    me: &Current<'e, I>,
    to: &Greenlet<'e, J>,
    message: J,
) -> Result<I, Thrown> {
    side.fill();
    let received = banks::switch_safely(&mut side.banks, me, to, message);
    side.check();
    received
}

#[test]
fn safe_switch_preserves_callee_saved_registers() {
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

/// As a new thread inherits those of its creator (POSIX, `pthread_create`).
#[test]
#[cfg(all(target_arch = "x86_64", feature = "fp-control"))]
fn a_new_greenlet_starts_with_the_control_words_of_the_one_that_starts_it() {
    use std::arch::asm;

    fn mxcsr() -> u32 {
        let mut mxcsr = 0;
        // SAFETY: stores four bytes.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack)) };
        mxcsr
    }

    fn set_mxcsr(mxcsr: u32) {
        // SAFETY: no floating-point operation of Rust code runs before it is set back.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack)) };
    }

    const ROUNDING: u32 = 0x6000;
    let before = mxcsr();
    let seen = enter(|me: &greenlet::Root<u32>| {
        let looks = Greenlet::new(me, |_, ()| Ok(mxcsr()));
        set_mxcsr(before | ROUNDING);
        let seen = me.switch(&looks, ()).unwrap();
        set_mxcsr(before);
        seen
    });
    assert_eq!(before & ROUNDING, 0);
    assert_eq!(seen & ROUNDING, ROUNDING);
}
