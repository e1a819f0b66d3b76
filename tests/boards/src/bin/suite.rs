//! Runs the tests one after the other and prints how many have passed. A panic ends the run, because it aborts
//! on boards.

#![no_std]
#![no_main]

extern crate alloc;

use core::{
    panic::PanicInfo,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use semihosting::{print, println, process};

#[path = "../tests/mod.rs"]
mod tests;

static PASSED: AtomicUsize = AtomicUsize::new(0);

#[boards::entry]
fn main() -> ! {
    boards::make_heap();
    for (name, test) in tests::ALL {
        print!("{name} ... ");
        let before = boards::heap_in_use();
        test();
        let kept = boards::heap_in_use() - before;
        assert_eq!(kept, 0, "bytes of heap are not given back");
        println!("ok");
        PASSED.store(PASSED.load(Relaxed) + 1, Relaxed);
    }
    tests::report_memory();
    println!("{} passed, 0 failed", tests::ALL.len());
    process::exit(0)
}

#[panic_handler]
fn panicked(panic: &PanicInfo<'_>) -> ! {
    println!("FAILED: {panic}");
    println!("{} passed, 1 failed", PASSED.load(Relaxed));
    process::exit(1)
}
