//! Errors: why a switch, a kill, a build or a change of parent was refused.

use core::{error::Error, fmt};

use crate::{
    StackError,
    tree::{OutOfMemory, Refusal},
};

/// Why nothing was sent, with the message.
///
/// ```
/// use greenlet::{Greenlet, SwitchError, enter};
///
/// enter(|me| {
///     let over = Greenlet::new(me, |_, ()| Ok(()));
///     me.switch(&over, ())?;
///     let answering = Greenlet::new(me, |_, text: String| { drop(text); Ok(()) });
///     me.switch(&answering, "first".to_string())?;
///     match me.try_switch(&answering, "second".to_string()) {
///         Err(SwitchError::Dead(text)) => assert_eq!(text, "second"),
///         _ => unreachable!(),
///     }
///     Ok::<(), greenlet::Thrown>(())
/// })
/// # .unwrap();
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwitchError<M> {
    /// The target is dead, and its first live ancestor has another inbox type (rule
    /// [s9](crate::guide::rules#s9)).
    Dead(M),
    /// The target waits: inside a nested `enter` (rule [s2](crate::guide::rules#s2)), for a greenlet that it
    /// kills, or for a generator or future that it has resumed. Or a kill is in progress and the target is older
    /// than the kill (rule [s15](crate::guide::rules#s15)). Retry when the wait or the kill has ended.
    Busy(M),
    /// There is no memory for the stack of a new target. The target stays new; retry when there is memory (rule
    /// [s5](crate::guide::rules#s5)).
    Stack(M, StackError),
    /// The thread unwinds a panic, which other greenlets must not see (rule
    /// [s19](crate::guide::rules#s19)). Kills are allowed.
    Unwinding(M),
    /// The running greenlet is being killed and can no longer switch (rule
    /// [s15](crate::guide::rules#s15)). Return from the body.
    Exiting(M),
    /// The [`Current`](crate::Current) is not that of the running greenlet: a scoped thread-local or the like has
    /// carried it into another greenlet, or code uses the outer one inside a nested `enter`.
    NotCurrent(M),
}

impl<M> SwitchError<M> {
    pub(crate) fn new(refusal: Refusal, message: M) -> Self {
        match refusal {
            Refusal::Dead => Self::Dead(message),
            Refusal::Busy => Self::Busy(message),
            Refusal::Stack(error) => Self::Stack(message, error),
            Refusal::Unwinding => Self::Unwinding(message),
            Refusal::Exiting => Self::Exiting(message),
            Refusal::NotCurrent => Self::NotCurrent(message),
        }
    }

    /// Returns the message that was not sent.
    pub fn into_message(self) -> M {
        match self {
            Self::Dead(message)
            | Self::Busy(message)
            | Self::Stack(message, _)
            | Self::Unwinding(message)
            | Self::Exiting(message)
            | Self::NotCurrent(message) => message,
        }
    }

    /// Returns the refusal with `change` applied to the message.
    pub fn map<N>(self, change: impl FnOnce(M) -> N) -> SwitchError<N> {
        match self {
            Self::Dead(message) => SwitchError::Dead(change(message)),
            Self::Busy(message) => SwitchError::Busy(change(message)),
            Self::Stack(message, error) => SwitchError::Stack(change(message), error),
            Self::Unwinding(message) => SwitchError::Unwinding(change(message)),
            Self::Exiting(message) => SwitchError::Exiting(change(message)),
            Self::NotCurrent(message) => SwitchError::NotCurrent(change(message)),
        }
    }
}

impl<M> fmt::Display for SwitchError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead(_) => "cannot switch: the greenlet is dead",
            Self::Busy(_) => "cannot switch: the greenlet must wait for another one to finish",
            Self::Stack(_, error) => return error.fmt(f),
            Self::Unwinding(_) => "cannot switch while the thread is unwinding a panic",
            Self::Exiting(_) => "cannot switch: this greenlet is being killed",
            Self::NotCurrent(_) => "cannot switch: the caller is not the running greenlet",
        })
    }
}

impl<M> fmt::Debug for SwitchError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead(_) => "Dead(..)",
            Self::Busy(_) => "Busy(..)",
            Self::Stack(_, error) => return write!(f, "Stack(.., {error:?})"),
            Self::Unwinding(_) => "Unwinding(..)",
            Self::Exiting(_) => "Exiting(..)",
            Self::NotCurrent(_) => "NotCurrent(..)",
        })
    }
}

