//! s20: greenlets that are made in an `enter` may borrow, and end with it.

use std::{cell::RefCell, mem, rc::Rc};

use greenlet::{Builder, Child, Current, Greenlet, Root, enter};

use crate::support::{
    census::{Census, Payload, Word},
    child::child,
    log::{Log, on_drop},
    panics::catch,
    unscoped,
};

#[test]
fn s20_bodies_may_borrow_from_outside() {
    let words = [String::from("to"), String::from("be")];
    let mut joined = String::new();
    enter(|me: &Root<()>| {
        let joins = Greenlet::new(me, |_, ()| {
            for word in &words {
                joined.push_str(word);
            }
            Ok(())
        });
        me.switch(&joins, ()).unwrap();
    });
    assert_eq!(joined, "tobe");
}

#[test]
fn s20_messages_may_borrow_from_outside() {
    let mut numbers = [1, 2, 3];
    let longest = enter(|root: &Root<()>| {
        root.with_inbox(|me: &Current<&'static str>| {
            let doubles = Greenlet::borrowing(me, |me, mut number: &mut u32| {
                for name in ["one", "three"] {
                    *number *= 2;
                    number = me.switch_to_parent(name)?;
                }
                *number *= 2;
                Ok("two")
            });
            let mut longest = "";
            for number in &mut numbers {
                let name = me.switch(&doubles, number).unwrap();
                if name.len() > longest.len() {
                    longest = name;
                }
            }
            longest
        })
    });
    assert_eq!(numbers, [2, 4, 6]);
    assert_eq!(longest, "three");
}

#[test]
fn s20_messages_to_a_root_may_borrow_from_outside_and_be_handles() {
    struct Job<'e, 'env> {
        worker: Greenlet<'e, ()>,
        text: &'env str,
    }

    let text = String::from("to be");
    enter(|root: &Root<()>| {
        root.with_inbox(|me: &Current<Option<Job>>| {
            let worker = Greenlet::borrowing(me, |me, ()| {
                for text in text.split(' ') {
                    let worker = me.handle();
                    me.switch_to_parent(Some(Job { worker, text }))?;
                }
                Ok(None)
            });
            let mut seen = Vec::new();
            let mut job = me.switch(&worker, ()).unwrap();
            while let Some(Job { worker, text }) = job {
                seen.push(text);
                job = me.switch(&worker, ()).unwrap();
            }
            assert_eq!(seen, ["to", "be"]);
        });
    });
}

#[test]
fn s20_what_is_made_with_another_inbox_lives_on_when_that_is_gone() {
    let log = Log::new();
    enter(|me: &Root<u8>| {
        let kept = me.with_inbox(|me: &Current<u32>| {
            let log = &log;
            let kept = Greenlet::new(me, move |me, n: u32| {
                let _dropped = log.at_drop("killed at the end");
                me.switch_to_parent(n + 1)
            });
            assert_eq!(me.switch(&kept, 1).unwrap(), 2);
            kept
        });
        assert!(kept.is_active());
        assert_eq!(log.take(), [""; 0]);
        mem::forget(kept);
    });
    assert_eq!(log.take(), ["killed at the end"]);
}

#[test]
fn s20_a_handle_shows_that_there_may_be_another_inbox() {
    enter(|me: &Root<u32>| {
        let echo = Greenlet::new(me, |me, mut n: u32| {
            loop {
                n = me.switch_to_parent(n)?;
            }
        });
        // There is no `Current` here.
        fn ask(echo: &Greenlet<u32>, n: u32) -> u32 {
            let child = echo.with_inbox(|me: &Current<u32>| {
                let asks = Greenlet::new(me, move |_, ()| Ok(n));
                me.switch(&asks, ()).unwrap()
            });
            child + 1
        }
        assert_eq!(me.switch(&echo, 5).unwrap(), 5);
        assert_eq!(ask(&echo, 7), 8);
    });
}

