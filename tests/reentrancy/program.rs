//! Programs as data.
//!
//! A program is a list of scripts, a script a list of steps. Script 0 is what main greenlets run;
//! every other body, and everything else that the crate calls, runs one of the scripts. All indices
//! are taken modulo what there is, and a step that finds nothing to act on does nothing, so every
//! program is valid, also every part of one.
//!
//! Handles lie in numbered slots that everybody reaches.

#![cfg_attr(
    not(feature = "trace"),
    allow(dead_code, reason = "nobody reads what a tracer is to do")
)]

pub use crate::random::How;

/// The two types of message. They differ in size, so that one travels in a register and the
/// other does not.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    A,
    B,
}

/// What something does when it is dropped.
#[derive(Clone, Copy, Debug)]
pub enum AtDrop {
    Nothing,
    /// Runs a script.
    Run(u8),
    /// Panics, unless the thread is unwinding already.
    Panic,
    /// Drops a handle, which it takes out of a slot when it is made.
    Release(u8),
}

/// What becomes of the handle of a new greenlet.
#[derive(Clone, Copy, Debug)]
pub enum First {
    /// It is switched to.
    Start,
    /// Put into a slot. One that belongs to an `enter` is forgotten.
    Keep,
    Drop,
}

/// Memory that is brought for a stack.
#[derive(Clone, Copy, Debug)]
pub struct Brought {
    /// The script that runs when its address is asked for.
    pub asked: u8,
    pub dropped: AtDrop,
}

#[derive(Clone, Copy, Debug)]
pub struct Create {
    pub inbox: Kind,
    pub script: u8,
    /// Made as one whose messages borrow.
    pub borrowing: bool,
    /// The body owns so much that the greenlet's memory, when it is free, goes back to the
    /// allocator, for tools to watch.
    pub large: bool,
    pub stack: Option<Brought>,
    /// Of what the body owns.
    pub captured: AtDrop,
    /// Of the value that the body returns.
    pub returned: AtDrop,
    pub first: First,
    pub slot: u8,
}

#[derive(Clone, Copy, Debug)]
pub struct Generate {
    /// Of what it yields. It takes the other.
    pub item: Kind,
    pub script: u8,
    /// Of what the function owns.
    pub captured: AtDrop,
    pub slot: u8,
}

#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// What each of the first calls runs.
    pub script: u8,
    pub calls: u8,
    /// They remove the tracer.
    pub removes: bool,
    pub panics: bool,
    /// Of what the tracer owns.
    pub dropped: AtDrop,
}

/// `u8`s that name a greenlet count occupied slots, except `slot`.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Create(Create),
    Switch(u8, AtDrop, How),
    /// An error of the user's, or an exit.
    Throw(u8, Option<AtDrop>, How),
    Kill(u8),
    /// Empties a slot and drops the handle.
    Drop(u8),
    /// Empties all slots, one after the other, and drops the handles, having killed the greenlet
    /// or not.
    DropAll {
        kill: bool,
    },
    /// Empties a slot and forgets the handle.
    Forget(u8),
    /// Moves a handle from its slot to the frame's locals.
    Hold(u8),
    /// Adds a local.
    Own(AtDrop),
    /// Drops the local that was added last.
    DropLocal,
    /// Puts a handle to the greenlet that acts into a slot.
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
    ReturnError(AtDrop),
    ReturnExit,
    Panic(AtDrop),
    /// Makes a generator and puts it into a slot of its own kind; one that belongs to an `enter`, among
    /// the frame's locals.
    Generate(Generate),
    /// Resumes a generator: the frame's newest, or one in a slot.
    Resume(u8, AtDrop, How),
    /// Sends to the parent; in the function of a generator, gives an item.
    Give(AtDrop, How),
    /// Drops a generator that is in a slot.
    DropGenerator(u8),
    /// Enters again and runs a script.
    Enter(Kind, u8),
    /// Runs a script in a second root of the same `enter`.
    Inbox(Kind, u8),
    /// Enters, runs a script, and ends what it has made.
    Scope(u8),
    /// Adds to a value that is the greenlet's own, made by running a script if there is none, and
    /// runs another one while the value is in use.
    Local {
        initial: u8,
        script: u8,
        added: AtDrop,
    },
    /// Sets or removes the tracer.
    Trace(Option<Trace>),
    /// Looks at all greenlets.
    Snapshot,
    /// Looks at one.
    Look(u8),
}

#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub op: Op,
    /// Acts through the `Current` of the greenlet that has entered again, if one has.
    pub through_outer: bool,
}

/// How a thread ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// All greenlets are killed before.
    Alone,
    /// Slots and tracer are left to the destructors of thread-locals, with fuel for what they run.
    WithGreenlets { fuel: u32 },
}

#[derive(Clone, Debug)]
pub struct Program {
    pub scripts: Vec<Vec<Step>>,
    /// Main greenlets, one after the other.
    pub mains: u8,
    /// Slots that are emptied outside every greenlet, after each.
    pub dropped_outside: u8,
    /// Are the slots older than the crate's thread-locals, and so dropped after them?
    pub slots_first: bool,
    pub end: End,
}

pub const SLOTS: usize = 6;
pub const GENERATOR_SLOTS: usize = 3;
/// Steps that a program may take. With no fuel left every script is at its end.
pub const FUEL: u32 = 120;
/// Greenlets that a program may make.
pub const MAX_GREENLETS: u32 = 24;
/// Frames that a greenlet may have inside one another.
pub const MAX_DEPTH: u32 = 3;
/// Calls by the crate that may be inside one another.
pub const MAX_NESTED: u32 = 8;
