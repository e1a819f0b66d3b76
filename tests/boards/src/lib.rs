//! What the programs share: a heap, the start of each board, memory for stacks.

#![no_std]

extern crate alloc;

use alloc::boxed::Box;
use core::{cell::UnsafeCell, mem::MaybeUninit};

use embedded_alloc::LlffHeap;
use greenlet::StackMemory;

#[cfg_attr(target_arch = "arm", path = "cortex_m.rs")]
#[cfg_attr(
    any(target_arch = "riscv64", target_arch = "riscv32"),
    path = "riscv.rs"
)]
mod board;

pub use board::{HEAP_SIZE, STACK_SIZE, entry, start_ticking, stop_ticking, ticks};

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

/// Gives the allocator its memory. Called once, before anything else.
pub fn make_heap() {
    static mut MEMORY: [MaybeUninit<u8>; HEAP_SIZE] = [MaybeUninit::uninit(); HEAP_SIZE];
    // SAFETY: called once, so nobody else has the memory.
    unsafe { HEAP.init((&raw mut MEMORY).addr(), HEAP_SIZE) }
}

/// Bytes of heap in use.
pub fn heap_in_use() -> usize {
    HEAP.used()
}

/// A stack from the heap, freed when its greenlet finishes. It has no guard: its lowest bytes show afterwards
/// whether it overflowed.
pub struct HeapStack(Box<[MaybeUninit<UnsafeCell<u8>>]>);

const PAINT: [u8; 16] = [0xa5; 16];

impl HeapStack {
    pub fn new() -> Self {
        let mut memory = Box::new_uninit_slice(STACK_SIZE);
        for (byte, paint) in memory.iter_mut().zip(PAINT) {
            byte.write(UnsafeCell::new(paint));
        }
        Self(memory)
    }
}

impl Drop for HeapStack {
    fn drop(&mut self) {
        // SAFETY: written when it was made.
        let lowest = unsafe { self.0.as_ptr().cast::<[u8; PAINT.len()]>().read() };
        assert_eq!(lowest, PAINT, "a stack has overflowed");
    }
}

// SAFETY: the memory is this value's alone. What the tests run on it fits, or its paint tells.
unsafe impl StackMemory for HeapStack {
    fn top(&self) -> *mut u8 {
        self.0.as_ptr_range().end.cast_mut().cast()
    }

    fn size(&self) -> usize {
        self.0.len()
    }
}
