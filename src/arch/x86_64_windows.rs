//! What Windows' environment block of a thread says of the running stack. The words are a greenlet's
//! own: `asm/x86_64_windows.S` has where they lie, and who looks at them.

use core::{cell::Cell, mem::offset_of};

use static_assertions::const_assert_eq;

use super::{super::Registers, MoreRegisters, core_layout};
use crate::host::windows::{HANDLERS_ROOM, LEAST_GUARD, Room};

/// The words of one stack, apart from Wine's list of exceptions.
#[derive(Debug)]
#[repr(C)]
pub(super) struct StackWords {
    base: Cell<usize>,
    limit: Cell<usize>,
    deallocation: Cell<usize>,
    guaranteed: Cell<u32>,
}

const WORDS: usize = offset_of!(Registers, more) + offset_of!(MoreRegisters, stack);
const_assert_eq!(
    offset_of!(Registers, exception_list),
    core_layout::EXCEPTION_LIST
);
const_assert_eq!(
    WORDS + offset_of!(StackWords, base),
    core_layout::STACK_BASE
);
const_assert_eq!(
    WORDS + offset_of!(StackWords, limit),
    core_layout::STACK_LIMIT
);
const_assert_eq!(
    WORDS + offset_of!(StackWords, deallocation),
    core_layout::DEALLOCATION
);
const_assert_eq!(
    WORDS + offset_of!(StackWords, guaranteed),
    core_layout::GUARANTEED
);

impl StackWords {
    pub(super) const fn new() -> Self {
        Self {
            base: Cell::new(0),
            limit: Cell::new(0),
            deallocation: Cell::new(0),
            guaranteed: Cell::new(0),
        }
    }
}

impl Registers {
    /// Says where the stack lies that these are prepared for.
    pub(crate) fn set_room(&self, room: Room) {
        let (handlers, guard) = if room.has_guard {
            (HANDLERS_ROOM, LEAST_GUARD)
        } else {
            (0, 0)
        };
        let lowest = room.bottom.wrapping_sub(guard);
        // The end of the list, where Wine keeps one.
        self.exception_list.set(usize::MAX);
        let words = &self.more.stack;
        words.base.set(room.top.expose_provenance());
        words.limit.set(room.bottom.expose_provenance());
        words.deallocation.set(lowest.expose_provenance());
        words.guaranteed.set(handlers as u32);
    }
}
