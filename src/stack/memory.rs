//! The stack of one greenlet: before it has started where the stack is to come from, afterwards the
//! stack itself.

use alloc::boxed::Box;
#[cfg(feature = "std")]
use core::sync::atomic;
use core::{cell::UnsafeCell, ptr};

use super::StackError;
#[cfg(feature = "std")]
use super::{
    StackLimits,
    local_pool::{self, Lease},
    shape::Shape,
};
#[cfg(all(windows, feature = "std"))]
use crate::host::windows::LEAST_GUARD;
#[cfg(windows)]
use crate::host::windows::Room;

/// Memory that a user provides as the stack of one greenlet. It is dropped when the greenlet finishes.
///
/// [`Builder::stack`](crate::Builder::stack) calls the methods once, after the value was moved to where it stays.
///
/// [`UnguardedStack`](crate::UnguardedStack) implements it for a static array. Other types give their memory back
/// when they are dropped:
///
/// ```
/// use greenlet::{Builder, StackMemory, enter, raw};
///
/// /// A mapping of its own, which no other greenlet has used.
/// struct Mapped(raw::Stack);
///
/// // SAFETY: the mapping is this value's alone, and has a guard.
/// unsafe impl StackMemory for Mapped {
///     fn top(&self) -> *mut u8 {
///         self.0.top()
///     }
///
///     fn size(&self) -> usize {
///         self.0.size()
///     }
/// }
///
/// let stack = Mapped(raw::Stack::map(64 * 1024, 4096)?);
/// enter(|me| {
///     let greenlet = Builder::new().stack(stack).build(me, |_, n: u32| Ok(n + 1)).unwrap();
///     assert_eq!(me.switch(&greenlet, 1).unwrap(), 2);
/// });
/// # Ok::<(), greenlet::StackError>(())
/// ```
///
/// # Safety
/// The [`size`](Self::size) bytes below [`top`](Self::top) are valid for reads and writes, and nothing else uses
/// them until the value is dropped. An overflow faults in a guard below them; or making the value is `unsafe`, with
/// the promise that no overflow happens, like [`UnguardedStack::new`](crate::UnguardedStack::new).
pub unsafe trait StackMemory {
    /// Returns the address just above the memory. The stack is written through this pointer, so it must not be
    /// derived from a shared reference without an [`UnsafeCell`](core::cell::UnsafeCell) or a raw pointer in
    /// between.
    fn top(&self) -> *mut u8;

    /// Returns the size in bytes.
    fn size(&self) -> usize;
}

/// The stack of one greenlet, or what was asked for.
///
/// # Invariants
/// While the greenlet is new, it holds what was asked for. Then it holds the stack, until the greenlet is dead and
/// has left the stack. After that it holds nothing.
pub(crate) struct Supply(UnsafeCell<Source>);

pub(crate) enum Source {
    /// No stack was given, or it has been given back.
    Nothing,
    /// A stack of this shape from the thread's pool, to be taken at the first switch.
    #[cfg(feature = "std")]
    Pool(Shape),
    /// A stack taken from the pool.
    #[cfg(feature = "std")]
    Lease(Lease),
    /// Memory of the user.
    Own(Box<Brought<dyn StackMemory>>),
}

/// Memory of the user, and what its methods have returned. So no code of the user runs when a greenlet starts, or
/// when a signal handler asks where its stack lies.
pub(crate) struct Brought<M: ?Sized> {
    bottom: *mut u8,
    top: *mut u8,
    /// Kept for its destructor.
    _memory: M,
}

impl<M: StackMemory> Brought<M> {
    pub(crate) fn new(memory: M) -> Box<Self> {
        // Where its memory lies may depend on where the value does.
        let mut brought = Box::new(Self {
            bottom: ptr::null_mut(),
            top: ptr::null_mut(),
            _memory: memory,
        });
        brought.top = brought._memory.top();
        brought.bottom = brought.top.wrapping_sub(brought._memory.size());
        brought
    }
}

impl<M: ?Sized> Brought<M> {
    /// Returns the size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.top.addr().wrapping_sub(self.bottom.addr())
    }
}

/// Usable bytes of a pooled stack of the default size.
#[cfg(feature = "std")]
pub(crate) const DEFAULT_SIZE: usize = if usize::BITS >= 64 {
    256 * 1024
} else {
    64 * 1024
};

/// Bytes of guard below a pooled stack. Where rustc probes the pages of a large frame one page
/// is enough. Elsewhere a frame could step over a page, so the guard is larger; it is address
/// space only.
#[cfg(feature = "std")]
pub(crate) const DEFAULT_GUARD: usize = if crate::arch::STACK_PROBES {
    4096
} else {
    64 * 1024
};

