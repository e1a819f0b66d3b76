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
#[path = "registers/banks.rs"]
mod banks;

use banks::{Banks, Register, filled_call, filled_switch};

/// riscv64: does the ABI pass floating-point values in registers?
#[cfg(target_arch = "riscv64")]
const HARD_FLOAT: bool = true;

const ROUNDS: usize = 16;

/// The name of one of the core's symbols.
macro_rules! symbol {
    ($name:literal) => {
        concat!(
            "greenlet_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH"),
            "_",
            $name
        )
    };
}

unsafe extern "C" {
    /// The crate's own, which the routines of `arch` jump to.
    #[link_name = symbol!("switch")]
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

/// Runs `test` in each way that the core has on this architecture, whatever the processor's is.
#[cfg(not(all(target_arch = "x86_64", feature = "fp-control")))]
fn in_each_way(test: fn()) {
    test();
}

/// For MXCSR there are two (`MXCSR_WAY_COMPARE` in `asm/x86_64.S`).
#[cfg(all(target_arch = "x86_64", feature = "fp-control"))]
fn in_each_way(test: fn()) {
    use std::sync::{
        Mutex,
        atomic::{AtomicU8, Ordering},
    };

    unsafe extern "C" {
        #[link_name = symbol!("mxcsr_way")]
        static WAY: AtomicU8;
    }

    static CHOICE: Mutex<()> = Mutex::new(());

    let _chosen = CHOICE.lock();
    for way in [1, 2] {
        // SAFETY: a byte of the core, which both sides use with single loads and stores.
        unsafe { &WAY }.store(way, Ordering::Relaxed);
        test();
    }
}

#[test]
fn raw_switch_preserves_all() {
    in_each_way(switch_raw);
}

fn switch_raw() {
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

fn switch_safely<I, J>(
    side: &mut Side,
    me: &Current<I>,
    to: &Greenlet<J>,
    message: J,
) -> Result<I, Thrown> {
    side.fill();
    let received = banks::switch_safely(&mut side.banks, me, to, message);
    side.check();
    received
}

#[test]
fn safe_switch_preserves_all() {
    in_each_way(switch_as_greenlets);
}

fn switch_as_greenlets() {
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
