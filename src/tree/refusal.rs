//! Why a message is refused.

use crate::StackError;

/// Why nothing was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// The sender is not the one that runs.
    NotCurrent,
    /// The sender is being killed.
    Exiting,
    /// The thread is unwinding a panic.
    Unwinding,
    /// The target is dead and no live ancestor takes its messages.
    Dead,
    /// The receiver waits for another to finish, or for the end of a kill.
    Busy,
    /// The receiver could not be started.
    Stack(StackError),
}
