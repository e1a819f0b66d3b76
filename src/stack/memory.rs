//! Where the stack of one greenlet comes from, before and after it has started.

use alloc::boxed::Box;
use core::{cell::Cell, fmt, mem::MaybeUninit};

use super::StackError;
#[cfg(feature = "std")]
use super::pool::{self, Lease};

/// Memory that a user brings for one greenlet to run on. Dropped when the greenlet is over, or
/// is dropped without having started.
///
/// A static array will do, as will any type that gives its memory back when dropped:
///
/// ```
/// use core::mem::MaybeUninit;
/// use greenlet::{Builder, enter};
///
/// # fn make() -> &'static mut [MaybeUninit<u8>] { Box::leak(Box::new_uninit_slice(65536)) }
/// let memory: &'static mut [MaybeUninit<u8>] = make();
/// # #[allow(unused_unsafe)]
/// # unsafe {
/// enter(|me| {
///     let greenlet = Builder::new().stack(memory).build(me, |_, n: u32| Ok(n + 1))?;
///     assert_eq!(me.switch(&greenlet, 1).unwrap(), 2);
///     Ok::<(), greenlet::BuildError>(())
/// })
/// # }.unwrap();
/// ```
///
/// # Safety
/// From [`top`](Self::top) down, [`size`](Self::size) bytes are valid for reads and writes and
/// are used by nobody else until the value is dropped. An overflow goes on below them: a guard
/// there is the implementor's to make.
pub unsafe trait StackMemory {
    /// The address just above the memory.
    fn top(&self) -> *mut u8;

    /// Bytes.
    fn size(&self) -> usize;
}

// SAFETY: the reference is the only one, for ever.
unsafe impl StackMemory for &'static mut [MaybeUninit<u8>] {
    fn top(&self) -> *mut u8 {
        self.as_ptr_range().end.cast_mut().cast()
    }

    fn size(&self) -> usize {
        self.len()
    }
}

/// What a greenlet's stack is to be.
pub(crate) enum Plan {
    /// From the thread's pool, at the first switch.
    #[cfg(feature = "std")]
    Pooled {
        /// Usable bytes of stack.
        size: usize,
        /// Bytes of guard below it.
        guard: usize,
    },
    /// None was given, and there is no pool.
    #[cfg(not(feature = "std"))]
    None,
    /// Memory that the user brought; taken at the first switch.
    Own(Own),
}

/// Memory that is taken once.
pub(crate) struct Own {
    memory: Cell<Option<Box<dyn StackMemory>>>,
    size: usize,
}

impl Own {
    /// Bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

/// Usable bytes of a pooled stack whose size nobody chose.
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

impl Default for Plan {
    fn default() -> Self {
        #[cfg(feature = "std")]
        return Self::Pooled {
            size: DEFAULT_SIZE,
            guard: DEFAULT_GUARD,
        };
        #[cfg(not(feature = "std"))]
        return Self::None;
    }
}

impl Plan {
    pub(crate) fn own(memory: Box<dyn StackMemory>) -> Self {
        Self::Own(Own {
            size: memory.size(),
            memory: Cell::new(Some(memory)),
        })
    }

    /// The stack itself, if it is the thread's spare one.
    #[inline]
    pub(crate) fn spare(&self) -> Option<Running> {
        match self {
            #[cfg(feature = "std")]
            &Self::Pooled { size, guard } => pool::take_spare(size, guard).map(Running::Pooled),
            _ => None,
        }
    }

    /// The stack itself.
    pub(crate) fn realize(&self) -> Result<Running, StackError> {
        match self {
            #[cfg(feature = "std")]
            &Self::Pooled { size, guard } => pool::acquire(size, guard).map(Running::Pooled),
            #[cfg(not(feature = "std"))]
            Self::None => unreachable!("a builder refuses to build without a stack"),
            Self::Own(own) => Ok(Running::Own(
                own.memory.take().expect("a greenlet starts once"),
            )),
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "std")]
            Self::Pooled { size, guard } => write!(f, "{size} bytes over {guard} of guard"),
            #[cfg(not(feature = "std"))]
            Self::None => f.write_str("none"),
            Self::Own(_) => f.write_str("the user's own"),
        }
    }
}

/// The stack of a greenlet that has started.
pub(crate) enum Running {
    #[cfg(feature = "std")]
    Pooled(Lease),
    Own(Box<dyn StackMemory>),
}

impl Running {
    /// The address just above the stack.
    #[inline]
    pub(crate) fn top(&self) -> *mut u8 {
        match self {
            #[cfg(feature = "std")]
            Self::Pooled(lease) => lease.top(),
            Self::Own(memory) => memory.top(),
        }
    }

    /// The lowest address of the guard, if it has one; the lowest usable one; the one just
    /// above the stack.
    #[cfg(feature = "std")]
    pub(crate) fn limits(&self) -> [*mut u8; 3] {
        match self {
            Self::Pooled(lease) => lease.limits(),
            Self::Own(memory) => {
                let bottom = memory.top().wrapping_sub(memory.size());
                [bottom, bottom, memory.top()]
            }
        }
    }

    /// Gives the stack back; nothing runs on it any more.
    #[inline]
    pub(crate) fn give_back(self) {
        match self {
            #[cfg(feature = "std")]
            Self::Pooled(lease) => lease.give_back(),
            Self::Own(memory) => crate::host::contain(|| drop(memory)),
        }
    }

    /// Gives back the stack on which the caller runs. Returns it if its memory is to be given
    /// back as well.
    ///
    /// # Safety
    /// The caller leaves the stack for ever before anybody asks for one.
    #[inline]
    pub(crate) unsafe fn give_back_early(self) -> Result<(), Self> {
        match self {
            #[cfg(feature = "std")]
            // SAFETY: the caller's word.
            Self::Pooled(lease) => unsafe { lease.give_back_early() }.map_err(Self::Pooled),
            Self::Own(_) => Err(self),
        }
    }
}
