//! s3: the default parent. s4: another parent.

use std::cell::RefCell;

use greenlet::{Child, Current, Greenlet, ParentError, Root, SwitchError, Thrown, enter};

use crate::support::{Number, is_new, log::Log, number, unscoped};

#[test]
fn s3_the_parent_is_the_greenlet_that_runs_at_construction() {
    enter(|root: &Root<()>| {
        root.with_inbox(|me: &Current<Option<Greenlet<()>>>| {
            let main = me.handle();
            let maker = Greenlet::borrowing(me, move |me, _: u32| {
                let child = Greenlet::new(me, |_, ()| Ok(7));
                let heard = me.switch(&main, Some(child))?;
                assert_eq!(heard, 7);
                Ok(None)
            });
            let child = me.switch(&maker, 0).unwrap().unwrap();
            assert!(me.switch(&child, ()).unwrap().is_none());
            assert!(child.is_dead() && maker.is_dead());
        })
    });
}

#[test]
fn s3_a_child_holds_its_parent() {
    let log = Log::new();
    enter(|root: &Root<()>| {
        root.with_inbox(|me: &Current<Option<Greenlet<()>>>| {
            let main = me.handle();
            let parent = Greenlet::borrowing(me, {
                let log = log.clone();
                move |me, ()| {
                    let _dropped = log.at_drop("parent");
                    let back = main.clone();
                    let child = Greenlet::new(me, move |me, ()| {
                        let _dropped = log.at_drop("child");
                        me.switch(&back, None)
                    });
                    me.switch(&main, Some(child))?;
                    Ok(None)
                }
            });
            let child = me.switch(&parent, ()).unwrap().unwrap();
            me.switch(&child, ()).unwrap();
            drop(parent);
            assert_eq!(log.take(), [""; 0]);
            drop(child);
            assert_eq!(log.take(), ["child", "parent"]);
        })
    });
}

/// Makes a greenlet that sends each number, plus a hundred, to its parent.
fn relay<'e>(me: &Current<'e, u32>) -> Greenlet<'e, u32> {
    Greenlet::new(me, |_, n| Ok(n + 100))
}

#[test]
fn s4_the_parent_of_a_new_greenlet_can_be_set() {
    enter(|me| {
        let child = Greenlet::new(me, |_, n: u32| Ok(n));
        let relay = relay(me);
        child.set_parent(&relay).unwrap();
        assert_eq!(me.switch(&child, 1).unwrap(), 101);
        assert!(relay.is_dead());
    });
}

#[test]
fn s4_the_parent_of_a_suspended_greenlet_can_be_set() {
    enter(|me| {
        let main = me.handle();
        let child = Greenlet::new(me, move |me, n: u32| me.switch(&main, n));
        let relay = relay(me);
        assert_eq!(me.switch(&child, 1).unwrap(), 1);
        child.set_parent(&relay).unwrap();
        assert_eq!(me.switch(&child, 2).unwrap(), 102);
    });
}

#[test]
fn s4_the_parent_of_the_running_greenlet_can_be_set() {
    enter(|me| {
        let relay = relay(me);
        let child = Greenlet::new(me, move |me, n: u32| {
            me.handle().set_parent(&relay).unwrap();
            Ok(n)
        });
        assert_eq!(me.switch(&child, 1).unwrap(), 101);
    });
}

#[test]
fn s4_the_parent_of_a_busy_greenlet_can_be_set() {
    enter(|me| {
        let relay = relay(me);
        let child = Greenlet::new(me, move |me, n: u32| {
            enter(|_: &Root<()>| me.handle().set_parent(&relay)).unwrap();
            Ok(n)
        });
        assert_eq!(me.switch(&child, 1).unwrap(), 101);
    });
}

#[test]
fn s4_the_parent_of_a_dead_greenlet_can_be_set() {
    enter(|me| {
        let child = Greenlet::new(me, |_, n: u32| Ok(n));
        assert_eq!(me.switch(&child, 1).unwrap(), 1);
        let relay = relay(me);
        child.set_parent(&relay).unwrap();
        assert!(is_new(&relay));
        assert_eq!(me.switch(&child, 2).unwrap(), 102);
    });
}

