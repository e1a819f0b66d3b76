//! Stacks that the user provides, and how much of them and of the heap a greenlet takes.

use core::mem::MaybeUninit;

use boards::{STACK_SIZE, heap_in_use};
use greenlet::{BuildError, Builder, UnguardedStack};
use semihosting::println;

use super::{enter, greenlet};

const PAINT: u8 = 0xa5;
const SIZE: usize = Builder::MIN_STACK_SIZE;

/// The stack of these tests, which run one after the other.
static mut STACK: [MaybeUninit<u8>; SIZE] = [MaybeUninit::new(PAINT); SIZE];

fn memory() -> &'static mut [MaybeUninit<u8>] {
    // SAFETY: whoever had it before has no greenlet any more.
    unsafe { &mut *(&raw mut STACK) }
}

/// The size of a stack for a greenlet that does little.
fn stack() -> UnguardedStack {
    // SAFETY: as `report_memory` says, such a one takes much less.
    unsafe { UnguardedStack::new(memory()) }
}

pub fn that_a_builder_refuses() {
    enter(|me| {
        let none = Builder::new().build(me, |_, ()| Ok(()));
        assert_eq!(none.unwrap_err(), BuildError::NoStack);
        let (small, _) = memory().split_at_mut(SIZE - 1);
        // SAFETY: nothing runs on it.
        let small = unsafe { UnguardedStack::new(small) };
        let small = Builder::new().stack(small).build(me, |_, ()| Ok(()));
        assert_eq!(
            small.unwrap_err(),
            BuildError::StackTooSmall { bytes: SIZE - 1 }
        );
        let name = Builder::new()
            .name("a\0b")
            .stack(stack())
            .build(me, |_, ()| Ok(()));
        assert_eq!(name.unwrap_err(), BuildError::NameContainsNul);
    });
}

pub fn that_is_static() {
    enter(|me| {
        let child = Builder::new()
            .name("adder")
            .stack(stack())
            .build(me, |_, n: u32| Ok(n + 1));
        let child = child.unwrap();
        assert_eq!(child.name(), Some("adder"));
        assert_eq!(me.switch(&child, 1).unwrap(), 2);
    });
}

/// Makes more greenlets, one after the other, than fit into memory together.
pub fn of_stacks_is_used_again() {
    let before = heap_in_use();
    enter(|me| {
        for n in 0..2 * boards::HEAP_SIZE / STACK_SIZE {
            let child = greenlet(me, |_, n| Ok(n));
            assert!(heap_in_use() - before >= STACK_SIZE);
            assert_eq!(me.switch(&child, n).unwrap(), n);
            assert!(heap_in_use() - before < STACK_SIZE);
        }
    });
}

/// Prints the memory of a greenlet that switches once and finishes.
pub fn report_memory() {
    memory().fill(MaybeUninit::new(PAINT));
    let heap = enter(|me| {
        let main = me.handle();
        let before = heap_in_use();
        let child = Builder::new().stack(stack()).build(me, move |me, n: u32| {
            let n = me.switch(&main, n)?;
            Ok(n)
        });
        let child = child.unwrap();
        let heap = heap_in_use() - before;
        assert_eq!([1, 2].map(|n| me.switch(&child, n).unwrap()), [1, 2]);
        heap
    });
    let painted = memory()
        .iter()
        // SAFETY: all of it was painted, and the greenlet is over.
        .take_while(|byte| unsafe { byte.assume_init_read() } == PAINT);
    let untouched = painted.count();
    println!(
        "a greenlet: {heap} bytes of heap, {} bytes of stack",
        SIZE - untouched
    );
}
