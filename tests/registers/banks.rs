//! Fills registers before a switch and compares them after it. Does not use `std`: boards run the same tests.

use core::mem::MaybeUninit;

use greenlet::{
    Current, Greenlet, Thrown,
    raw::{Context, Message},
};

use super::arch::REGISTERS;

/// A register's name, the mask of tested bits, and the value of the other bits.
pub type Register = (&'static str, u64, u64);

/// One value for each of [`REGISTERS`], in the low bits if they are narrower.
type Bank = [u64; REGISTERS.len()];

/// The values that the routines of `arch` load before a call and store after it; and a message.
#[repr(C)]
pub struct Banks {
    pub set: Bank,
    pub seen: Bank,
    pub word: usize,
    pub kind: usize,
}

unsafe extern "C" {
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
            set: [0; REGISTERS.len()],
            seen: [0; REGISTERS.len()],
            word: 0,
            kind: 0,
        }
    }

    /// Returns different values for each register, side and round.
    pub fn fill(&mut self, side: u8, round: usize) {
        for (index, (value, &(_, tested, fixed))) in
            self.set.iter_mut().zip(&REGISTERS[..]).enumerate()
        {
            let seed = u64::from(side) << 32 | (round as u64) << 16 | index as u64;
            *value = scramble(seed) & tested | fixed;
        }
    }

    /// Returns the registers that were not preserved, with both values.
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

/// A switch of contexts, in the form that `filled_call` calls.
struct RawSwitch<'a> {
    from: &'a Context,
    to: &'a Context,
    message: Message,
}

unsafe extern "C" fn raw_switch(switch: *mut ()) {
    // SAFETY: `switch_contexts` calls this with its own, and says which context runs.
    unsafe {
        let switch = &mut *switch.cast::<RawSwitch<'_>>();
        switch.message = switch.from.switch(switch.to, switch.message);
    }
}

/// Switches from one context to the other with the registers and the message of `banks`, and stores the
/// received message there.
///
/// # Safety
/// `from` runs, `to` is suspended or prepared.
pub unsafe fn switch_contexts(banks: &mut Banks, from: &Context, to: &Context) {
    let word = MaybeUninit::new(banks.word);
    let kind = banks.kind;
    let message = Message { word, kind };
    let mut switch = RawSwitch { from, to, message };
    // SAFETY: the function is called with what it takes, and does not unwind; both sides send words.
    unsafe {
        filled_call(banks, raw_switch, (&raw mut switch).cast());
        banks.word = switch.message.word.assume_init();
    }
    banks.kind = switch.message.kind;
}

/// A switch of the safe API, in the form that `filled_call` calls.
struct SafeSwitch<'a, 'e, I, J> {
    me: &'a Current<'e, I>,
    to: &'a Greenlet<'e, J>,
    message: Option<J>,
    received: Option<Result<I, Thrown>>,
}

unsafe extern "C" fn safe_switch<I, J>(switch: *mut ()) {
    // SAFETY: `switch_safely` calls this with its own.
    let switch = unsafe { &mut *switch.cast::<SafeSwitch<'_, '_, I, J>>() };
    switch.received = Some(switch.me.switch(switch.to, switch.message.take().unwrap()));
}

/// Switches by the safe API, with the registers filled from `banks`.
pub fn switch_safely<'e, I, J>(
    banks: &mut Banks,
    me: &Current<'e, I>,
    to: &Greenlet<'e, J>,
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
