//! Programs as data, and the events of a run.
//!
//! A program is a list of scripts, a script a list of operations. The main greenlet runs script 0; every
//! other body, closure or destructor runs one of the scripts. All indices are taken modulo the number of
//! elements, and an operation without an object does nothing. So every program is valid, and every part
//! of one.
//!
//! Handles lie in numbered slots that all scripts access. Greenlets, roots included, and payloads are
//! numbered in the order of their creation.

pub use crate::random::How;

/// The two types of message. One fits a register, the other does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    A,
    B,
}

/// What the body of a new greenlet owns besides its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Captured {
    Nothing,
    /// A destructor that enters and runs a script.
    Guard(u8),
    /// A destructor that panics, unless the thread is unwinding already.
    Bomb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create {
    pub inbox: Kind,
    pub script: u8,
    /// Made by `Greenlet::borrowing`.
    pub borrowing: bool,
    /// Its parent is set to the greenlet in this slot at once.
    pub under: Option<u8>,
    pub captured: Captured,
    /// With a stack that is larger than the address space.
    pub huge: bool,
    pub slot: u8,
}

/// One operation. `u8`s that name a greenlet count occupied slots, except `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create(Create),
    Switch(u8, How),
    /// A switch through the `Current` of the greenlet that has entered again.
    SwitchOutside(u8),
    ThrowError(u8, How),
    ThrowExit(u8, How),
    Kill(u8),
    /// Empties a slot and drops the handle.
    Drop(u8),
    /// Empties a slot and forgets the handle.
    Forget(u8),
    /// Moves a handle from its slot to the frame's locals.
    Hold(u8),
    /// Drops the local that was added last.
    DropLocal,
    Clone {
        from: u8,
        slot: u8,
    },
    /// Puts a handle to the running greenlet into a slot.
    Handle {
        slot: u8,
    },
    /// Puts a handle to the `which`-th greenlet into a slot, by way of a weak one.
    Upgrade {
        which: u8,
        slot: u8,
    },
    SetParent {
        child: u8,
        parent: u8,
    },
    Return,
    ReturnError,
    ReturnExit,
    Panic,
    /// Enters again, ending what is made there or not, and runs a script.
    Enter {
        inbox: Kind,
        scoped: bool,
        script: u8,
        slot: u8,
    },
    /// Adds a local whose destructor runs a script.
    Guard(u8),
    /// Adds a local whose destructor panics, unless the thread is unwinding already.
    Bomb,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub scripts: Vec<Vec<Op>>,
}

impl Program {
    pub fn script(&self, index: u8) -> usize {
        usize::from(index) % self.scripts.len()
    }
}

pub const SLOTS: usize = 6;
/// The most operations that a program may execute. Without fuel every script ends.
pub const FUEL: u32 = 60;
/// The most greenlets that a program may make.
pub const MAX_GREENLETS: usize = 12;
/// The most nested frames of a greenlet.
pub const MAX_DEPTH: u32 = 3;
/// The depth of the frame in which a captured guard runs.
pub const CAPTURED_DEPTH: u32 = 2;

pub type Id = usize;
pub type Payload = u32;

/// A refusal of a switch or throw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Dead,
    Busy,
    Stack,
    Unwinding,
    Exiting,
    NotCurrent,
}

/// What a switch or throw returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    Value(Payload),
    Exit,
    ChildExit,
    Error(Payload),
    /// An error that carries a value, or carried one.
    Undeliverable(Refused),
    /// An error that says why nothing was sent.
    Refusal(Refused),
    /// The `try_` form gave the message back.
    Returned(Refused),
    /// A panic, caught.
    Panic(Payload),
    /// The unwinding of rule s15, caught.
    Unwound,
}

/// How a frame ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Normally,
    WithError,
    Unwinding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    Dead,
    Itself,
    Later,
    Root,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewParent {
    Set,
    Cycle,
    WrongType,
    Root,
    /// The two belong to different `enter`s, which programs do not contain.
    Elsewhere,
}

/// The events of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A body starts.
    Start(Id, Payload),
    /// `who` is about to do the operation. The sets have one bit a greenlet: those that a weak
    /// handle still reaches, and of those in slots the active and the dead.
    Step {
        who: Id,
        op: Op,
        reachable: u128,
        active: u128,
        dead: u128,
    },
    Got(Id, Got),
    Kill(Id, Killed),
    NewParent(Id, NewParent),
    Enter(Id),
    /// The closure of a root has returned to its caller.
    Left(Id),
    /// The script of a scoped one has; the greenlets that are left are about to be killed.
    Ends(Id),
    /// A destructor runs its script.
    Guard(Id),
    GuardDone(Id, Ended),
    CapturedGuard,
    CapturedGuardDone(Ended),
    /// The panic hook is called.
    Hook(Payload),
    Born(Payload),
    Dropped(Payload),
    /// The main script has ended. All living greenlets are about to be killed.
    Epilogue(Ended),
    /// The program has ended. The set has the greenlets that weak handles still reach.
    End(u128),
}
