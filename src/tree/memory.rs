//! Memory for blocks. A thread keeps some of the memory that is freed, and uses it again: a greenlet
//! that is made, runs and finishes would otherwise spend a quarter of its time in the allocator.

use alloc::alloc as allocator;
use core::{
    alloc::Layout,
    ptr::{self, NonNull},
};

#[cfg(all(feature = "std", not(miri)))]
use static_assertions::const_assert;

/// Bytes of a unit. Sizes of kept memory are rounded up to whole units.
const UNIT: usize = 32;
/// Bytes of a piece that glibc's and musl's allocators use themselves: a block of 184 bytes takes 192.
const OVERHEAD: usize = size_of::<usize>();
/// Alignment of kept memory, which is that of blocks.
const ALIGN: usize = align_of::<u64>();
/// Only memory of fewer units than this is kept.
const SIZES: usize = 16;
/// The most pieces of each size that a thread keeps.
#[cfg(feature = "std")]
const KEPT: u32 = 64;

/// What memory a type needs, and whether it is kept when it is freed.
#[derive(Clone, Copy)]
pub(super) struct SizeClass {
    layout: Layout,
    /// Its size in units; 0 if it is not kept.
    units: usize,
}

impl SizeClass {
    pub(super) const fn of<T>() -> Self {
        let layout = Layout::new::<T>();
        let units = (layout.size() + OVERHEAD).div_ceil(UNIT);
        // Miri notices the use of a freed piece, not of one that is kept.
        let keeps = cfg!(all(feature = "std", not(miri)));
        if keeps && layout.align() <= ALIGN && units < SIZES {
            Self {
                layout: piece(units),
                units,
            }
        } else {
            Self { layout, units: 0 }
        }
    }
}

// A block with a small body is kept.
#[cfg(all(feature = "std", not(miri)))]
const_assert!(SizeClass::of::<super::Block>().units > 0);

/// Returns the layout of a piece of so many units.
const fn piece(units: usize) -> Layout {
    match Layout::from_size_align(units * UNIT - OVERHEAD, ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!("a few hundred bytes"),
    }
}

/// The allocator has no memory of this layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutOfMemory(Layout);

impl OutOfMemory {
    /// Aborts as `Box::new` does, for callers that cannot return an error.
    #[cold]
    pub(crate) fn abort(self) -> ! {
        allocator::handle_alloc_error(self.0)
    }
}

/// Allocates memory for a `T`.
#[inline(always)]
pub(super) fn allocate<T>() -> Result<NonNull<T>, OutOfMemory> {
    let size_class = const { SizeClass::of::<T>() };
    let memory = match spare::take(size_class.units) {
        Some(memory) => memory,
        None => from_allocator(size_class.layout)?,
    };
    // `whole` takes the provenance back.
    memory.as_ptr().expose_provenance();
    Ok(memory.cast())
}

/// Returns a pointer to all the memory that [`allocate`] returned, given its address. A reference to the
/// `Block` at its start has provenance for that block only.
pub(super) fn whole<T>(address: usize) -> *mut T {
    ptr::with_exposed_provenance_mut(address)
}

#[cold]
fn from_allocator(layout: Layout) -> Result<NonNull<u8>, OutOfMemory> {
    spare::free_at_exit();
    // SAFETY: the layout has a size, because the memory begins with a block.
    NonNull::new(unsafe { allocator::alloc(layout) }).ok_or(OutOfMemory(layout))
}

/// Frees memory from [`allocate`].
///
/// # Safety
/// The memory was allocated with this size class, its value has been dropped, and it is freed once.
#[inline]
pub(super) unsafe fn free(memory: *mut u8, size_class: SizeClass) {
    if spare::keep(size_class.units, memory) {
        return;
    }
    // SAFETY: `allocate` has used the same layout (contract).
    unsafe { allocator::dealloc(memory, size_class.layout) };
}

/// The memory that a thread keeps.
#[cfg(feature = "std")]
mod spare {
    use alloc::alloc::dealloc;
    use core::{
        cell::UnsafeCell,
        ptr::{self, NonNull},
    };