#[cfg(feature = "std")]
const DEFAULT_SHAPE: Shape = match Shape::of(DEFAULT_SIZE, DEFAULT_GUARD, 0) {
    Ok(shape) => shape,
    Err(_) => panic!("a few hundred kilobytes"),
};

impl Default for Source {
    fn default() -> Self {
        #[cfg(feature = "std")]
        return Self::Pool(DEFAULT_SHAPE);
        #[cfg(not(feature = "std"))]
        return Self::Nothing;
    }
}

impl Default for Supply {
    fn default() -> Self {
        Source::default().into()
    }
}

impl From<Source> for Supply {
    fn from(source: Source) -> Self {
        Self(UnsafeCell::new(source))
    }
}

impl Supply {
    fn source(&self) -> &Source {
        // SAFETY: it is written in `put` and `give_back` only, whose callers use no such reference
        // any more.
        unsafe { &*self.0.get() }
    }

    /// # Safety
    /// What is there owns nothing that is still to be dropped, and no reference to it is used any
    /// more.
    #[cfg(feature = "std")]
    unsafe fn put(&self, source: Source) {
        // SAFETY: no reference to it is used any more (contract).
        unsafe { self.0.get().write(source) };
    }

    /// Returns `true` if there is nothing to give back.
    pub(crate) fn owns_nothing(&self) -> bool {
        match self.source() {
            Source::Nothing => true,
            #[cfg(feature = "std")]
            Source::Pool(_) => true,
            _ => false,
        }
    }

    /// Makes a stack of what was asked for, for a greenlet that starts; returns the address just
    /// above it.
    #[inline(always)]
    pub(crate) fn realize(&self) -> Result<*mut u8, StackError> {
        match self.source() {
            #[cfg(feature = "std")]
            &Source::Pool(shape) => {
                let lease = match local_pool::take_spare(shape) {
                    Some(lease) => lease,
                    None => local_pool::acquire(shape)?,
                };
                let top = lease.top();
                // SAFETY: a number was there, and it has been copied.
                unsafe { self.put(Source::Lease(lease)) };
                // The state that tells a signal handler that there is a stack comes after it.
                atomic::compiler_fence(atomic::Ordering::Release);
                Ok(top)
            }
            Source::Own(memory) => Ok(memory.top),
            _ => unreachable!("a builder refuses to build without a stack"),
        }
    }

    /// Where the stack lies; `None` if there is none. A user's own has no guard that is known.
    #[cfg(feature = "std")]
    pub(crate) fn limits(&self) -> Option<StackLimits> {
        match self.source() {
            Source::Nothing | Source::Pool(_) => None,
            Source::Lease(lease) => Some(lease.limits()),
            Source::Own(memory) => Some(StackLimits::new(memory.bottom, memory.bottom, memory.top)),
        }
    }

    /// Where the stack lies whose top [`realize`](Self::realize) has returned.
    #[cfg(windows)]
    pub(crate) fn room(&self, top: *mut u8) -> Room {
        match self.source() {
            #[cfg(feature = "std")]
            Source::Lease(lease) => {
                let limits = lease.limits();
                Room {
                    bottom: limits.bottom(),
                    top,
                    has_guard: limits.guard_size() >= LEAST_GUARD,
                }
            }
            _ => Room::below(top),
        }
    }

    /// Gives back what there is, the greenlet being dead; nothing runs on it any more. A panic of
    /// the user's destructor is discarded after the panic hook has spoken.
    pub(crate) fn give_back(&self) {
        // SAFETY: references to it are used within this file, and nothing in it calls this.
        match unsafe { self.0.get().replace(Source::Nothing) } {
            #[cfg(feature = "std")]
            Source::Lease(lease) => lease.give_back(),
            source => crate::host::contain(|| drop(source)),
        }
    }

    /// Gives back the stack on which the caller runs, if that takes but a few instructions.
    /// Returns whether it did.
    ///
    /// # Safety
    /// The caller leaves the stack for ever before anybody asks for one.
    #[inline(always)]
    pub(crate) unsafe fn give_back_early(&self) -> bool {
        #[cfg(feature = "std")]
        if let Source::Lease(lease) = self.source() {
            // SAFETY: the caller leaves the stack before anything asks for one (contract). If `become_spare`
            // has given the stack back, `put` replaces the lease without dropping it.
            unsafe {
                if lease.become_spare() {
                    self.put(Source::Nothing);
                    return true;
                }
            }
        }
        false
    }
}
