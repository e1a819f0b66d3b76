//! Counted payloads that greenlets send, throw, panic with and own. Their destructors run scripts.

use std::{
    any::Any,
    error::Error,
    fmt,
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    process, ptr,
};

use greenlet::{Greenlet, StackMemory};

use crate::{
    frames,
    generators::Resumable,
    handles::{self, Handle},
    program::{AtDrop, Brought},
    support::census::Token,
    world,
};

/// Marks a payload that is there.
pub const INTACT: u64 = 0x600d_600d_600d_600d;

/// Counted at its birth and when it is dropped; damage shows.
pub struct Payload {
    mark: u64,
    what: &'static str,
    at_drop: AtDrop,
    handle: Option<Handle>,
    _token: Option<Token>,
}

impl Payload {
    /// `what` it is part of, for the tally.
    pub fn new(what: &'static str, at_drop: AtDrop) -> Self {
        let handle = match at_drop {
            AtDrop::Release(index) => handles::take(index),
            _ => None,
        };
        Self {
            mark: INTACT,
            what,
            at_drop,
            handle,
            _token: world::token(),
        }
    }

    pub fn check(&self) {
        assert_eq!(self.mark, INTACT, "a payload is damaged, or was dropped");
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if self.mark != INTACT {
            // Nothing that it holds can be relied on.
            eprintln!(
                "a payload is damaged, or is dropped twice: {:#x}",
                self.mark
            );
            process::abort();
        }
        self.mark = 0xdead;
        match self.at_drop {
            AtDrop::Nothing => {}
            AtDrop::Run(script) => call_back(self.what, script),
            AtDrop::Panic => bang_if_allowed(),
            AtDrop::Release(_) => drop(self.handle.take()),
        }
    }
}

/// What the crate calls may do anything, in a greenlet of its own. Does not unwind.
pub fn call_back(what: &'static str, script: u8) {
    let Some(_nested) = world::nest() else {
        return;
    };
    world::saw(what);
    contain(|| frames::enter(script));
}

/// Runs `run` and drops what it panics with, and what that panics with.
pub fn contain<R>(run: impl FnOnce() -> R) {
    let mut outcome = catch_unwind(AssertUnwindSafe(|| drop(run())));
    while let Err(payload) = outcome {
        outcome = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
}

/// The payload of a panic.
#[expect(dead_code, reason = "dropped, not read")]
pub struct Bang(Payload);

// SAFETY: what a program panics with is dropped in its thread.
unsafe impl Send for Bang {}

pub fn bang(at_drop: AtDrop) -> ! {
    panic_any(Bang(Payload::new("a panic's payload", at_drop)))
}

/// For destructors.
pub fn bang_if_allowed() {
    if world::may_panic() {
        bang(AtDrop::Nothing);
    }
}

pub trait Message: Sized + 'static {
    fn new(at_drop: AtDrop) -> Self;
    fn check(&self);
    fn local(self) -> Local;
    fn handle(greenlet: Greenlet<'static, Self>, place: u64) -> Handle;
}

/// Travels in a register.
pub struct A(Box<Payload>);

/// Travels on a stack.
pub struct B {
    before: [u64; 4],
    payload: Payload,
    after: [u64; 4],
}

impl Message for A {
    fn new(at_drop: AtDrop) -> Self {
        Self(Box::new(Payload::new("a message", at_drop)))
    }

    fn check(&self) {
        self.0.check();
    }

    fn local(self) -> Local {
        Local::A(self)
    }

    fn handle(greenlet: Greenlet<'static, Self>, place: u64) -> Handle {
        Handle::A(greenlet, place)
    }
}

impl Message for B {
    fn new(at_drop: AtDrop) -> Self {
        Self {
            before: [INTACT; 4],
            payload: Payload::new("a message", at_drop),
            after: [INTACT; 4],
        }
    }

    fn check(&self) {
        self.payload.check();
        assert_eq!(
            (self.before, self.after),
            ([INTACT; 4], [INTACT; 4]),
            "damaged"
        );
    }

    fn local(self) -> Local {
        Local::B(self)
    }

    fn handle(greenlet: Greenlet<'static, Self>, place: u64) -> Handle {
        Handle::B(greenlet, place)
    }
}

/// The user's error.
pub struct Fault(Payload);

impl Fault {
    pub fn new(at_drop: AtDrop) -> Self {
        Self(Payload::new("an error", at_drop))
    }

    pub fn check(&self) {
        self.0.check();
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fault")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fault")
    }
}

impl Error for Fault {}

/// A local of a frame; its destructor is what matters of it.
#[allow(dead_code, reason = "most are dropped, not read")]
pub enum Local {
    Handle(Handle),
    A(A),
    B(B),
    Error(greenlet::Thrown),
    Panic(Box<dyn Any + Send>),
    Payload(Payload),
    Generator(Resumable),
}

/// A stack that the program brings.
pub struct Memory {
    bytes: *mut [MaybeUninit<u8>],
    asked: u8,
    _dropped: Payload,
}

impl Memory {
    pub fn new(size: usize, brought: Brought) -> Self {
        Self {
            bytes: Box::into_raw(Box::new_uninit_slice(size)),
            asked: brought.asked,
            _dropped: Payload::new("a stack's memory", brought.dropped),
        }
    }
}

// SAFETY: the memory is its own, and its size such that what scripts do fits.
unsafe impl StackMemory for Memory {
    fn top(&self) -> *mut u8 {
        call_back("a question for a stack's address", self.asked);
        self.bytes.cast::<u8>().wrapping_add(self.bytes.len())
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: from a box, which nobody else has.
        drop(unsafe { Box::from_raw(ptr::from_mut(&mut *self.bytes)) });
    }
}