#[test]
fn s4_a_cycle_is_an_error_and_changes_nothing() {
    enter(|me: &Root<u32>| {
        let first = relay(me);
        let second = relay(me);
        let third = relay(me);
        second.set_parent(&first).unwrap();
        third.set_parent(&second).unwrap();
        assert_eq!(first.set_parent(&first), Err(ParentError::Cycle));
        assert_eq!(first.set_parent(&second), Err(ParentError::Cycle));
        assert_eq!(first.set_parent(&third), Err(ParentError::Cycle));
        assert_eq!(me.switch(&third, 1).unwrap(), 301);
    });
}

#[test]
fn s4_a_cycle_through_the_running_greenlet_is_an_error() {
    enter(|me: &Root<u32>| {
        let outer = Greenlet::new(me, |me: &Child<u32, _>, n: u32| {
            let inner = Greenlet::new(me, |_, n: u32| Ok(n));
            assert_eq!(me.handle().set_parent(&inner), Err(ParentError::Cycle));
            me.switch(&inner, n + 1)
        });
        assert_eq!(me.switch(&outer, 1).unwrap(), 2);
    });
}

#[test]
fn s4_a_cycle_through_a_root_on_its_stack_is_an_error_while_that_lasts() {
    unscoped().enter(|me: &Current<u32>| {
        let outer = Greenlet::new(me, |me: &Child<u32, _>, n: u32| {
            let outer = me.handle();
            let inner = unscoped().enter(|root: &Current<u32>| {
                let inner = relay(root);
                assert_eq!(outer.set_parent(&root.handle()), Err(ParentError::Cycle));
                assert_eq!(outer.set_parent(&inner), Err(ParentError::Cycle));
                unscoped().enter(|nested: &Current<u32>| {
                    let innermost = relay(nested);
                    assert_eq!(outer.set_parent(&innermost), Err(ParentError::Cycle));
                    // It does not lie on the way down from there.
                    inner.set_parent(&innermost).unwrap();
                });
                inner
            });
            outer.set_parent(&inner).unwrap();
            Ok(n)
        });
        assert_eq!(me.switch(&outer, 1).unwrap(), 201);
    });
}

#[test]
fn s4_a_parent_that_does_not_take_what_the_body_returns_is_refused() {
    enter(|me: &Root<u32>| {
        let child = Greenlet::new(me, |_, n: u32| Ok(n));
        let text = Greenlet::new(me, |_, text: String| Ok(text.len() as u32));
        assert_eq!(child.set_parent(&text), Err(ParentError::WrongType));
        assert_eq!(me.switch(&child, 1).unwrap(), 1);
        assert!(is_new(&text));
    });
}

#[test]
fn s4_the_old_parent_is_released_and_the_new_one_held() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let main = me.handle();
        let parent = |name| {
            let (log, main) = (log.clone(), main.clone());
            let parent = Greenlet::new(me, move |me, n: u32| {
                let _dropped = log.at_drop(name);
                me.switch(&main, n)
            });
            assert_eq!(me.switch(&parent, 0).unwrap(), 0);
            parent
        };
        let child = Greenlet::new(me, |_, n: u32| Ok(n));
        let (old, new) = (parent("old"), parent("new"));
        child.set_parent(&old).unwrap();
        drop(old);
        assert_eq!(log.take(), [""; 0]);
        child.set_parent(&new).unwrap();
        assert_eq!(log.take(), ["old"]);
        drop(new);
        assert_eq!(log.take(), [""; 0]);
        drop(child);
        assert_eq!(log.take(), ["new"]);
    });
}

#[test]
fn s4_an_error_goes_to_the_parent_at_that_moment() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let main = me.handle();
        let other = Greenlet::new(me, {
            let log = log.clone();
            move |me, n: u32| {
                log.add(number(me.switch(&main, n)));
                Ok(9)
            }
        });
        let child = Greenlet::new(me, |_, ()| Err(Number(3).into()));
        assert_eq!(me.switch(&other, 1).unwrap(), 1);
        child.set_parent(&other).unwrap();
        assert_eq!(me.switch(&child, ()).unwrap(), 9);
        assert_eq!(log.take(), [3]);
    });
}

/// Gives `child` another parent when it is dropped.
struct Moves<'e> {
    child: RefCell<Option<Greenlet<'e, ()>>>,
    parent: Greenlet<'e, ()>,
    /// Its block is too large for its memory to be kept for the next.
    _bulk: [u8; 1000],
}

