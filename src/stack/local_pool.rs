//! The pool of the running thread, from which the tree takes its stacks.
//!
//! It is a thread-local without a destructor, so it can be used as long as code runs on the thread. When
//! the thread ends, the destructor of another one ([`AtEnd`]) unmaps idle stacks; from then on none is
//! kept. A stack that is never given back (rule s21) keeps the slabs of its size.

use core::{
    cell::{Cell, RefCell},
    mem::ManuallyDrop,
    ptr::NonNull,
};

use super::{Pool, PooledStack, StackError, StackLimits, shape::Shape};
use crate::host::per_thread;

/// How many idle stacks a thread keeps with their pages, unless [`set_idle_stacks`] says
/// otherwise.
const DEFAULT_IDLE: usize = 256;

struct Local {
    /// The stack that was given back last, if it is not in use again. The pool counts it as in
    /// use: where one greenlet ends before the next begins, it goes from one to the other in a few
    /// instructions.
    spare: Spare,
    pool: RefCell<ManuallyDrop<Pool>>,
    /// The spare stack is one of these.
    idle: Cell<usize>,
    is_ending: Cell<bool>,
}

/// A stack or none. In two words with another between them: a stack that has just been stored in two is
/// then not loaded as one, for which the processor would wait until both are in the cache.
#[repr(C)]
struct Spare {
    top: Cell<NonNull<u8>>,
    _between: usize,
    /// `None` if there is no stack, and then `top` says nothing; [`Shape::NONE`] if there is to be none.
    shape: Cell<Option<Shape>>,
}

impl Spare {
    const fn none() -> Self {
        Self {
            top: Cell::new(NonNull::dangling()),
            _between: 0,
            shape: Cell::new(None),
        }
    }

    #[inline(always)]
    fn is_none(&self) -> bool {
        self.shape.get().is_none()
    }

    /// Takes the stack if it has that shape.
    #[inline(always)]
    fn take_of(&self, shape: Shape) -> Option<Lease> {
        if self.shape.get() != Some(shape) {
            return None;
        }
        self.shape.set(None);
        Some(Lease(PooledStack::from_parts(self.top.get(), shape)))
    }

    fn take(&self) -> Option<Lease> {
        match self.shape.get() {
            Some(shape) if shape != Shape::NONE => self.take_of(shape),
            _ => None,
        }
    }

    #[inline(always)]
    fn set(&self, stack: &PooledStack) {
        let (top, shape) = stack.parts();
        self.shape.set(Some(shape));
        self.top.set(top);
    }

    /// There will be none, or may be one.
    fn set_closed(&self, is_closed: bool) {
        debug_assert!(self.take().is_none());
        self.shape.set(is_closed.then_some(Shape::NONE));
    }
}

per_thread! {
    static LOCAL: Local = Local {
        pool: RefCell::new(ManuallyDrop::new(Pool::new())),
        spare: Spare::none(),
        idle: Cell::new(DEFAULT_IDLE),
        is_ending: Cell::new(false),
    };
    static AT_END: AtEnd = AtEnd;
}

struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        LOCAL.with(Local::end);
    }
}

impl Local {
    /// Unmaps what is idle. From now on nothing is kept.
    fn end(&self) {
        self.is_ending.set(true);
        self.set_idle(0);
        self.pool.borrow_mut().release_idle();
    }

    fn set_idle(&self, count: usize) {
        self.idle.set(count);
        self.put_spare_into_pool();
        self.spare.set_closed(count == 0);
        self.pool.borrow_mut().keep_warm(count.saturating_sub(1));
    }

    /// Gives the spare stack back to the pool, and returns whether there was one.
    fn put_spare_into_pool(&self) -> bool {
        let spare = self.spare.take();
        let is_some = spare.is_some();
        if let Some(spare) = spare {
            self.put(spare);
        }
        is_some
    }

    #[inline(never)]
    fn put(&self, Lease(stack): Lease) {
        let mut pool = self.pool.borrow_mut();
        // SAFETY: a lease is of the pool of its thread, which it does not leave, and who gives it
        // back says that nothing runs there any more.
        unsafe { pool.give_back(stack) };
        if self.is_ending.get() {
            pool.release_idle();
        }
    }

    fn acquire(&self, shape: Shape) -> Result<Lease, StackError> {
        if AT_END.try_with(|_| ()).is_err() && !self.is_ending.get() {
            self.end();
        }
        let take = || match self.pool.try_borrow_mut() {
            Ok(mut pool) => pool.take_shaped(shape),
            // The pool has called the allocator, and the allocator asks for a stack.
            Err(_) => Err(StackError::OutOfMemory),
        };
        let stack = match take() {
            Err(StackError::Map { .. } | StackError::Guard { .. })
                if self.put_spare_into_pool() =>
            {
                take()
            }
            result => result,
        };
        stack.map(Lease)
    }
}

/// A stack taken from this thread's pool.
pub(crate) struct Lease(PooledStack);

impl Lease {
    /// Returns the address just above the stack, which has the alignment of a stack's top.
    pub(crate) fn top(&self) -> *mut u8 {
        self.0.top()
    }

    pub(crate) fn limits(&self) -> StackLimits {
        self.0.limits()
    }

    /// Gives the stack back; nothing runs on it any more. It becomes the spare stack. The previous spare stack
    /// goes into the pool.
    #[inline]
    pub(crate) fn give_back(self) {
        // As a function that takes `self`, not as a destructor: a stack that is in use is
        // never to be given back by accident.
        LOCAL.with(|local| {
            if local.idle.get() == 0 {
                return local.put(self);
            }
            let before = local.spare.take();
            local.spare.set(&ManuallyDrop::new(self).0);
            if let Some(before) = before {
                local.put(before);
            }
        });
    }

    /// Gives back the stack on which the caller runs, unless there is a spare one. Returns whether
    /// it did.
    ///
    /// # Safety
    /// The caller leaves the stack for ever before anybody asks for one. If it is given back,
    /// `self` is neither used nor dropped any more.
    #[inline(always)]
    pub(crate) unsafe fn become_spare(&self) -> bool {
        LOCAL.with(|local| {
            let becomes = local.spare.is_none();
            if becomes {
                local.spare.set(&self.0);
            }
            becomes
        })
    }
}

/// Takes the spare stack, if there is one of this shape.
#[inline(always)]
pub(crate) fn take_spare(shape: Shape) -> Option<Lease> {
    LOCAL.with(|local| local.spare.take_of(shape))
}

/// Takes a stack of this shape from the thread's pool.
#[inline(never)]
pub(crate) fn acquire(shape: Shape) -> Result<Lease, StackError> {
    LOCAL.with(|local| local.acquire(shape))
}

/// Sets how many idle stacks this thread keeps with their memory, over all sizes, and returns the previous number.
/// If there are more, memory goes back to the system.
///
/// The default is 256. The address space of sizes that are in use is kept until the thread ends in any case. While
/// the thread ends, nothing is kept and this has no effect.
///
/// ```
/// let before = greenlet::set_idle_stacks(10_000);
/// assert_eq!(before, 256);
/// ```
pub fn set_idle_stacks(count: usize) -> usize {
    LOCAL.with(|local| {
        let before = local.idle.get();
        if AT_END.try_with(|_| ()).is_ok() {
            local.set_idle(count);
        }
        before
    })
}
