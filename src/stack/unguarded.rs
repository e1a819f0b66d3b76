//! Stacks without a guard, for greenlets whose use of stack is known.

use core::mem::MaybeUninit;

use super::StackMemory;

/// A static array, or other memory that is there for ever, to be a greenlet's stack without a
/// guard: the usual one where no system can make guards.
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
    /// A stack of all of `memory`.
    ///
    /// # Safety
    /// Whatever runs on it fits: the greenlet's body, what that calls, destructors when it is killed,
    /// and the handlers of signals and interrupts that come meanwhile. Nothing stops an overflow:
    /// it overwrites what lies below.
    #[must_use]
    pub unsafe fn new(memory: &'static mut [MaybeUninit<u8>]) -> Self {
        Self { memory }
    }
}

// SAFETY: the reference that it was made of was the only one, for ever; that no overflow comes is
// the promise of who made it.
unsafe impl StackMemory for UnguardedStack {
    fn top(&self) -> *mut u8 {
        self.memory.cast::<u8>().wrapping_add(self.memory.len())
    }

    fn size(&self) -> usize {
        self.memory.len()
    }
}
