//! A shared object with thread-locals of 4 KiB, more than the reserve of static TLS for loaded shared objects.

use std::cell::Cell;

use greenlet::{Greenlet, enter};

thread_local! {
    static BUFFER: Cell<[u8; 4096]> = const { Cell::new([0; 4096]) };
}

/// Returns 2 * (number + 1), by way of a greenlet and the thread-local.
#[unsafe(no_mangle)]
pub extern "C" fn compute(number: u8) -> u8 {
    let mut buffer = BUFFER.get();
    buffer[4095] = number;
    BUFFER.set(buffer);
    enter(|me| {
        let main = me.handle();
        let doubler = Greenlet::new(me, move |me, mut n: u8| {
            loop {
                n = me.switch(&main, 2 * n)?;
            }
        });
        me.switch(&doubler, BUFFER.get()[4095] + 1)
            .expect("it answers")
    })
}
