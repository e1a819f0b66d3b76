//! Sets the name, stack and guard of a new greenlet.

use alloc::boxed::Box;
use core::fmt;

#[cfg(feature = "std")]
use crate::stack::{DEFAULT_GUARD, DEFAULT_SIZE, Shape};
use crate::{
    BuildError, Child, Current, Greenlet, StackMemory, Thrown,
    stack::{Brought, Source},
    tree::{self, Settings},
};

/// Makes greenlets with a name or with a stack other than the default, like `std::thread::Builder`.
///
/// ```
/// use greenlet::{Builder, enter};
///
/// enter(|me| {
///     let parser = Builder::new()
///         .name("parser")
///         .stack_size(64 * 1024)
///         .build(me, |_, line: &'static str| Ok(line.len()))?;
///     assert_eq!(parser.name(), Some("parser"));
///     assert_eq!(me.switch(&parser, "four").unwrap(), 4);
///     Ok::<(), greenlet::BuildError>(())
/// })
/// # .unwrap();
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder makes nothing until `build`"]
pub struct Builder {
    name: Option<Box<str>>,
    stack: Wanted,
}

/// The stack that a builder asks for.
enum Wanted {
    #[cfg(not(feature = "std"))]
    Nothing,
    /// A stack from the thread's pool.
    #[cfg(feature = "std")]
    Pooled {
        /// Usable bytes of stack.
        size: usize,
        /// Bytes of guard below it.
        guard: usize,
    },
    /// Memory of the user.
    Own(Box<Brought<dyn StackMemory>>),
}

impl Default for Wanted {
    fn default() -> Self {
        #[cfg(feature = "std")]
        return Self::Pooled {
            size: DEFAULT_SIZE,
            guard: DEFAULT_GUARD,
        };
        #[cfg(not(feature = "std"))]
        return Self::Nothing;
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(not(feature = "std"))]
            Self::Nothing => f.write_str("none"),
            #[cfg(feature = "std")]
            Self::Pooled { size, guard } => write!(f, "{size} bytes over {guard} of guard"),
            Self::Own(_) => f.write_str("the user's own"),
        }
    }
}

impl Builder {
    /// The minimum size of a stack, in bytes. It has room for the crate's own frames and, with `std`, for a
    /// panic and the panic hook; not for the backtrace that the hook prints with `RUST_BACKTRACE=1`.
    pub const MIN_STACK_SIZE: usize = if cfg!(feature = "std") {
        16 * 1024
    } else {
        512
    };

    /// Returns a builder of greenlets without a name and with the default stack: 256 KiB on 64-bit and 64 KiB
    /// on 32-bit targets. The guard is one page, or 64 KiB where rustc does not probe large frames (32-bit arm,
    /// RISC-V). Without `std` there is no default: call [`stack`](Self::stack).
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name, which debuggers and messages show. [`build`](Self::build) checks it.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Usable bytes of stack, at least; rounded up as [`raw::Pool`](crate::raw::Pool) says. Memory is committed page by
    /// page when it is first used. Checked by [`build`](Self::build).
    ///
    /// Replaces a [`stack`](Self::stack) that was set.
    #[cfg(feature = "std")]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        *self.pooled().0 = bytes;
        self
    }

    /// Bytes of guard below the stack, rounded up to whole pages; at least one page.
    ///
    /// A frame larger than the guard can step over it and write into the stack below, if its code
    /// does not probe the stack. rustc's does on x86_64 and aarch64; C does only if it was compiled
    /// with `-fstack-clash-protection`. Where other C runs on the stack, 64 KiB are better than the
    /// default: they cost address space and page tables.
    ///
    /// Replaces a [`stack`](Self::stack) that was set.
    #[cfg(feature = "std")]
    pub fn guard_size(mut self, bytes: usize) -> Self {
        *self.pooled().1 = bytes.max(1);
        self
    }

    /// Sets memory of the user as the stack, in place of one from the pool.
    pub fn stack(mut self, memory: impl StackMemory + 'static) -> Self {
        self.stack = Wanted::Own(Brought::new(memory));
        self
    }

    /// Returns the size and guard of a stack from the pool.
    #[cfg(feature = "std")]
    fn pooled(&mut self) -> (&mut usize, &mut usize) {
        if let Wanted::Own(_) = self.stack {
            self.stack = Wanted::default();
        }
        match &mut self.stack {
            Wanted::Pooled { size, guard } => (size, guard),
            Wanted::Own(_) => unreachable!("just replaced by the default"),
        }
    }

    /// Makes a greenlet whose parent is `parent`, the running one. The first switch to it runs `body` with
    /// the message. What `body` returns goes to the parent.
    ///
    /// # Errors
    /// Returns a [`BuildError`] if the name contains a NUL, if the stack is too small, too large or missing,
    /// or if there is no memory for the greenlet. Then `body` and what was set are dropped. The stack is made
    /// at the first switch, which returns an error if there is no memory for it.
    pub fn build<'e, I: 'static, P: 'static>(
        self,
        parent: &Current<'e, P>,
        body: impl FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e,
    ) -> Result<Greenlet<'e, I>, BuildError> {
        let settings = self.checked_settings()?;
        Ok(Greenlet::of(tree::new_greenlet(parent, || settings, body)?))
    }

    /// Makes a greenlet as [`build`](Self::build) does, for messages that are not `'static`: references or
    /// handles. The crate cannot compare such types at run time (rules [s4](crate::guide::rules#s4),
    /// [s7](crate::guide::rules#s7), [s9](crate::guide::rules#s9)).
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_borrowing<'e, I: 'e, P: 'e>(
        self,
        parent: &Current<'e, P>,
        body: impl FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e,
    ) -> Result<Greenlet<'e, I>, BuildError> {
        let settings = self.checked_settings()?;
        let own = tree::new_borrowing_greenlet(parent, || settings, body)?;
        Ok(Greenlet::of(own))
    }

    /// Checks the settings. It is inlined so that a constant size makes a constant shape.
    #[inline]
    pub(crate) fn checked_settings(self) -> Result<Settings, BuildError> {
        let Self { name, stack } = self;
        if name.as_deref().is_some_and(|name| name.contains('\0')) {
            return Err(BuildError::NameContainsNul);
        }
        let (bytes, guard) = match &stack {
            #[cfg(feature = "std")]
            Wanted::Pooled { size, guard } => (*size, *guard),
            Wanted::Own(memory) => (memory.size(), 0),
            #[cfg(not(feature = "std"))]
            Wanted::Nothing => return Err(BuildError::NoStack),
        };
        if bytes < Self::MIN_STACK_SIZE {
            return Err(BuildError::StackTooSmall { bytes });
        }
        if bytes
            .checked_add(guard)
            .is_none_or(|total| total > isize::MAX as usize)
        {
            return Err(BuildError::StackTooLarge { bytes });
        }
        let source = match stack {
            #[cfg(feature = "std")]
            Wanted::Pooled { size, guard } => Source::Pool(
                Shape::of(size, guard, 0).map_err(|_| BuildError::StackTooLarge { bytes })?,
            ),
            Wanted::Own(memory) => Source::Own(memory),
            #[cfg(not(feature = "std"))]
            Wanted::Nothing => Source::Nothing,
        };
        Ok(Settings {
            name,
            stack: source.into(),
        })
    }
}