#[test]
fn s20_the_end_of_an_enter_kills_all_members_that_live() {
    let log = Log::new();
    let census = Census::new();
    enter(|me: &Root<()>| {
        let main = &me.handle();
        let (log, census) = (&log, &census);
        for name in ["first", "second"] {
            let g = Greenlet::new(me, move |me, ()| {
                let _dropped = log.at_drop(name);
                let _held = census.token();
                let outcome = me.switch(&me.handle(), ());
                outcome.and(Ok(()))
            });
            me.switch(&g, ()).unwrap();
            let suspended = Greenlet::new(me, {
                let main = main.clone();
                move |me, ()| {
                    let _dropped = log.at_drop(name);
                    let _held = census.token();
                    me.switch(&main, ())
                }
            });
            me.switch(&suspended, ()).unwrap();
            mem::forget(suspended);
        }
        let token = census.token();
        mem::forget(Greenlet::new(me, move |_, ()| {
            drop(token);
            unreachable!("new, it does not run")
        }));
        assert_eq!(log.take(), ["first", "second"]);
        assert_eq!(census.alive(), 3);
    });
    assert_eq!(census.alive(), 0);
    let mut names = log.take();
    names.sort_unstable();
    assert_eq!(names, ["first", "second"]);
}

#[test]
fn s20_forgotten_handles_do_not_keep_what_is_borrowed() {
    let mut number = 1;
    enter(|me: &Root<()>| {
        let main = me.handle();
        let number = &mut number;
        let g = Greenlet::new(me, move |me, ()| {
            let _written = on_drop(|| *number += 1);
            me.switch(&main, ())
        });
        me.switch(&g, ()).unwrap();
        mem::forget((g.clone(), g));
    });
    assert_eq!(number, 2);
}

#[test]
fn s20_members_are_killed_when_the_closure_panics() {
    let log = Log::new();
    let caught = catch(|| {
        enter(|me: &Root<()>| {
            let main = me.handle();
            let log = &log;
            let g = Greenlet::new(me, move |me, ()| {
                let _dropped = log.at_drop("killed");
                me.switch(&main, ())
            });
            me.switch(&g, ()).unwrap();
            mem::forget(g);
            panic!("out")
        })
    });
    assert!(caught.is_err());
    assert_eq!(log.take(), ["killed"]);
}

#[test]
fn s20_members_are_killed_when_a_member_panics() {
    let log = Log::new();
    let caught = catch(|| {
        enter(|me: &Root<()>| {
            let (main, log) = (me.handle(), &log);
            let g = Greenlet::new(me, move |me, ()| {
                let _dropped = log.at_drop("killed");
                me.switch(&main, ())
            });
            me.switch(&g, ()).unwrap();
            mem::forget(g);
            let panics = Greenlet::new(me, |_, ()| panic!("in a member"));
            me.switch(&panics, ()).unwrap();
        })
    });
    assert!(caught.is_err());
    assert_eq!(log.take(), ["killed"]);
}

#[test]
fn s20_members_are_killed_when_the_greenlet_that_entered_is_killed() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let owner = Greenlet::new(me, {
            let log = log.clone();
            move |_, ()| {
                let _dropped = log.at_drop("owner");
                let local = String::from("borrowed");
                enter(|me: &Root<()>| {
                    let (back, log, local) = (main.clone(), &log, &local);
                    let member = Greenlet::new(me, move |me, ()| {
                        let _dropped = on_drop(|| {
                            assert_eq!(local, "borrowed");
                            log.add("member");
                        });
                        me.switch(&back, ()).map(drop)
                    });
                    me.switch(&member, ())?;
                    Ok(())
                })
            }
        });
        // The member switches out, so both are suspended.
        me.switch(&owner, ()).unwrap();
        assert!(owner.is_active());
        me.kill(&owner).unwrap();
        assert_eq!(log.take(), ["member", "owner"]);
    });
}

#[test]
fn s20_members_are_killed_when_the_greenlet_that_entered_is_unwound() {
    let Some(ended) = child(|| {
        let log = Log::new();
        enter(|me: &Root<()>| {
            let main = me.handle();
            let owner = Greenlet::new(me, {
                let log = log.clone();
                move |_, ()| {
                    enter(|me: &Root<()>| {
                        let (back, log) = (main.clone(), &log);
                        let member = Greenlet::new(me, move |me, ()| {
                            let _dropped = log.at_drop("member");
                            loop {
                                let _ = me.switch(&back, ());
                            }
                        });
                        loop {
                            let _ = me.switch(&member, ());
                        }
                    })
                }
            });
            me.switch(&owner, ()).unwrap();
            me.kill(&owner).unwrap();
        });
        assert_eq!(log.take(), ["member"]);
    }) else {
        return;
    };
    ended.assert_success();
}

