//! The smallest program with a greenlet. `ci/boards.sh` measures its size.

#![no_std]
#![no_main]

use core::{mem::MaybeUninit, panic::PanicInfo};

use greenlet::{Builder, UnguardedStack, enter};
use semihosting::process;

static mut STACK: [MaybeUninit<u8>; 512] = [MaybeUninit::uninit(); 512];

#[boards::entry]
fn main() -> ! {
    boards::make_heap();
    // SAFETY: used only here. The suite has measured what this takes: `report_memory`.
    let stack = unsafe { UnguardedStack::new(&mut *(&raw mut STACK)) };
    // SAFETY: one core, and no interrupt handler uses the crate.
    let sum = unsafe {
        enter(|me| {
            let main = me.handle();
            let adder = Builder::new().stack(stack).build(me, move |me, n: u32| {
                let more = me.switch(&main, n + 1)?;
                Ok(more + 2)
            });
            let Ok(adder) = adder else { return 0 };
            let Ok(first) = me.switch(&adder, 1) else {
                return 0;
            };
            me.switch(&adder, first + 38).unwrap_or(0)
        })
    };
    process::exit(if sum == 42 { 0 } else { 1 })
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    process::exit(1)
}
