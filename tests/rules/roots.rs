//! s1: the main greenlet. s2: entering again.

use std::{
    mem::MaybeUninit,
    sync::{Arc, Barrier},
    thread,
};

use greenlet::{
    Builder, Current, Greenlet, KillError, ParentError, Root, SwitchError, enter,
    raw::{Context, Departure, Message, Stack},
};

use crate::support::{
    Number,
    census::{Census, Payload, Word},
    child::child,
    number,
    panics::catch,
    unscoped,
};

#[test]
fn s1_enter_returns_what_its_closure_returns() {
    assert_eq!(enter(|_: &Root<()>| 42), 42);
}

#[test]
fn s1_main_is_active_while_its_closure_runs_and_dead_after() {
    let main = unscoped().enter(|me: &Current<()>| {
        let main = me.handle();
        assert!(main.is_active() && !main.is_dead());
        let child = Greenlet::new(me, {
            let main = main.clone();
            move |_, ()| {
                assert!(main.is_active() && !main.is_dead());
                Ok(())
            }
        });
        me.switch(&child, ()).unwrap();
        main
    });
    assert!(!main.is_active() && main.is_dead());
}

#[test]
fn s1_main_is_dead_after_a_panic_of_its_closure() {
    let mut escaped = None;
    let panic = catch(|| {
        unscoped().enter(|me: &Current<()>| {
            escaped = Some(me.handle());
            panic!("out")
        })
    });
    assert!(panic.is_err());
    assert!(escaped.unwrap().is_dead());
    assert_eq!(enter(|_: &Root<()>| "entered"), "entered");
}

#[test]
fn s1_main_has_no_parent() {
    enter(|me: &Root<()>| {
        let child = Greenlet::new(me, |_, ()| Ok(()));
        assert_eq!(me.handle().set_parent(&child), Err(ParentError::Root));
        assert_eq!(me.handle().set_parent(&me.handle()), Err(ParentError::Root));
    });
}

#[test]
fn s1_main_cannot_be_killed() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        assert_eq!(me.kill(&main), Err(KillError::Root));
        let child = Greenlet::new(me, move |me, ()| {
            assert_eq!(me.kill(&main), Err(KillError::Root));
            Ok(())
        });
        me.switch(&child, ()).unwrap();
        // It was not killed either.
        let child = Greenlet::new(me, |_, ()| Ok(()));
        me.switch(&child, ()).unwrap();
    });
}

#[test]
fn s1_each_thread_has_a_main_of_its_own() {
    let together = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4_u64)
        .map(|number| {
            let together = Arc::clone(&together);
            thread::spawn(move || {
                enter(|me| {
                    let main = me.handle();
                    let child = Greenlet::new(me, move |me, mut value: u64| {
                        for _ in 0..3 {
                            value = me.switch(&main, value * 10 + number)?;
                        }
                        Ok(value)
                    });
                    let mut value = number;
                    while !child.is_dead() {
                        together.wait();
                        value = me.switch(&child, value).unwrap();
                    }
                    value
                })
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), number as u64 * 1111);
    }
}

#[test]
fn s2_entering_in_a_greenlet_gives_its_stack_an_inbox_of_another_type() {
    enter(|me: &Root<u32>| {
        let child = Greenlet::new(me, |_, number: u32| {
            let text = enter(|library: &Root<String>| {
                let helper = Greenlet::new(library, |_, n: u32| Ok(n.to_string()));
                library.switch(&helper, number)
            })?;
            Ok(text.len() as u32)
        });
        assert_eq!(me.switch(&child, 12345).unwrap(), 5);
    });
}

#[test]
fn s2_the_greenlets_of_a_library_may_be_left_suspended_and_found_again() {
    enter(|me: &Root<u32>| {
        let child = Greenlet::new(me, |me, mut n: u32| {
            let (counter, first) = unscoped().enter(|library: &Current<String>| {
                let root = library.handle();
                let counter = Greenlet::new(library, move |me, ()| {
                    me.switch(&root, "one".to_string())?;
                    Ok("two".to_string())
                });
                let first = library.switch(&counter, ()).unwrap();
                (counter, first)
            });
            n += first.len() as u32;
            // The root that it was made by has finished; the next one of the same type receives instead.
            n += unscoped()
                .enter(|again: &Current<String>| {
                    counter.set_parent(&again.handle()).unwrap();
                    again.switch(&counter, ())
                })?
                .len() as u32;
            let _ = me;
            Ok(n)
        });
        assert_eq!(me.switch(&child, 1).unwrap(), 7);
    });
}

#[test]
fn s2_the_outer_greenlet_is_busy_meanwhile_and_nothing_is_transferred() {
    let census = Census::new();
    enter(|me: &Root<Word>| {
        let main = me.handle();
        enter(|inner: &Root<()>| {
            assert!(main.is_active() && !main.is_dead());
            let message = Word::new(&census, 7);
            match inner.try_switch(&main, message) {
                Err(SwitchError::Busy(message)) => assert_eq!(message.value(), 7),
                _ => panic!("the outer greenlet received"),
            }
            match inner.try_throw(&main, Number(8)) {
                Err(SwitchError::Busy(thrown)) => assert_eq!(number::<()>(Err(thrown)), 8),
                _ => panic!("the outer greenlet received"),
            }
        });
        let child = Greenlet::new(me, |_, word: Word| Ok(word));
        let back = me.switch(&child, Word::new(&census, 9)).unwrap();
        assert_eq!(back.value(), 9);
    });
}

