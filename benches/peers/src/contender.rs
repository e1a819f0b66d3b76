//! What is asked of every contender.

use std::{fmt::Display, io, process::Command, time::Duration};

use crate::{mxcsr::Status, population::Watch};

/// Usable bytes of every stack: far more than any workload needs, and the same for all.
pub const STACK_SIZE: usize = 64 * 1024;

/// How long the operations took that were asked for, without what prepares and ends them.
pub type Outcome = Result<Duration, Skip>;

/// Why there is no figure.
#[derive(Clone, Debug)]
pub enum Skip {
    /// The contender has no such operation.
    NotOffered,
    /// It has, but not here or not so many.
    Because(String),
}

impl Skip {
    pub fn because(reason: impl Display) -> Self {
        Self::Because(reason.to_string())
    }
}

impl From<io::Error> for Skip {
    fn from(error: io::Error) -> Self {
        Self::because(error)
    }
}

/// One library, or one way of using it. Each method prepares what it needs, measures `ops`
/// operations of one workload, and takes everything down again.
pub trait Contender {
    fn name(&self) -> &'static str;

    /// Round trips: a number goes there and comes back. Once everything is suspended, the main
    /// side's MXCSR gets `status`.
    fn flat(&self, _ops: u64, _status: Status) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Round trips of a message of 256 bytes.
    fn message(&self, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Round trips to one that switches `frames` frames deep and returns through all of them
    /// every time. The main side switches in its loop.
    fn deep(&self, _frames: usize, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// The same with as many frames on the main side.
    fn deep_on_both(&self, _frames: usize, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Hops from each of `size` to the next, through a resumer where it must be.
    fn ring(&self, _size: usize, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Round trips to all of as many as `order` is long, in that order, `passes` times over. Each
    /// switches `frames` frames below its loop, as in [`deep`](Self::deep).
    fn round_robin(&self, _order: &[usize], _frames: usize, _passes: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Lives: create, run, finish, on a stack that was used before.
    fn pooled(&self, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Lives on stacks that come from the system and go back to it.
    fn fresh(&self, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Deaths of suspended ones with `frames` frames that own something to be dropped.
    fn kill(&self, _frames: usize, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// An error goes to a suspended one, which handles it and answers. Where none can be thrown,
    /// it is sent: a message is a number or an error.
    fn throw(&self, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Lives that end by a panic (or exception), which the other side catches.
    fn panic(&self, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Makes a thread's own stack a place to switch from, and ends that.
    fn enter(&self, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Items of an endless iterator that runs on a stack of its own.
    fn item(&self, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Polls of a future whose function waits `frames` frames deep, and stays there: what it waits for
    /// is never ready.
    fn poll(&self, _frames: usize, _ops: u64) -> Outcome {
        Err(Skip::NotOffered)
    }

    /// Creates and enters `count`, and while all of them are suspended reports how long that
    /// took. Returns only if it could not.
    fn populate(&self, _count: usize, _watch: &Watch) -> Skip {
        Skip::NotOffered
    }

    /// The process that does `populate`, if it is not this program.
    fn population_command(&self, _count: usize) -> Option<Command> {
        None
    }
}