    use super::{KEPT, SIZES, piece};
    use crate::host::per_thread;

    per_thread! {
        /// It has no destructor, so that reading it is a plain load. [`FreeAtExit`] has one for it.
        static SPARE: Spare = Spare(UnsafeCell::new({
            let mut pieces = [Pieces::NONE; SIZES];
            pieces[0] = Pieces::FULL;
            pieces
        }));
        static FREE_AT_EXIT: FreeAtExit = FreeAtExit;
    }

    /// Lists of free pieces, by their size in units. The list of size 0 is full: such memory is not kept.
    ///
    /// # Invariants
    /// * `first` is null, or the first of a list of pieces from the allocator with the layout
    ///   [`piece`]`(units)`. Each piece holds the address of the next.
    /// * `count` is the number of pieces, or [`KEPT`] when the thread is ending.
    /// * Each function below drops its reference before it returns, and calls nothing that could come back
    ///   here.
    struct Spare(UnsafeCell<[Pieces; SIZES]>);

    #[derive(Clone, Copy)]
    struct Pieces {
        first: *mut Link,
        count: u32,
    }

    struct Link {
        next: *mut Link,
    }

    impl Pieces {
        const NONE: Self = Self {
            first: ptr::null_mut(),
            count: 0,
        };
        /// Without pieces, and without room for any.
        const FULL: Self = Self {
            count: KEPT,
            ..Self::NONE
        };
    }

    #[inline]
    pub(super) fn take(units: usize) -> Option<NonNull<u8>> {
        SPARE.with(|spare| {
            // SAFETY: the only reference (invariant).
            let pieces = unsafe { &mut (*spare.0.get())[units % SIZES] };
            let first = NonNull::new(pieces.first)?;
            // SAFETY: a piece in the list (invariant).
            pieces.first = unsafe { first.as_ref().next };
            pieces.count -= 1;
            Some(first.cast())
        })
    }

    /// Keeps a piece if there is room, and returns whether it does.
    #[inline]
    pub(super) fn keep(units: usize, memory: *mut u8) -> bool {
        SPARE.with(|spare| {
            // SAFETY: the only reference (invariant).
            let pieces = unsafe { &mut (*spare.0.get())[units % SIZES] };
            if pieces.count == KEPT {
                return false;
            }
            let link = memory.cast::<Link>();
            // SAFETY: free memory of at least one unit, aligned for a word.
            unsafe { link.write(Link { next: pieces.first }) };
            pieces.first = link;
            pieces.count += 1;
            true
        })
    }

    /// Registers the destructor. Called before the allocator is asked for a piece that may be kept.
    pub(super) fn free_at_exit() {
        // It fails when the thread is ending. Nothing is kept then.
        let _ = FREE_AT_EXIT.try_with(|_| ());
    }

    /// Frees what a thread keeps when it ends.
    struct FreeAtExit;

    impl Drop for FreeAtExit {
        fn drop(&mut self) {
            // SAFETY: the only reference (invariant).
            let kept = SPARE.with(|spare| unsafe { spare.0.get().replace([Pieces::FULL; SIZES]) });
            for (units, pieces) in kept.into_iter().enumerate() {
                let mut next = pieces.first;
                // SAFETY: null, or a piece in the list (invariant).
                while let Some(link) = unsafe { next.as_ref() } {
                    let memory = next.cast();
                    next = link.next;
                    // SAFETY: it came from the allocator with this layout (invariant).
                    unsafe { dealloc(memory, piece(units)) };
                }
            }
        }
    }
}

/// On boards no thread ends at which memory could be freed, so nothing is kept.
#[cfg(not(feature = "std"))]
mod spare {
    use core::ptr::NonNull;

    pub(super) fn take(_units: usize) -> Option<NonNull<u8>> {
        None
    }

    pub(super) fn keep(_units: usize, _memory: *mut u8) -> bool {
        false
    }

    pub(super) fn free_at_exit() {}
}