impl Drop for Moves<'_> {
    fn drop(&mut self) {
        let child = self.child.take().unwrap();
        child.set_parent(&self.parent).unwrap();
    }
}

/// A child whose parent, new and held by nothing but the child, is freed while its body is dropped.
fn child_that_is_moved<'e>(
    me: &Current<'e, ()>,
    body: impl FnOnce(&Child<'e, (), ()>, ()) -> Result<(), Thrown> + 'e,
) -> Greenlet<'e, ()> {
    let child = Greenlet::new(me, body);
    let moves = Moves {
        child: RefCell::new(Some(child.clone())),
        parent: me.handle(),
        _bulk: [0; 1000],
    };
    let parent: Greenlet<()> = Greenlet::new(me, move |_, ()| {
        drop(moves);
        Ok(())
    });
    child.set_parent(&parent).unwrap();
    child
}

#[test]
fn s11_an_error_goes_on_from_a_parent_that_is_gone_once_it_has_died_of_it() {
    enter(|me| {
        let child = child_that_is_moved(me, |_, ()| Err(Number(1).into()));
        assert_eq!(number(me.switch(&child, ())), 1);
    });
}

#[test]
fn s12_an_error_goes_on_from_a_new_parent_that_is_gone_once_it_has_died_of_it() {
    enter(|me| {
        let child = child_that_is_moved(me, |_, ()| Ok(()));
        assert_eq!(number(me.throw(&child, Number(2))), 2);
        assert!(child.is_dead());
    });
}

#[test]
fn s4_types_that_borrow_are_not_compared_but_a_greenlet_knows_its_own() {
    enter(|me: &Root<u32>| {
        let relay = Greenlet::borrowing(me, |_, n: u32| Ok(n + 100));
        let child = Greenlet::borrowing(me, {
            let relay = relay.clone();
            move |me, n: u32| {
                assert_eq!(me.set_parent(&me.handle()), Err(ParentError::Cycle));
                me.set_parent(&relay)?;
                Ok(n)
            }
        });
        assert_eq!(child.set_parent(&relay), Err(ParentError::WrongType));
        assert_eq!(child.set_parent(&me.handle()), Err(ParentError::WrongType));
        assert_eq!(me.switch(&child, 1).unwrap(), 101);
    });
}

#[test]
fn s6_a_message_to_the_parent_goes_to_the_parent_of_that_moment() {
    enter(|me: &Root<u32>| {
        let child = Greenlet::new(me, |me, mut n: u32| {
            loop {
                n = me.switch_to_parent(n + 1)?;
            }
        });
        assert_eq!(me.switch(&child, 1).unwrap(), 2);
        let new = Greenlet::new(me, |_, n: u32| Ok(n + 100));
        child.set_parent(&new).unwrap();
        assert_eq!(me.switch(&child, 1).unwrap(), 102);
        assert!(new.is_dead());
        // The parent receives in place of a dead greenlet.
        assert_eq!(me.switch(&child, 2).unwrap(), 3);
    });
}

#[test]
fn s9_a_message_to_the_parent_that_is_not_sent_comes_back() {
    enter(|me: &Root<()>| {
        let parent = Greenlet::new(me, |me: &Child<String, _>, _: String| {
            let child = Greenlet::new(me, |me, ()| {
                let refused = me.try_switch_to_parent("lost?".to_string());
                assert_eq!(refused.unwrap_err(), SwitchError::Busy("lost?".to_string()));
                let refused = me.switch_to_parent("lost".to_string()).unwrap_err();
                assert_eq!(
                    refused.downcast::<SwitchError<()>>().unwrap(),
                    SwitchError::Busy(())
                );
                Err(Number(3).into())
            });
            assert_eq!(
                number(enter(|inner: &Root<()>| inner.switch(&child, ()))),
                3
            );
            Ok(())
        });
        me.switch(&parent, String::new()).unwrap();
    });
}

#[test]
fn s14_a_greenlet_that_sends_to_its_parent_only_is_killed_with_its_last_handle() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let child = Greenlet::new(me, move |me, ()| {
            let _dropped = log.at_drop("killed");
            me.switch_to_parent(())
        });
        me.switch(&child, ()).unwrap();
        drop(child);
        assert_eq!(log.take(), ["killed"]);
    });
}
