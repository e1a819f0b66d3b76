//! s6: first and later switches. s7: the value at the end. s8: to oneself. s9: to the dead.
//! s10: the message on its way.

use std::{cell::RefCell, rc::Rc};

use greenlet::{Builder, Child, Current, Greenlet, Root, SwitchError, enter};

use crate::{
    shared_by_greenlets,
    support::{
        Number,
        census::{Census, Payload, Word},
        is_new,
        log::{Log, on_drop},
        number, refusal, run_without_handles, unscoped,
    },
    with_each_cargo,
};

#[test]
fn s6_the_first_switch_runs_the_body_with_the_message() {
    fn check<T: Payload>() {
        let census = Census::new();
        let log = Log::new();
        enter(|me: &Root<()>| {
            let g = Greenlet::new(me, {
                let log = log.clone();
                move |_, message: T| {
                    log.add(message.value());
                    Ok(())
                }
            });
            assert_eq!(log.take(), []);
            me.switch(&g, T::new(&census, 17)).unwrap();
            assert_eq!(log.take(), [17]);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s6_a_later_switch_makes_the_targets_own_return() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<T>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, mut message: T| {
                while message.value() < 100 {
                    message = me.switch(&main, message)?;
                }
                Ok(message)
            });
            for value in [1, 2, 3, 100] {
                let back = me.switch(&g, T::new(&census, value)).unwrap();
                assert_eq!(back.value(), value);
            }
            assert!(g.is_dead());
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s6_control_goes_to_any_greenlet_not_only_up_and_down() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let ring: Rc<RefCell<Vec<Greenlet<u32>>>> = Rc::default();
        for _ in 0..3 {
            let g = Greenlet::new(me, {
                let (ring, log) = (Rc::clone(&ring), log.clone());
                move |me, mut n: u32| {
                    while n < 9 {
                        log.add(n);
                        let next = ring.borrow()[(n as usize + 1) % 3].clone();
                        n = me.switch(&next, n + 1)?;
                    }
                    Ok(n)
                }
            });
            ring.borrow_mut().push(g);
        }
        let first = ring.borrow()[0].clone();
        assert_eq!(me.switch(&first, 0).unwrap(), 9);
        let left = std::mem::take(&mut *ring.borrow_mut());
        assert_eq!(left.iter().filter(|g| g.is_dead()).count(), 1);
    });
    assert_eq!(log.take(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn s7_the_value_goes_to_the_parent_not_to_the_last_sender() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<T>| {
            let child = Greenlet::new(me, |_, value: T| Ok(value));
            let caller = Greenlet::new(me, move |me, first: Option<T>| {
                let outcome = me.switch(&child, first.expect("the first"));
                assert!(outcome.as_ref().is_err_and(|thrown| thrown.is_exit()));
                outcome.map(|_| unreachable!())
            });
            let value = me.switch(&caller, Some(T::new(&census, 5))).unwrap();
            assert_eq!(value.value(), 5);
            assert!(caller.is_active());
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s7_the_value_goes_to_the_parent_at_that_moment() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let main = me.handle();
        let adopter = Greenlet::new(me, {
            let log = log.clone();
            let main = main.clone();
            move |me, n: u32| {
                log.add(me.switch(&main, n)?);
                Ok(0)
            }
        });
        let child = Greenlet::new(me, move |me, n: u32| me.switch(&main, n));
        me.switch(&adopter, 1).unwrap();
        me.switch(&child, 2).unwrap();
        child.set_parent(&adopter).unwrap();
        assert_eq!(me.switch(&child, 3).unwrap(), 0);
        assert!(adopter.is_dead());
    });
    assert_eq!(log.take(), [3]);
}

#[test]
fn s7_a_new_parent_is_started_with_the_value() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<T>| {
            let parent = Greenlet::new(me, |_, value: T| {
                assert_eq!(value.value(), 8);
                Ok(value)
            });
            let child = Greenlet::new(me, |_, value: T| Ok(value));
            child.set_parent(&parent).unwrap();
            let value = me.switch(&child, T::new(&census, 8)).unwrap();
            assert_eq!(value.value(), 8);
            assert!(child.is_dead() && parent.is_dead());
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s7_dead_parents_are_skipped_for_the_first_live_ancestor() {
    fn check<T: Payload>() {
        let census = Census::new();
        let log = Log::new();
        enter(|me: &Root<T>| {
            let main = me.handle();
            let first = Greenlet::new(me, {
                let log = log.clone();
                move |me, value: T| {
                    let value = me.switch(&main, value)?;
                    log.add(value.value());
                    Ok(value)
                }
            });
            me.switch(&first, T::new(&census, 1)).unwrap();
            let second = Greenlet::new(me, |_, value: T| Ok(value));
            let third = Greenlet::new(me, |_, value: T| Ok(value));
            let child = Greenlet::new(me, |_, value: T| Ok(value));
            second.set_parent(&first).unwrap();
            third.set_parent(&second).unwrap();
            child.set_parent(&third).unwrap();
            me.kill(&third).unwrap();
            me.kill(&second).unwrap();
            let value = me.switch(&child, T::new(&census, 2)).unwrap();
            assert_eq!(value.value(), 2);
            assert!(first.is_dead());
        });
        assert_eq!(log.take(), [2]);
    }
    with_each_cargo!(check);
}

/// Makes a child whose parent is dead. `me` has another inbox type than that parent.
fn orphan<'e, T: Payload>(me: &Current<'e, ()>, census: &Census) -> Greenlet<'e, T> {
    let slot = Rc::new(RefCell::new(None));
    let parent = Greenlet::new(me, {
        let slot = Rc::clone(&slot);
        move |me, _: T| {
            slot.replace(Some(Greenlet::new(me, |_, value: T| Ok(value))));
            Ok(())
        }
    });
    me.switch(&parent, T::new(census, 0)).unwrap();
    assert!(parent.is_dead());
    slot.take().unwrap()
}