/// Has no source: the text of a [`StackError`] is part of its own.
impl<M> Error for SwitchError<M> {}

/// Why a greenlet is not dead when [`kill`](crate::Current::kill) returns.
///
/// ```
/// use greenlet::{Greenlet, KillError, Root, enter};
///
/// enter(|me: &Root<()>| {
///     assert_eq!(me.kill(&me.handle()), Err(KillError::Root));
///     let child = Greenlet::new(me, |me, ()| {
///         assert_eq!(me.kill(&me.handle()), Err(KillError::Itself));
///         Ok(())
///     });
///     me.switch(&child, ())
/// })
/// # .unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KillError {
    /// The target is the running greenlet itself. It is being killed: return from the body.
    Itself,
    /// The target is being killed but cannot be dead yet; its next switch fails. Either it waits for the caller,
    /// which runs inside a nested `enter` on its stack (rule [s2](crate::guide::rules#s2)) and is being killed as
    /// well; or it has killed the caller while it was dying; or another greenlet is already killing it.
    Later,
    /// The target is a main greenlet or another root, which ends when its closure returns. Nothing was done.
    Root,
}

impl fmt::Display for KillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Itself => "a greenlet that kills itself goes on until its body returns",
            Self::Later => "the greenlet is being killed, but cannot finish before its killer does",
            Self::Root => "a main greenlet cannot be killed",
        })
    }
}

impl Error for KillError {}

/// Why no greenlet was made. Its body and its settings were dropped.
///
/// ```
/// use greenlet::{BuildError, Builder, Root, enter};
///
/// enter(|me: &Root<()>| {
///     let refused = Builder::new().stack_size(100).build(me, |_, ()| Ok(()));
///     assert_eq!(refused.unwrap_err(), BuildError::StackTooSmall { bytes: 100 });
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The name contains a NUL, which debuggers and C libraries cannot show.
    NameContainsNul,
    /// The stack is smaller than [`Builder::MIN_STACK_SIZE`](crate::Builder::MIN_STACK_SIZE).
    StackTooSmall {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The allocator has no memory for the greenlet itself.
    OutOfMemory,
    /// The builder has no stack, and without `std` there is no default.
    NoStack,
    /// Stack and guard together are larger than an address space.
    StackTooLarge {
        /// Bytes asked for, without the guard.
        bytes: usize,
    },
}

impl From<OutOfMemory> for BuildError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameContainsNul => f.write_str("a greenlet's name cannot contain a NUL"),
            Self::NoStack => f.write_str("a greenlet needs memory for its stack"),
            Self::OutOfMemory => f.write_str("no memory is left for a greenlet"),
            Self::StackTooSmall { bytes } => {
                write!(f, "a stack of {bytes} bytes is too small for a greenlet")
            }
            Self::StackTooLarge { bytes } => {
                write!(
                    f,
                    "a stack of {bytes} bytes is larger than any address space"
                )
            }
        }
    }
}

impl Error for BuildError {}

/// Why the parent was not changed.
///
/// ```
/// use greenlet::{Greenlet, ParentError, Root, enter};
///
/// enter(|me: &Root<()>| {
///     let (one, two) = (Greenlet::new(me, |_, ()| Ok(())), Greenlet::new(me, |_, ()| Ok(())));
///     two.set_parent(&one).unwrap();
///     assert_eq!(one.set_parent(&two), Err(ParentError::Cycle));
///     assert_eq!(me.handle().set_parent(&one), Err(ParentError::Root));
///     // It does not receive what the body returns.
///     let text = Greenlet::new(me, |_, _: String| Ok(()));
///     assert_eq!(two.set_parent(&text), Err(ParentError::WrongType));
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParentError {
    /// The new parent is the greenlet itself, or descends from it or from a live root on its stack (rule
    /// [s2](crate::guide::rules#s2)). A backtrace would never end.
    Cycle,
    /// The new parent's inbox type is not what the greenlet's body returns. Or the greenlet was made by
    /// `Greenlet::borrowing`: types that borrow cannot be compared.
    WrongType,
    /// The greenlet is a main greenlet or another root, which has no parent.
    Root,
}

impl fmt::Display for ParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cycle => "a greenlet cannot be its own ancestor",
            Self::WrongType => "the new parent does not receive what the greenlet returns",
            Self::Root => "a main greenlet has no parent",
        })
    }
}

impl Error for ParentError {}