#[test]
fn s2_a_busy_greenlet_can_be_switched_to_when_the_closure_is_done() {
    enter(|me: &Root<u32>| {
        let main = me.handle();
        let busy = Greenlet::new(me, move |me, n: u32| {
            let n = enter(|inner: &Root<u32>| {
                let seen = Greenlet::new(inner, move |_, ()| Ok(n + 1));
                inner.switch(&seen, ())
            })?;
            let n = me.switch(&main, n)?;
            Ok(n * 2)
        });
        assert_eq!(me.switch(&busy, 1).unwrap(), 2);
        assert_eq!(me.switch(&busy, 10).unwrap(), 20);
    });
}

#[test]
fn s2_siblings_find_it_busy_too() {
    enter(|me: &Root<()>| {
        let busy = Greenlet::new(me, |me, ()| {
            let outer = me.handle();
            enter(|inner: &Root<bool>| {
                let sibling = Greenlet::new(inner, move |me, ()| {
                    Ok(matches!(
                        me.try_switch(&outer, ()),
                        Err(SwitchError::Busy(()))
                    ))
                });
                assert!(inner.switch(&sibling, ()).unwrap());
            });
            Ok(())
        });
        me.switch(&busy, ()).unwrap();
    });
}

#[test]
fn s2_the_outer_current_is_not_the_running_one_meanwhile() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let child = Greenlet::new(me, |_, _: Word| Ok(()));
        enter(|_: &Root<()>| {
            match me.try_switch(&child, Word::new(&census, 1)) {
                Err(SwitchError::NotCurrent(word)) => assert_eq!(word.value(), 1),
                _ => panic!("switched from a greenlet that waits"),
            }
            let outcome = me.try_throw(&child, Number(2));
            assert!(matches!(outcome, Err(SwitchError::NotCurrent(_))));
        });
        me.switch(&child, Word::new(&census, 3)).unwrap();
    });
}

#[test]
fn s2_a_panic_of_the_inner_closure_ends_the_outer_ones_wait() {
    enter(|me: &Root<()>| {
        let panic = catch(|| enter(|_: &Root<u8>| panic!("out")));
        assert!(panic.is_err());
        let child = Greenlet::new(me, |_, ()| Ok(()));
        me.switch(&child, ()).unwrap();
    });
}

#[test]
fn s2_roots_nest_to_any_depth() {
    fn deeper(depth: u32) -> u32 {
        enter(|me: &Root<u32>| {
            let child = Greenlet::new(me, move |_, ()| {
                Ok(if depth == 0 { 0 } else { 1 + deeper(depth - 1) })
            });
            me.switch(&child, ()).unwrap()
        })
    }
    assert_eq!(deeper(20), 20);
}

/// A thread's own stack, and another one that the crate does not know.
struct Unknown {
    own: Context,
    other: Context,
}

const NOTHING: Message = Message {
    word: MaybeUninit::uninit(),
    kind: 0,
};

/// Enters on the other stack, and switches away inside.
unsafe extern "C" fn enters(
    both: *mut (),
    _: MaybeUninit<usize>,
    _: usize,
    departure: *mut Departure,
) {
    // SAFETY: `both` is one that lives until the other is over; the own stack waits, and is
    // resumed with what is written last.
    unsafe {
        let both = &*both.cast::<Unknown>();
        enter(|_: &Root<()>| both.other.switch(&both.own, NOTHING));
        departure.write(Departure {
            to: MaybeUninit::new(&both.own),
            message: MaybeUninit::new(NOTHING),
        });
    }
}

#[test]
fn s2_a_root_that_ends_before_a_later_root_aborts_with_a_message() {
    let Some(ended) = child(|| {
        let stack = Stack::map(64 * 1024, 4096).unwrap();
        let both = Unknown {
            own: Context::new(),
            other: Context::new(),
        };
        let argument = (&raw const both).cast_mut().cast();
        // SAFETY: the stack is the other context's until the end of this function, before which
        // the context has finished, and nothing else prepares it. This thread runs on the own one.
        unsafe {
            both.other.prepare(stack.top(), enters, argument);
            both.own.switch(&both.other, NOTHING);
        }
        enter(|_: &Root<()>| {
            // SAFETY: as before; the other one waits in its switch.
            unsafe { both.own.switch(&both.other, NOTHING) };
            eprintln!("it went on");
        });
    }) else {
        return;
    };
    ended.assert_aborted_with(&["busy", "main", "ends"]);
    assert!(!ended.stderr.contains("it went on"));
}

#[test]
fn s1_debug_says_that_it_is_main() {
    enter(|me: &Root<()>| {
        let words = format!("{me:?}");
        assert!(words.contains("current active started main"), "{words}");
        let child = Builder::new().name("n").build(me, |_, ()| Ok(())).unwrap();
        assert!(!format!("{child:?}").contains("main"));
    });
}

#[test]
fn s9_nothing_gets_out_of_an_enter_without_a_handle() {
    // Else the initializer of a thread-local could be left, and the key be initialized once more.
    enter(|me: &Root<u32>| {
        let enters = Greenlet::new(me, |_, ()| {
            enter(|inner: &Root<()>| {
                // Its parent is a finished root. The only greenlet that takes a `u32` is outside.
                let orphan =
                    inner.with_inbox(|nested: &Current<u32>| Greenlet::new(nested, |_, ()| Ok(5)));
                let outcome = inner.switch(&orphan, ());
                assert_eq!(outcome.unwrap_err().into_value::<u32>().unwrap(), 5);
                let orphan = inner.with_inbox(|nested: &Current<u32>| {
                    Greenlet::new(nested, |_, ()| Err(Number(6).into()))
                });
                assert_eq!(number(inner.switch(&orphan, ())), 6);
                let past = inner.with_inbox(|nested: &Current<u32>| nested.handle());
                let refused = inner.try_switch(&past, 7).unwrap_err();
                assert_eq!(refused, SwitchError::Dead(7));
            });
            Ok(1)
        });
        assert_eq!(me.switch(&enters, ()).unwrap(), 1);
    });
}
