//! What the types of a greenlet's messages and body decide.

use core::any::TypeId;

use super::{Block, Refusal, memory::SizeClass};
use crate::{Thrown, arch::Start};

/// The functions and facts that depend on a greenlet's types: one constant for each combination of
/// message types and body.
pub(crate) struct Kind {
    /// The inbox type, if the type is `'static` and so has an identity.
    pub(crate) inbox: fn() -> Option<TypeId>,
    /// The type that the body returns, if that is `'static`; `None` for a root.
    pub(crate) returns: fn() -> Option<TypeId>,
    /// The function at the bottom of the stack; `None` for a root, which has no stack of its own.
    pub(crate) start: Option<Start>,
    /// Drops the body of a greenlet that never starts.
    ///
    /// # Safety
    /// The block is of this kind. Its body is there, and is not used after this.
    pub(crate) drop_body: unsafe fn(&Block),
    /// Drops the value that the body has returned.
    ///
    /// # Safety
    /// The block is of this kind. Its value is there, and is not used after this.
    pub(crate) discard_value: unsafe fn(&Block),
    /// Makes an error of the value that the body has returned, because no receiver takes it for the
    /// given reason.
    ///
    /// # Safety
    /// As for `discard_value`.
    pub(crate) undeliverable_value: unsafe fn(&Block, Refusal) -> Thrown,
    /// The size class of the allocation that starts with the block.
    pub(super) size_class: SizeClass,
}