#[test]
fn s20_a_member_that_kills_the_greenlet_that_has_entered_ends_with_it() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let slot = Rc::new(RefCell::new(None::<Greenlet<()>>));
        let owner = Greenlet::new(me, {
            let (slot, log) = (Rc::clone(&slot), log.clone());
            move |_: &Child<(), _>, ()| {
                let _dropped = log.at_drop("owner");
                enter(|me: &Root<()>| {
                    let (slot, log) = (&slot, &log);
                    let member = Greenlet::new(me, move |me, ()| {
                        let _dropped = log.at_drop("member");
                        let owner = slot.borrow_mut().take().unwrap();
                        let outcome = me.kill(&owner);
                        log.add(if outcome.is_ok() { "killed" } else { "later" });
                        Ok(())
                    });
                    assert!(me.switch(&member, ()).unwrap_err().is_exit());
                    log.add("the owner exits");
                });
                Ok(1)
            }
        });
        slot.replace(Some(owner.clone()));
        let outcome = me.switch(&owner, ());
        assert!(owner.is_dead());
        drop(outcome);
    });
    let events = log.take();
    assert_eq!(events[0], "the owner exits");
    for event in ["member", "owner"] {
        assert_eq!(
            events.iter().filter(|seen| **seen == event).count(),
            1,
            "{events:?}"
        );
    }
    let place = |event| events.iter().position(|seen| *seen == event);
    assert!(place("member") < place("owner"), "{events:?}");
}

type Slot = Rc<RefCell<Option<Greenlet<'static, ()>>>>;

/// Runs `owner` in a greenlet whose handle is in the slot. The greenlet must die.
fn run_owner(owner: impl FnOnce(&Slot) + 'static) {
    unscoped().enter(|me: &Current<()>| {
        let slot = Rc::new(RefCell::new(None));
        let greenlet = Greenlet::new(me, {
            let slot = Rc::clone(&slot);
            move |_, ()| {
                owner(&slot);
                Ok(())
            }
        });
        slot.replace(Some(greenlet.clone()));
        let _ = me.switch(&greenlet, ());
        assert!(greenlet.is_dead());
    });
}

#[test]
fn s20_a_member_that_kills_the_owner_as_it_is_itself_killed_ends_too() {
    let log = Log::new();
    run_owner({
        let log = log.clone();
        move |slot: &Slot| {
            let _dropped = log.at_drop("owner");
            enter(|me: &Root<()>| {
                let log = &log;
                let root = me.handle();
                let member = Greenlet::new(me, move |me, ()| {
                    let _dropped = on_drop(|| {
                        let owner = slot.borrow_mut().take().unwrap();
                        let _ = me.kill(&owner);
                        log.add("member");
                    });
                    me.switch(&root, ())
                });
                me.switch(&member, ()).unwrap();
                mem::forget(member);
            });
        }
    });
    assert_eq!(log.take(), ["member", "owner"]);
}

#[test]
fn s20_a_member_that_another_is_killing_at_the_end_ends_too() {
    let log = Log::new();
    run_owner({
        let log = log.clone();
        move |slot: &Slot| {
            let _dropped = log.at_drop("owner");
            enter(|me: &Root<()>| {
                let log = &log;
                let root = me.handle();
                let killer = Greenlet::borrowing(me, move |me, member: Greenlet<()>| {
                    let _dropped = log.at_drop("killer");
                    let outcome = me.kill(&member);
                    log.add(if outcome.is_ok() { "killed" } else { "later" });
                    Ok(())
                });
                // Made last, so killed first at the end.
                let member = Greenlet::new(me, move |me, ()| {
                    let _dropped = on_drop(|| {
                        enter(|root: &Root<()>| {
                            let (slot, log) = (Rc::clone(slot), log.clone());
                            let helper = Greenlet::new(root, move |me, ()| {
                                let _dropped = log.at_drop("helper");
                                let owner = slot.borrow_mut().take().unwrap();
                                let _ = me.kill(&owner);
                                Ok(())
                            });
                            let _ = root.switch(&helper, ());
                        });
                        log.add("member");
                    });
                    me.switch(&root, ())
                });
                me.switch(&member, ()).unwrap();
                let _ = me.switch(&killer, member);
                // Its drop would end both.
                mem::forget(killer);
            });
        }
    });
    let mut events = log.take();
    events.sort_unstable();
    let all = ["helper", "killed", "killer", "member", "owner"];
    assert_eq!(events, all);
}

