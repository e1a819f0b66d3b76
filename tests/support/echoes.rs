//! Greenlets that send back what they receive.

use greenlet::{Builder, Current, Greenlet, enter};

use super::census::{Census, Payload, Wide};

pub const SMALL: usize = Builder::MIN_STACK_SIZE;

/// Makes a greenlet that sends back what it receives.
pub fn echo<'e>(me: &Current<'e, Wide>, stack_size: usize) -> Greenlet<'e, Wide> {
    let main = me.handle();
    let builder = Builder::new().stack_size(stack_size);
    builder
        .build(me, move |me, mut message| {
            loop {
                message = me.switch(&main, message)?;
            }
        })
        .unwrap()
}

/// Returns suspended echoes, each on a stack of its own.
pub fn many_suspended<'e>(me: &Current<'e, Wide>, census: &Census) -> Vec<Greenlet<'e, Wide>> {
    let greenlets: Vec<_> = (0..300).map(|_| echo(me, SMALL)).collect();
    for greenlet in &greenlets {
        drop(me.switch(greenlet, Wide::new(census, 1)).unwrap());
    }
    greenlets
}

/// Checks that the crate still works on this thread.
pub fn still_works() {
    let census = Census::new();
    enter(|me| {
        let sizes = [1, 2, 16].map(|factor| factor * SMALL);
        let greenlets: Vec<_> = (0..30).map(|n| echo(me, sizes[n % sizes.len()])).collect();
        for greenlet in greenlets.iter().cycle().take(3 * greenlets.len()) {
            let reply = me.switch(greenlet, Wide::new(&census, 5)).unwrap();
            assert_eq!(reply.value(), 5);
        }
    });
}
