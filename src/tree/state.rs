//! The states of a greenlet (rule s5), as a block keeps them and as a user sees them.

use core::fmt;

/// The state that a block keeps. (`greenlet-gdb.py` knows the states by their numbers.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Not started: it has a body and no stack.
    New,
    /// Started: running if it is the thread's current one, else suspended in a switch.
    Active,
    /// Started, and waiting for another greenlet: until that finishes (`waits_for`), or until a
    /// generator or future that it has resumed gives control back (`coroutine/resumer.rs`). No other
    /// greenlet may switch to it.
    Busy,
    /// Finished. It has no stack, and its state never changes again.
    Dead,
}

/// The state of a greenlet (rule [s5](crate::guide::rules#s5)). `Display` prints it in the words of
/// greenlet's `repr`.
///
/// ```
/// use greenlet::{Greenlet, Status, enter};
///
/// enter(|me| {
///     let child = Greenlet::new(me, |me, ()| me.switch_to_parent(()));
///     assert_eq!(child.status(), Status::New);
///     me.switch(&child, ()).unwrap();
///     assert_eq!(child.status(), Status::Suspended);
///     me.switch(&child, ()).unwrap();
///     assert_eq!(child.status(), Status::Dead);
///     assert_eq!(me.handle().status().to_string(), "current active started");
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// It has not started.
    New,
    /// It runs.
    Running,
    /// It waits in a switch of its own, and resumes when another greenlet switches to it.
    Suspended,
    /// It waits for another greenlet to finish: it has entered again (rule s2), or kills somebody. Or
    /// it waits for a generator or future that it has resumed.
    Busy,
    /// It has finished.
    Dead,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "pending",
            Self::Running => "current active started",
            Self::Suspended => "suspended active started",
            Self::Busy => "busy active started",
            Self::Dead => "dead",
        })
    }
}
