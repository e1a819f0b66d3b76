//! Stacks without a guard, for greenlets whose use of stack is known.

use core::mem::MaybeUninit;

use super::StackMemory;

/// A stack without a guard, in a static array or other `'static` memory. It is the usual stack where no operating
/// system can make guards.
///
/// ```
/// use core::mem::MaybeUninit;
/// use greenlet::{Builder, UnguardedStack, enter};
///
/// static mut MEMORY: [MaybeUninit<u8>; 65536] = [MaybeUninit::uninit(); 65536];
///
/// // SAFETY: it is used only here, and a sum takes less than that.
/// let stack = unsafe { UnguardedStack::new(&mut *(&raw mut MEMORY)) };
/// # #[allow(unused_unsafe)]
/// # unsafe {
/// enter(|me| {
///     let greenlet = Builder::new().stack(stack).build(me, |_, n: u32| Ok(n + 1))?;
///     assert_eq!(me.switch(&greenlet, 1).unwrap(), 2);
///     Ok::<(), greenlet::BuildError>(())
/// })
/// # }.unwrap();
/// ```
#[derive(Debug)]
pub struct UnguardedStack {
    /// Not a reference: one to `self` must give a pointer that may be written through.
    memory: *mut [MaybeUninit<u8>],
}

impl UnguardedStack {
    /// Makes a stack of all of `memory`.
    ///
    /// # Safety
    /// The stack is large enough for everything that runs on it: the greenlet's body and what that calls,
    /// destructors when it is killed, and the handlers of signals and interrupts meanwhile. Nothing stops an
    /// overflow, which overwrites the memory below.
    #[must_use]
    pub unsafe fn new(memory: &'static mut [MaybeUninit<u8>]) -> Self {
        Self { memory }
    }
}

// SAFETY: the memory was borrowed mutably for `'static`, so nothing else uses it. No overflow happens (contract of
// `new`).
unsafe impl StackMemory for UnguardedStack {
    fn top(&self) -> *mut u8 {
        self.memory.cast::<u8>().wrapping_add(self.memory.len())
    }

    fn size(&self) -> usize {
        self.memory.len()
    }
}
