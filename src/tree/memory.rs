//! Where blocks lie. A thread keeps the memory of some that are gone for the next ones: a
//! greenlet that is made, runs and ends would otherwise spend a quarter of its time in the
//! allocator.

use alloc::alloc as allocator;
use core::{alloc::Layout, ptr::NonNull};

/// Memory is kept by its size in units of so many bytes …
const UNIT: usize = 32;
/// … up to so many units …
const SIZES: usize = 16;
/// … and so many pieces of each size.
#[cfg(feature = "std")]
const KEPT: u32 = 64;

/// How many units a layout takes, if memory for it is kept.
fn units(layout: Layout) -> Option<usize> {
    let units = layout.size().div_ceil(UNIT);
    (layout.align() <= align_of::<usize>() && units < SIZES).then_some(units)
}

/// The layout that memory of so many units is allocated with.
fn piece(units: usize) -> Layout {
    Layout::from_size_align(units * UNIT, align_of::<usize>()).expect("a few hundred bytes")
}

/// Puts `value` into memory of its own.
#[inline(always)]
pub(super) fn allocate<T>(value: T) -> NonNull<T> {
    let layout = Layout::new::<T>();
    let (kept, layout) = match units(layout) {
        Some(units) => (spare::take(units), piece(units)),
        None => (None, layout),
    };
    let memory = kept.unwrap_or_else(|| {
        // SAFETY: something that begins with a block is not of size zero.
        let memory = unsafe { allocator::alloc(layout) };
        NonNull::new(memory).unwrap_or_else(|| allocator::handle_alloc_error(layout))
    });
    let memory = memory.cast::<T>();
    // SAFETY: of T's layout or more, and nobody else's.
    unsafe { memory.write(value) };
    memory
}

/// Frees memory from [`allocate`].
///
/// # Safety
/// It was allocated for a value of this layout, which is gone, and is freed once.
pub(super) unsafe fn free(memory: *mut u8, layout: Layout) {
    let layout = match units(layout) {
        Some(units) if spare::keep(units, memory) => return,
        Some(units) => piece(units),
        None => layout,
    };
    // SAFETY: `allocate` has used the same layout (contract).
    unsafe { allocator::dealloc(memory, layout) };
}

/// What a thread keeps.
#[cfg(feature = "std")]
mod spare {
    use alloc::alloc::dealloc;
    use core::{
        cell::UnsafeCell,
        ptr::{self, NonNull},
    };

    use super::{KEPT, SIZES, piece};

    std::thread_local! {
        static SPARE: Spare = const { Spare(UnsafeCell::new([const { Pieces { first: ptr::null_mut(), count: 0 } }; SIZES])) };
    }

    /// Pieces of memory, by their size in units.
    ///
    /// # Invariants
    /// `first` is null or begins a list of `count` pieces that came from the allocator with
    /// [`piece`]`(units)`, each holding the address of the next. No reference into it is kept
    /// beyond one of the functions below, none of which calls anything that could come back here.
    struct Spare(UnsafeCell<[Pieces; SIZES]>);

    #[derive(Clone, Copy)]
    struct Pieces {
        first: *mut Link,
        count: u32,
    }

    struct Link {
        next: *mut Link,
    }

    #[inline]
    pub(super) fn take(units: usize) -> Option<NonNull<u8>> {
        SPARE
            .try_with(|spare| {
                // SAFETY: the only reference (invariant).
                let pieces = unsafe { &mut (*spare.0.get())[units] };
                let first = NonNull::new(pieces.first)?;
                // SAFETY: a piece in the list (invariant).
                pieces.first = unsafe { first.as_ref().next };
                pieces.count -= 1;
                Some(first.cast())
            })
            // The thread is ending and has freed what it kept.
            .unwrap_or(None)
    }

    /// Keeps a piece if there is room for it.
    #[inline]
    pub(super) fn keep(units: usize, memory: *mut u8) -> bool {
        SPARE
            .try_with(|spare| {
                // SAFETY: the only reference (invariant).
                let pieces = unsafe { &mut (*spare.0.get())[units] };
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
            .unwrap_or(false)
    }

    impl Drop for Spare {
        fn drop(&mut self) {
            for (units, pieces) in self.0.get_mut().iter().enumerate() {
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

/// A board has no thread that ends, where it could be freed: nothing is kept.
#[cfg(not(feature = "std"))]
mod spare {
    use core::ptr::NonNull;

    pub(super) fn take(_units: usize) -> Option<NonNull<u8>> {
        None
    }

    pub(super) fn keep(_units: usize, _memory: *mut u8) -> bool {
        false
    }
}
