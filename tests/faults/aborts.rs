//! Functions that cannot return an error abort the process with a message.

use std::{
    cell::Cell,
    hint::black_box,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Barrier,
    thread,
};

use greenlet::{
    Builder, Child, Current, Greenlet, Root, Snapshot, SwitchError, UnguardedStack, enter, local,
};

use crate::{
    ARMED, armed, each_fault_aborts,
    support::{
        self, Number,
        census::{Census, Payload, Wide},
        echoes::SMALL,
        number, unscoped,
    },
};

#[test]
fn a_new_greenlet() {
    each_fault_aborts("a new greenlet", || {
        enter(|me: &Root<()>| {
            drop(armed(|| Greenlet::new(me, |_, ()| Ok(()))));
            let large = [1u8; 4096];
            drop(armed(|| {
                Greenlet::new(me, move |_, ()| {
                    black_box(&large);
                    Ok(())
                })
            }));
        });
    });
}

#[test]
fn a_greenlet_whose_messages_borrow() {
    each_fault_aborts("a greenlet whose messages borrow", || {
        enter(|me: &Root<()>| drop(armed(|| Greenlet::borrowing(me, |_, ()| Ok(())))));
    });
}

#[test]
fn what_a_builder_keeps() {
    each_fault_aborts("a builder's name and stack", || {
        // SAFETY: nothing runs on it.
        let stack = unsafe { UnguardedStack::new(Box::leak(Box::new_uninit_slice(SMALL))) };
        drop(armed(|| Builder::new().name("named").stack(stack)));
    });
}

#[test]
fn entering_on_a_thread() {
    each_fault_aborts("entering", || {
        // Takes every free entry of the debuggers' list of threads.
        let (places, hold) = (Barrier::new(3), Barrier::new(3));
        thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    enter(|_: &Root<()>| {
                        places.wait();
                        hold.wait();
                    });
                });
            }
            places.wait();
            armed(|| enter(|_: &Root<()>| ()));
            hold.wait();
        });
    });
}

#[test]
fn what_is_thrown() {
    each_fault_aborts("what is thrown", || {
        enter(|me: &Root<()>| {
            let fails = Greenlet::new(me, |_, ()| armed(|| Err(Number(1).into())));
            assert_eq!(number(me.switch(&fails, ())), 1);
        });
    });
}

#[test]
fn a_refusal_that_is_thrown() {
    each_fault_aborts("a refusal that is thrown", || {
        enter(|me: &Root<()>| {
            let dead: Greenlet<u64> = Greenlet::new(me, |_, _| Ok(()));
            me.kill(&dead).unwrap();
            let refused = armed(|| me.switch(&dead, 1));
            assert_eq!(support::refusal(refused), SwitchError::Dead(()));
        });
    });
}

#[test]
fn a_value_without_a_receiver() {
    each_fault_aborts("a value that nobody takes", || {
        let census = Census::new();
        enter(|me: &Root<Wide>| {
            // Leaves an idle stack in the pool.
            drop(me.switch(
                &Greenlet::new(me, |_, first: Wide| Ok(first)),
                Wide::new(&census, 1),
            ));
            let child = Greenlet::new(me, |_, message: Wide| Ok(message));
            enter(|inner: &Root<()>| {
                let message = Wide::new(&census, 4);
                let undeliverable = armed(|| inner.switch(&child, message)).unwrap_err();
                assert_eq!(undeliverable.into_value::<Wide>().unwrap().value(), 4);
            });
        });
    });
}

#[cfg(panic = "unwind")]
#[test]
fn a_panic_that_travels() {
    each_fault_aborts("a panic that travels", || {
        enter(|me: &Root<()>| {
            let panics: Greenlet<()> =
                Greenlet::new(me, |_, ()| armed(|| resume_unwind(Box::new("on purpose"))));
            let caught = catch_unwind(AssertUnwindSafe(|| me.switch(&panics, ())));
            ARMED.set(false);
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"on purpose"));
        });
    });
}

local! {
    static FIRST: Cell<u8> = Cell::new(1);
    static SECOND: Cell<[u64; 9]> = Cell::new([2; 9]);
}

#[test]
fn greenlet_locals() {
    each_fault_aborts("greenlet-locals", || {
        enter(|_: &Root<()>| {
            assert_eq!(armed(|| FIRST.with(Cell::get)), 1);
            assert_eq!(armed(|| SECOND.with(Cell::get)), [2; 9]);
        });
    });
}

/// With new greenlets, which have no backtrace: if the allocator fails while std captures one, std waits for
/// its own lock for ever.
#[test]
fn a_snapshot() {
    each_fault_aborts("a snapshot", || {
        let new = unscoped().enter(|me: &Current<()>| {
            let builder = Builder::new().name("named");
            builder.build(me, |_: &Child<(), _>, ()| Ok(())).unwrap()
        });
        let seen = armed(Snapshot::take);
        assert_eq!(seen.greenlets()[0].name.as_deref(), new.name());
    });
}

#[cfg(feature = "trace")]
#[test]
fn a_tracer() {
    each_fault_aborts("a tracer", || {
        let tracer = armed(|| greenlet::trace::Tracer::new(|_| ()));
        drop(greenlet::trace::set(Some(tracer)));
    });
}