#[test]
fn s20_members_may_make_members_also_at_the_end() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let (main, log) = (me.handle(), &log);
        let g = Greenlet::new(me, move |me: &Child<(), _>, ()| {
            let _dropped = on_drop(|| {
                let late = Greenlet::new(me, move |_, ()| unreachable!("it does not run"));
                mem::forget(late);
                log.add("made another");
            });
            let inner = Greenlet::new(me, move |_, ()| Ok(()));
            me.switch(&inner, ())?;
            me.switch(&main, ())
        });
        me.switch(&g, ()).unwrap();
        mem::forget(g);
    });
    assert_eq!(log.take(), ["made another"]);
}

#[test]
fn s20_an_inner_enter_ends_first_and_may_borrow_from_the_outer() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let g = Greenlet::new(me, |me, ()| {
            let _dropped = log.at_drop("outer");
            me.switch_to_parent(())
        });
        me.switch(&g, ()).unwrap();
        let borrowed = &g;
        enter(|inner: &Root<()>| {
            let g = Greenlet::new(inner, move |me, ()| {
                let _dropped = on_drop(|| {
                    assert!(borrowed.is_active());
                    log.add("inner");
                });
                me.switch_to_parent(())
            });
            inner.switch(&g, ()).unwrap();
            mem::forget(g);
        });
        assert_eq!(log.take(), ["inner"]);
        mem::forget(g);
    });
    assert_eq!(log.take(), ["outer"]);
}

#[test]
fn s20_a_value_of_a_type_that_borrows_is_dropped_if_the_parent_is_dead() {
    // Types that borrow have no identity by which another ancestor could take them.
    let census = Census::new();
    enter(|root: &Root<()>| {
        root.with_inbox(|me: &Current<Word>| {
            let census = &census;
            let slot = Rc::new(RefCell::new(None));
            let filled = Rc::clone(&slot);
            let parent = Greenlet::borrowing(me, move |me: &Child<Word, _>, _: Word| {
                let child = Greenlet::borrowing(me, move |_, ()| Ok(Word::new(census, 0)));
                filled.replace(Some(child));
                Ok(Word::new(census, 1))
            });
            drop(me.switch(&parent, Word::new(census, 0)).unwrap());
            assert!(parent.is_dead());
            let child = slot.take().unwrap();
            let thrown = me.switch(&child, ()).unwrap_err();
            assert_eq!(census.alive(), 0);
            assert!(thrown.into_value::<Word>().is_err());
        });
    });
}

#[test]
fn s20_a_greenlet_enters_for_its_own_borrows() {
    enter(|me: &Root<u32>| {
        let g = Greenlet::new(me, |_, n: u32| {
            let text = enter(|me: &Root<String>| {
                let n = &n;
                let child = Greenlet::new(me, |_, ()| Ok(n.to_string()));
                me.switch(&child, ()).unwrap()
            });
            Ok(text.len() as u32)
        });
        assert_eq!(me.switch(&g, 1234).unwrap(), 4);
    });
}

#[test]
fn s20_a_builder_makes_members() {
    let text = String::from("borrowed");
    enter(|me: &Root<usize>| {
        let build = Builder::new().name("member").stack_size(64 * 1024);
        let g = build.build(me, |_, ()| Ok(text.len())).unwrap();
        assert_eq!(g.name(), Some("member"));
        assert_eq!(me.switch(&g, ()).unwrap(), 8);
    });
}

#[test]
fn s20_the_body_of_a_new_member_is_gone_at_its_end_also_amid_another_drop() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let events = log.clone();
        // The body's destructor enters, while the crate drops the body.
        let outer = on_drop(move || {
            enter(|inner: &Root<()>| {
                let member = events.at_drop("member");
                drop(Greenlet::new(inner, move |_, ()| {
                    drop(member);
                    Ok(())
                }));
            });
            events.add("after the end");
        });
        drop(Greenlet::new(me, move |_, ()| {
            drop(outer);
            Ok(())
        }));
    });
    assert_eq!(log.take(), ["member", "after the end"]);
}
