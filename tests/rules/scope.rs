//! s20: scopes, whose greenlets may borrow.

use std::{cell::RefCell, mem, rc::Rc};

use greenlet::{Builder, Current, Greenlet, SwitchError, enter, scope};

use crate::support::{
    Number,
    census::{Cargo, Census, Word},
    child::child,
    log::{Log, on_drop},
    number,
    panics::catch,
};

#[test]
fn s20_bodies_may_borrow_from_outside() {
    let words = [String::from("to"), String::from("be")];
    let mut joined = String::new();
    scope(|s, me: &Current<()>| {
        let joins = s.greenlet(me, |_, ()| {
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
    let longest = scope(|s, me: &Current<&str>| {
        let main = me.handle();
        let doubles = s.greenlet(me, move |me, mut number: &mut u32| {
            for name in ["one", "three"] {
                *number *= 2;
                number = me.switch(&main, name)?;
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
    });
    assert_eq!(numbers, [2, 4, 6]);
    assert_eq!(longest, "three");
}

#[test]
fn s20_a_scope_returns_what_its_closure_returns() {
    assert_eq!(scope(|_, _: &Current<()>| 5), 5);
    enter(|me: &Current<()>| assert_eq!(me.scope(|_| 6), 6));
}

#[test]
fn s20_at_its_end_all_that_live_are_killed() {
    let log = Log::new();
    let census = Census::new();
    scope(|s, me: &Current<()>| {
        let main = &me.handle();
        let (log, census) = (&log, &census);
        for name in ["first", "second"] {
            let g = s.greenlet(me, move |me, ()| {
                let _dropped = log.at_drop(name);
                let _held = census.token();
                let outcome = me.switch(&me.handle(), ());
                outcome.and(Ok(()))
            });
            me.switch(&g, ()).unwrap();
            let suspended = s.greenlet(me, {
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
        mem::forget(s.greenlet(me, move |_, ()| {
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
    scope(|s, me: &Current<()>| {
        let main = me.handle();
        let number = &mut number;
        let g = s.greenlet(me, move |me, ()| {
            let _written = on_drop(|| *number += 1);
            me.switch(&main, ())
        });
        me.switch(&g, ()).unwrap();
        mem::forget((g.clone(), g));
    });
    assert_eq!(number, 2);
}

#[test]
fn s20_they_are_killed_when_the_closure_panics() {
    let log = Log::new();
    let caught = catch(|| {
        scope(|s, me: &Current<()>| {
            let main = me.handle();
            let log = &log;
            let g = s.greenlet(me, move |me, ()| {
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
fn s20_they_are_killed_when_a_member_panics() {
    let log = Log::new();
    let caught = catch(|| {
        scope(|s, me: &Current<()>| {
            let (main, log) = (me.handle(), &log);
            let g = s.greenlet(me, move |me, ()| {
                let _dropped = log.at_drop("killed");
                me.switch(&main, ())
            });
            me.switch(&g, ()).unwrap();
            mem::forget(g);
            let panics = s.greenlet(me, |_, ()| panic!("in a member"));
            me.switch(&panics, ()).unwrap();
        })
    });
    assert!(caught.is_err());
    assert_eq!(log.take(), ["killed"]);
}

#[test]
fn s20_they_are_killed_when_the_scopes_greenlet_is() {
    let log = Log::new();
    enter(|me: &Current<()>| {
        let main = me.handle();
        let owner = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let _dropped = log.at_drop("owner");
                let local = String::from("borrowed");
                me.scope(|s| {
                    let (back, log, local) = (main.clone(), &log, &local);
                    let member = s.greenlet(me, move |me, ()| {
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
        // The member switches out, and both are suspended.
        me.switch(&owner, ()).unwrap();
        assert!(owner.is_active());
        // The member, its child, holds it: to drop the handle here would not be enough.
        me.kill(&owner).unwrap();
        assert_eq!(log.take(), ["member", "owner"]);
    });
}

#[test]
fn s20_so_they_are_when_it_is_unwound_because_it_goes_on_switching() {
    let Some(ended) = child(|| {
        let log = Log::new();
        enter(|me: &Current<()>| {
            let main = me.handle();
            let owner = Greenlet::new(me, {
                let log = log.clone();
                move |me, ()| {
                    me.scope(|s| {
                        let (back, log) = (main.clone(), &log);
                        let member = s.greenlet(me, move |me, ()| {
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
fn s20_a_member_that_kills_the_scopes_owner_ends_with_it() {
    let log = Log::new();
    enter(|me: &Current<u32>| {
        let slot = Rc::new(RefCell::new(None::<Greenlet<()>>));
        let owner = Greenlet::new(me, {
            let (slot, log) = (Rc::clone(&slot), log.clone());
            move |me: &Current<()>, ()| {
                let _dropped = log.at_drop("owner");
                me.scope(|s| {
                    let (slot, log) = (&slot, &log);
                    let member = s.greenlet(me, move |me, ()| {
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
        // The member had no parent left but main, which takes no `()`; or it was ended first.
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

/// Runs `owner` in a greenlet to which the slot has a handle, and which is dead in the end.
fn run_owner(owner: impl FnOnce(&Current<()>, &Rc<RefCell<Option<Greenlet<()>>>>) + 'static) {
    enter(|me: &Current<()>| {
        let slot = Rc::new(RefCell::new(None));
        let greenlet = Greenlet::new(me, {
            let slot = Rc::clone(&slot);
            move |me, ()| {
                owner(me, &slot);
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
        move |me, slot| {
            let _dropped = log.at_drop("owner");
            me.scope(|s| {
                let log = &log;
                let owner = me.handle();
                let member = s.greenlet(me, move |me, ()| {
                    let _dropped = on_drop(|| {
                        let owner = slot.borrow_mut().take().unwrap();
                        let _ = me.kill(&owner);
                        log.add("member");
                    });
                    me.switch(&owner, ())
                });
                me.switch(&member, ()).unwrap();
                mem::forget(member);
            });
        }
    });
    assert_eq!(log.take(), ["member", "owner"]);
}

#[test]
fn s20_a_member_that_another_is_killing_when_the_scope_ends_ends_too() {
    let log = Log::new();
    run_owner({
        let log = log.clone();
        move |me, slot| {
            let _dropped = log.at_drop("owner");
            me.scope(|s| {
                let log = &log;
                let owner = me.handle();
                let killer = s.greenlet(me, move |me, member: Greenlet<(), _>| {
                    let _dropped = log.at_drop("killer");
                    let outcome = me.kill(&member);
                    log.add(if outcome.is_ok() { "killed" } else { "later" });
                    Ok(())
                });
                // Made last, and so the first to be killed when the scope ends.
                let member = s.greenlet(me, move |me, ()| {
                    let _dropped = on_drop(|| {
                        enter(|root: &Current<()>| {
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
                    me.switch(&owner, ())
                });
                me.switch(&member, ()).unwrap();
                let _ = me.switch(&killer, member);
                // Its drop would end both.
                mem::forget(killer);
            });
        }
    });
    let mut events = log.take();
    assert_eq!(events[0], "member");
    events.sort_unstable();
    let all = ["helper", "killed", "killer", "member", "owner"];
    assert_eq!(events, all);
}

#[test]
fn s20_members_may_make_members_also_while_the_scope_ends() {
    let log = Log::new();
    scope(|s, me: &Current<()>| {
        let (main, log) = (me.handle(), &log);
        let g = s.greenlet(me, move |me: &Current<()>, ()| {
            let _dropped = on_drop(|| {
                let late = s.greenlet(me, move |_, ()| unreachable!("it does not run"));
                mem::forget(late);
                log.add("made another");
            });
            let inner = s.greenlet(me, move |_, ()| Ok(()));
            me.switch(&inner, ())?;
            me.switch(&main, ())
        });
        me.switch(&g, ()).unwrap();
        mem::forget(g);
    });
    assert_eq!(log.take(), ["made another"]);
}

#[test]
fn s20_an_inner_scope_ends_first_and_may_borrow_from_the_outer() {
    let log = Log::new();
    scope(|outer, me: &Current<()>| {
        let (main, log) = (me.handle(), &log);
        let g = outer.greenlet(me, {
            let main = main.clone();
            move |me, ()| {
                let _dropped = log.at_drop("outer");
                me.switch(&main, ())
            }
        });
        me.switch(&g, ()).unwrap();
        me.scope(|inner| {
            let g = inner.greenlet(me, move |me, ()| {
                let _dropped = log.at_drop("inner");
                me.switch(&main, ())
            });
            me.switch(&g, ()).unwrap();
            mem::forget(g);
        });
        assert_eq!(log.take(), ["inner"]);
        mem::forget(g);
    });
    assert_eq!(log.take(), ["outer"]);
}

#[test]
fn s20_a_handle_that_escapes_is_one_to_a_dead_greenlet() {
    let census = Census::new();
    let escaped = RefCell::new(None);
    scope(|s, me: &Current<()>| {
        let main = me.handle();
        let escaped = &escaped;
        let g = s.greenlet(me, move |me, _: Word| {
            escaped.replace(Some(me.handle()));
            me.switch(&main, ()).map(drop)
        });
        me.switch(&g, Word::new(&census, 0)).unwrap();
        assert!(escaped.borrow().as_ref().unwrap().is_active());
    });
    let escaped: Greenlet<Word> = escaped.take().unwrap();
    assert!(escaped.is_dead());
    assert!(escaped.downgrade().upgrade().is_none());
    enter(|me: &Current<Word>| {
        let outcome = me.try_switch(&escaped, Word::new(&census, 0));
        assert!(matches!(outcome, Err(SwitchError::Dead(_))));
        assert_eq!(number(me.throw(&escaped, Number(2))), 2);
    });
}

#[test]
fn s20_a_value_that_no_ancestor_takes_is_dropped_and_an_error_says_so() {
    // Types that only borrow have no identity by which another ancestor could take them.
    let census = Census::new();
    scope(|s, me: &Current<()>| {
        let census = &census;
        let slot = Rc::new(RefCell::new(None));
        let filled = Rc::clone(&slot);
        let parent = s.greenlet(me, move |me: &Current<Word>, _: Word| {
            filled.replace(Some(s.greenlet(me, move |_, ()| Ok(Word::new(census, 0)))));
            Ok(())
        });
        me.switch(&parent, Word::new(census, 0)).unwrap();
        assert!(parent.is_dead());
        let child = slot.take().unwrap();
        let thrown = me.switch(&child, ()).unwrap_err();
        assert_eq!(census.alive(), 0);
        assert!(thrown.into_value::<Word>().is_err());
    });
}

#[test]
fn s20_a_scope_is_entered_in_a_greenlet_of_a_library_too() {
    enter(|me: &Current<u32>| {
        let g = Greenlet::new(me, |_, n: u32| {
            let text = scope(|s, me: &Current<String>| {
                let n = &n;
                let child = s.greenlet(me, |_, ()| Ok(n.to_string()));
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
    scope(|s, me: &Current<usize>| {
        let build = Builder::new().name("member").stack_size(64 * 1024);
        let g = build.build_scoped(s, me, |_, ()| Ok(text.len())).unwrap();
        assert_eq!(g.name(), Some("member"));
        assert_eq!(me.switch(&g, ()).unwrap(), 8);
    });
}

#[test]
fn s20_the_body_of_a_new_member_is_gone_at_its_end_also_amid_another_drop() {
    let log = Log::new();
    enter(|me: &Current<()>| {
        let events = log.clone();
        // Its body's destructor opens a scope, while the crate is at dropping that body.
        let outer = on_drop(move || {
            enter(|inner: &Current<()>| {
                inner.scope(|s| {
                    let member = events.at_drop("member");
                    drop(s.greenlet(inner, move |_, ()| {
                        drop(member);
                        Ok(())
                    }));
                });
                events.add("scope is over");
            });
        });
        drop(Greenlet::new(me, move |_, ()| {
            drop(outer);
            Ok(())
        }));
    });
    assert_eq!(log.take(), ["member", "scope is over"]);
}