#[test]
fn s7_a_value_that_the_live_ancestor_does_not_take_arrives_in_an_error() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<()>| {
            let child = orphan::<T>(me, &census);
            let thrown = me.switch(&child, T::new(&census, 6)).unwrap_err();
            assert!(!thrown.is_exit() && !thrown.is_child_exit());
            let thrown = thrown.into_value::<String>().unwrap_err();
            assert_eq!(thrown.into_value::<T>().unwrap().value(), 6);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s7_a_value_in_an_error_is_dropped_with_it() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<()>| {
            let child = orphan::<T>(me, &census);
            let thrown = me.switch(&child, T::new(&census, 6)).unwrap_err();
            assert_eq!(census.alive(), 1);
            drop(thrown);
            assert_eq!(census.alive(), 0);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s7_a_value_in_an_error_goes_on_as_errors_do() {
    fn check<T: Payload>() {
        let census = Rc::new(Census::new());
        enter(|me: &Root<()>| {
            let between = Greenlet::new(me, {
                let census = Rc::clone(&census);
                move |me: &Child<(), _>, ()| {
                    let child = orphan::<T>(me, &census);
                    me.switch(&child, T::new(&census, 6))
                }
            });
            let thrown = me.switch(&between, ()).unwrap_err();
            assert_eq!(thrown.into_value::<T>().unwrap().value(), 6);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s7_the_first_live_ancestor_has_it_even_if_a_further_one_takes_the_type() {
    let census = Rc::new(Census::new());
    enter(|me: &Root<Word>| {
        let between = Greenlet::new(me, {
            let census = Rc::clone(&census);
            move |me: &Child<(), _>, ()| {
                let child = orphan::<Word>(me, &census);
                let outcome = me.switch(&child, Word::new(&census, 6));
                let word = outcome.unwrap_err().into_value::<Word>().unwrap();
                Err(Number(word.value() as u32).into())
            }
        });
        assert_eq!(number(me.switch(&between, ())), 6);
    });
}

#[test]
fn s7_a_value_to_a_busy_parent_reaches_the_greenlet_it_waits_for_in_an_error() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<T>| {
            let child = Greenlet::new(me, |_, value: T| Ok(value));
            enter(|inner: &Root<()>| {
                let thrown = inner.switch(&child, T::new(&census, 4)).unwrap_err();
                assert_eq!(thrown.into_value::<T>().unwrap().value(), 4);
            });
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s7_a_parent_without_a_stack_stays_new_and_the_value_goes_on_in_an_error() {
    const TOO_MUCH: usize = 1 << (usize::BITS - 2);
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<T>| {
            // On 32 bits some can be mapped.
            let mut started = Vec::new();
            for _ in 0..4 {
                let main = me.handle();
                let build = Builder::new().stack_size(TOO_MUCH);
                let parent = build.build(me, move |me, value: T| me.switch(&main, value));
                let parent = parent.unwrap();
                let child = Greenlet::new(me, |_, value: T| Ok(value));
                child.set_parent(&parent).unwrap();
                match me.switch(&child, T::new(&census, 3)) {
                    Ok(value) => assert_eq!(value.value(), 3),
                    Err(thrown) => {
                        assert!(is_new(&parent) && child.is_dead());
                        assert_eq!(thrown.into_value::<T>().unwrap().value(), 3);
                        return;
                    }
                }
                started.push(parent);
            }
            panic!("all of the address space was had");
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s8_a_switch_to_oneself_returns_the_message_at_once() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<T>| {
            let back = me.switch(&me.handle(), T::new(&census, 2)).unwrap();
            assert_eq!(back.value(), 2);
            let g = Greenlet::new(me, |me, message: T| {
                let back = me.switch(&me.handle(), message)?;
                me.try_switch(&me.handle(), back).unwrap()
            });
            assert_eq!(me.switch(&g, T::new(&census, 3)).unwrap().value(), 3);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s9_a_switch_to_the_dead_goes_to_its_first_live_ancestor() {
    fn check<T: Payload>() {
        let census = Census::new();
        let log = Log::new();
        enter(|me: &Root<T>| {
            let main = me.handle();
            let live = Greenlet::new(me, {
                let log = log.clone();
                move |me, value: T| {
                    let value = me.switch(&main, value)?;
                    log.add(value.value());
                    Ok(value)
                }
            });
            me.switch(&live, T::new(&census, 1)).unwrap();
            let dead = Greenlet::new(me, |_, value: T| Ok(value));
            let deader = Greenlet::new(me, |_, value: T| Ok(value));
            me.kill(&dead).unwrap();
            me.kill(&deader).unwrap();
            dead.set_parent(&live).unwrap();
            deader.set_parent(&dead).unwrap();
            assert_eq!(me.switch(&deader, T::new(&census, 2)).unwrap().value(), 2);
            assert!(live.is_dead());
            // Now the first live ancestor is the caller.
            assert_eq!(me.switch(&deader, T::new(&census, 3)).unwrap().value(), 3);
        });
        assert_eq!(log.take(), [2]);
    }
    with_each_cargo!(check);
}

#[test]
fn s9_a_new_ancestor_of_the_dead_is_started() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<T>| {
            let new = Greenlet::new(me, |_, value: T| {
                assert_eq!(value.value(), 2);
                Ok(value)
            });
            let dead = Greenlet::new(me, |_, value: T| Ok(value));
            me.kill(&dead).unwrap();
            dead.set_parent(&new).unwrap();
            assert_eq!(me.switch(&dead, T::new(&census, 2)).unwrap().value(), 2);
            assert!(new.is_dead());
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s9_where_no_ancestor_takes_it_the_message_comes_back() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<()>| {
            let dead = Greenlet::new(me, |_, _: T| Ok(()));
            me.kill(&dead).unwrap();
            match me.try_switch(&dead, T::new(&census, 6)) {
                Err(SwitchError::Dead(message)) => assert_eq!(message.value(), 6),
                _ => panic!("somebody received it"),
            }
            // `switch` returns the same refusal and drops the message.
            let refused = refusal(me.switch(&dead, T::new(&census, 6)));
            assert_eq!(refused, SwitchError::Dead(()));
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s9_the_current_main_receives_messages_to_a_dead_main() {
    let past = unscoped().enter(|me: &Current<u32>| me.handle());
    unscoped().enter(|me: &Current<u32>| assert_eq!(me.switch(&past, 3).unwrap(), 3));
    unscoped().enter(|me: &Current<()>| {
        let outcome = me.try_switch(&past, 3);
        assert!(matches!(outcome, Err(SwitchError::Dead(3))));
    });
}

#[test]
fn s10_the_value_of_a_greenlet_that_dies_without_a_handle_arrives() {
    fn check<T: Payload>() {
        let census = Rc::new(Census::new());
        enter(|me: &Root<T>| {
            let value = run_without_handles(me, {
                let census = Rc::clone(&census);
                move |_| Ok(T::new(&census, 11))
            });
            assert_eq!(value.unwrap().value(), 11);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s10_a_value_is_taken_before_its_sender_is_killed() {
    fn check<T: Payload>() {
        let census = Rc::new(Census::new());
        let log = Log::new();
        enter(|me: &Root<T>| {
            let main = me.handle();
            let value = run_without_handles(me, {
                let (census, log) = (Rc::clone(&census), log.clone());
                move |me| {
                    let _dropped = on_drop(|| {
                        // Overwrites the lower part of this stack.
                        let stack = [0xaa_u8; 4096];
                        std::hint::black_box(&stack);
                        log.add("the sender is killed");
                    });
                    me.switch(&main, T::new(&census, 12))?;
                    unreachable!("nobody can switch to it")
                }
            });
            log.add("its switch returns");
            assert_eq!(value.unwrap().value(), 12);
        });
        assert_eq!(log.take(), ["the sender is killed", "its switch returns"]);
    }
    with_each_cargo!(check);
}

#[test]
fn s10_a_value_without_size_is_not_lost_either() {
    shared_by_greenlets! {
        static DROPS: std::cell::Cell<u32> = std::cell::Cell::new(0);
    }
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPS.set(DROPS.get() + 1);
        }
    }
    enter(|me: &Root<Nothing>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, first: Nothing| {
            let second = me.switch(&main, first)?;
            Ok(second)
        });
        let back = me.switch(&g, Nothing).unwrap();
        assert_eq!(DROPS.get(), 0);
        drop(back);
        let back = me.switch(&g, Nothing).unwrap();
        assert_eq!(DROPS.get(), 1);
        drop(back);
        assert_eq!(DROPS.get(), 2);
        let _ = me.switch(&g, Nothing).unwrap();
        assert_eq!(DROPS.get(), 3);
    });
}

#[test]
fn s10_values_of_every_size_and_alignment_arrive_whole() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(align(64))]
    struct Aligned(u8);

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(align(4096))]
    struct AlignedNothing;

    fn check<T: Copy + PartialEq + std::fmt::Debug + 'static>(value: T) {
        enter(|me: &Root<T>| {
            let main = me.handle();
            // Unoptimized, each frame with an aligned value takes several times its alignment.
            let build = Builder::new().stack_size(1 << 20);
            let g = build
                .build(me, move |me, first: T| {
                    let second = me.switch(&main, first)?;
                    Ok(second)
                })
                .unwrap();
            assert_eq!(me.switch(&g, value).unwrap(), value);
            assert_eq!(me.switch(&g, value).unwrap(), value);
        });
    }
    check(());
    check(true);
    check(0xa5_u8);
    check([1_u8, 2, 3]);
    check(-1.5_f32);
    check([1_u8, 2, 3, 4, 5, 6, 7]);
    check(u64::MAX - 1);
    check((1_u8, 2_u64));
    check(u128::MAX - 1);
    check(Some("text"));
    check([7_u16; 99]);
    check(Aligned(3));
    check(AlignedNothing);
    check([0_u64; 0]);
    check([0_u128; 0]);
}
