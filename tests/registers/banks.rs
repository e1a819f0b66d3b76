//! The registers that are filled before a switch and looked at after it. Needs no `std`: boards
//! have the same tests.

use greenlet::{Current, Greenlet, Thrown, raw::StackPointer};

use super::arch::REGISTERS;

/// A register's name, the bits of it that are tested, and what the others are filled with.
pub type Register = (&'static str, u64, u64);

/// One value for each of [`REGISTERS`], in the low bits if they are narrower.
type Bank = [u64; REGISTERS.len()];

/// What the routines of `arch` load before they jump, and store when control is back. The message
/// comes first, as Thumb-1 reaches no further.
#[repr(C)]
pub struct Banks {
    pub word: usize,
    pub kind: usize,
    pub set: Bank,
    pub seen: Bank,
}

unsafe extern "C" {
    /// Fills the registers from `set`, switches with the message of `banks`, stores the
    /// registers in `seen` and the message received in `banks`.
    ///
    /// `save` and `to` are the core's: see `greenlet::raw::Context::switch`.
    pub fn filled_switch(banks: *mut Banks, save: *mut StackPointer, to: StackPointer);

    /// Fills the registers from `set`, calls `function(argument)`, stores the registers in
    /// `seen`.
    pub fn filled_call(
        banks: *mut Banks,
        function: unsafe extern "C" fn(*mut ()),
        argument: *mut (),
    );
}

impl Banks {
    pub fn new() -> Self {
        Self {
            word: 0,
            kind: 0,
            set: [0; REGISTERS.len()],
            seen: [0; REGISTERS.len()],
        }
    }

    /// Another value in each register of each side in each round.
    pub fn fill(&mut self, side: u8, round: usize) {
        for (index, (value, &(_, tested, fixed))) in
            self.set.iter_mut().zip(&REGISTERS[..]).enumerate()
        {
            let seed = u64::from(side) << 32 | (round as u64) << 16 | index as u64;
            *value = scramble(seed) & tested | fixed;
        }
    }

    /// The registers that were not preserved, with what they were and are.
    pub fn lost(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let values = self.set.iter().zip(&self.seen).zip(&REGISTERS[..]);
        values.filter_map(|((&set, &seen), &(register, tested, _))| {
            ((set ^ seen) & tested != 0).then_some((register, set, seen))
        })
    }
}

/// SplitMix64's finalizer: unlike inputs give values that differ in about half of the bits.
fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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

/// Switches by the safe API, with the registers filled from `banks`.
pub fn switch_safely<I, J>(
    banks: &mut Banks,
    me: &Current<I>,
    to: &Greenlet<J>,
    message: J,
) -> Result<I, Thrown> {
    let mut switch = SafeSwitch {
        me,
        to,
        message: Some(message),
        received: None,
    };
    // SAFETY: the function is called with what it takes, and does not unwind.
    unsafe { filled_call(banks, safe_switch::<I, J>, (&raw mut switch).cast()) };
    switch.received.unwrap()
}
