//! Functions that can return an error return one. The message comes back.

use std::{
    cell::{Cell, UnsafeCell},
    hint::black_box,
    mem::MaybeUninit,
};

use greenlet::{BuildError, Builder, Child, Greenlet, Root, StackMemory, enter};

use crate::{
    armed, each_fault_is_an_error, failed, start,
    support::{
        self,
        census::{Census, Payload, Wide},
        echoes::{SMALL, echo, still_works},
    },
};

#[test]
fn the_first_stack_of_a_thread() {
    each_fault_is_an_error("the first stack of a thread", || {
        let census = Census::new();
        enter(|me| start(me, &census, &echo(me, SMALL)));
    });
}

#[test]
fn the_first_stack_of_each_size() {
    each_fault_is_an_error("the first stack of each size", || {
        let census = Census::new();
        enter(|me| {
            // Enough sizes that the list of sizes grows.
            let greenlets: Vec<_> = (1..=9).map(|factor| echo(me, factor * SMALL)).collect();
            greenlets.iter().for_each(|new| start(me, &census, new));
        });
    });
}

#[test]
fn each_slab_of_stacks() {
    each_fault_is_an_error("each slab of stacks", || {
        let census = Census::new();
        enter(|me| {
            // Enough stacks that the list of slabs grows.
            let greenlets: Vec<_> = (0..300).map(|_| echo(me, SMALL)).collect();
            greenlets.iter().for_each(|new| start(me, &census, new));
        });
    });
}

#[test]
fn a_stack_while_the_thread_ends() {
    struct Starts;

    impl Drop for Starts {
        fn drop(&mut self) {
            let census = Census::new();
            enter(|me| start(me, &census, &echo(me, SMALL)));
            still_works();
        }
    }

    thread_local!(static AT_END: Cell<Option<Starts>> = const { Cell::new(None) });

    each_fault_is_an_error("a stack while the thread ends", || {
        // Before the crate has thread-locals, so that they are gone when this is dropped.
        AT_END.set(Some(Starts));
    });
}

/// Builds a greenlet whose body and stack own something. If there is no memory, `build` must return an error
/// and drop both.
fn build<const WORDS: usize>() {
    struct Memory(Box<[MaybeUninit<UnsafeCell<u8>>]>, Wide);

    // SAFETY: the memory is its own, and what runs on it fits.
    unsafe impl StackMemory for Memory {
        fn top(&self) -> *mut u8 {
            self.0.as_ptr_range().end.cast_mut().cast()
        }

        fn size(&self) -> usize {
            assert_eq!(self.1.value(), 2);
            self.0.len()
        }
    }

    let census = Census::new();
    enter(|me: &Root<usize>| {
        let memory = Memory(Box::new_uninit_slice(4 * SMALL), Wide::new(&census, 2));
        let builder = Builder::new().name("named").stack(memory);
        let (cargo, words) = (Wide::new(&census, 3), [1; WORDS]);
        let body = move |_: &Child<usize, _>, n: usize| {
            assert_eq!(cargo.value(), 3);
            Ok(n + black_box(words).len())
        };
        match armed(|| builder.build(me, body)) {
            Ok(built) => {
                assert_eq!(built.name(), Some("named"));
                assert_eq!(me.switch(&built, 1).unwrap(), 1 + WORDS);
            }
            Err(error) => assert_eq!((error, failed()), (BuildError::OutOfMemory, true)),
        }
        assert_eq!(census.alive(), 0);
    });
}

#[test]
fn a_built_greenlet() {
    each_fault_is_an_error("a built greenlet", build::<1>);
    each_fault_is_an_error("a built greenlet with a large body", build::<1000>);
}

#[test]
fn a_built_greenlet_whose_messages_borrow() {
    each_fault_is_an_error("a built greenlet whose messages borrow", || {
        let census = Census::new();
        let borrowed = &1;
        enter(|me: &Root<usize>| {
            let cargo = Wide::new(&census, 3);
            let body = move |_: &Child<usize, _>, n: usize| {
                assert_eq!(cargo.value(), 3);
                Ok(n + borrowed)
            };
            match armed(|| Builder::new().build_borrowing(me, body)) {
                Ok(built) => assert_eq!(me.switch(&built, 1).unwrap(), 2),
                Err(error) => assert_eq!((error, failed()), (BuildError::OutOfMemory, true)),
            }
            assert_eq!(census.alive(), 0);
        });
    });
}

#[test]
fn a_stack_for_a_parent_to_which_a_value_goes() {
    each_fault_is_an_error("a stack for a parent", || {
        let census = Census::new();
        enter(|me: &Root<Wide>| {
            let child: Greenlet<Wide> = {
                let main = me.handle();
                Greenlet::new(me, move |me, message| me.switch(&main, message))
            };
            let parent = echo(me, 2 * SMALL);
            child.set_parent(&parent).unwrap();
            drop(me.switch(&child, Wide::new(&census, 6)).unwrap());

            let message = Wide::new(&census, 7);
            match armed(|| me.switch(&child, message)) {
                Ok(value) => assert_eq!(value.value(), 7),
                Err(thrown) => {
                    assert!(failed(), "{thrown}");
                    assert!(support::is_new(&parent));
                    assert_eq!(thrown.into_value::<Wide>().unwrap().value(), 7);
                }
            }
            assert!(child.is_dead());
        });
    });
}
