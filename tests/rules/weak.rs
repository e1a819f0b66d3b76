//! s18: weak handles.

use std::{cell::RefCell, rc::Rc};

use greenlet::{Current, Greenlet, Root, WeakGreenlet, enter};

use crate::support::{census::Census, log::Log, run_without_handles, unscoped};

#[test]
fn s18_a_weak_handle_gives_a_handle_while_the_greenlet_lives() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
        let weak = g.downgrade();
        assert!(weak.upgrade().is_some(), "new");
        me.switch(&weak.upgrade().unwrap(), ()).unwrap();
        assert!(weak.upgrade().unwrap().is_active(), "suspended");
        assert!(me.handle().downgrade().upgrade().is_some(), "running");
        assert!(weak.clone().upgrade().is_some(), "cloned");
    });
}

#[test]
fn s18_a_weak_handle_does_not_keep_the_greenlet_alive() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let token = census.token();
        let new = Greenlet::new(me, move |_, ()| {
            drop(token);
            Ok(())
        });
        let weak = new.downgrade();
        drop(new);
        assert_eq!(census.alive(), 0);
        assert!(weak.upgrade().is_none());

        let (main, token) = (me.handle(), census.token());
        let suspended = Greenlet::new(me, move |me, ()| {
            let _held = token;
            me.switch(&main, ())
        });
        me.switch(&suspended, ()).unwrap();
        let weak = suspended.downgrade();
        drop(suspended);
        assert_eq!(census.alive(), 0);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn s18_a_weak_handle_is_dead_once_the_greenlet_is_though_a_handle_is_left() {
    enter(|me: &Root<()>| {
        let ended = Greenlet::new(me, |_, ()| Ok(()));
        let killed = Greenlet::new(me, |_, ()| Ok(()));
        let weak = [ended.downgrade(), killed.downgrade()];
        me.switch(&ended, ()).unwrap();
        me.kill(&killed).unwrap();
        assert!(weak.iter().all(|weak| weak.upgrade().is_none()));
        assert!(ended.is_dead() && killed.is_dead());
    });
}

#[test]
fn s18_a_greenlet_that_dies_of_its_last_drop_sees_its_weak_handle_dead() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let slot = Rc::new(RefCell::new(None::<WeakGreenlet<()>>));
        let main = me.handle();
        let g = Greenlet::new(me, {
            let (slot, log) = (Rc::clone(&slot), log.clone());
            move |me, ()| {
                let outcome = me.switch(&main, ());
                log.add(slot.take().unwrap().upgrade().is_none());
                outcome
            }
        });
        me.switch(&g, ()).unwrap();
        slot.replace(Some(g.downgrade()));
        drop(g);
    });
    assert_eq!(log.take(), [true]);
}

#[test]
fn s18_a_greenlet_that_runs_without_a_handle_has_no_weak_handle_either() {
    enter(|me: &Root<bool>| {
        let outcome = run_without_handles(me, |me| {
            let weak = me.handle().downgrade();
            Ok(weak.upgrade().is_none())
        });
        assert!(outcome.unwrap());
    });
}

#[test]
fn s18_weak_handles_may_outlive_all_else() {
    let weak = unscoped().enter(|me: &Current<()>| {
        let g = Greenlet::new(me, |_, ()| Ok(()));
        (g.downgrade(), me.handle().downgrade())
    });
    assert!(weak.0.upgrade().is_none() && weak.1.upgrade().is_none());
    let words = format!("{weak:?}");
    assert!(words.contains("dead"), "{words}");
}
