//! s19: no switch while the thread unwinds a panic.

use std::rc::Rc;

use greenlet::{Greenlet, Root, SwitchError, enter};

use crate::support::{
    Number,
    census::{Census, Payload, Word},
    is_new,
    log::{Log, on_drop},
    panics::{catch, heard},
};

/// Calls `run` in a destructor while a panic unwinds, which is caught.
fn while_unwinding(run: impl FnOnce()) {
    let caught = catch(|| {
        let _unwound = on_drop(run);
        panic!("unwinds")
    });
    assert!(caught.is_err());
}

#[test]
fn s19_switching_away_while_unwinding_is_refused_with_the_message() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, word: Word| {
            assert_eq!(word.value(), 2);
            Ok(())
        });
        while_unwinding(|| match me.try_switch(&g, Word::new(&census, 1)) {
            Err(SwitchError::Unwinding(word)) => assert_eq!(word.value(), 1),
            _ => unreachable!("it switched"),
        });
        assert!(is_new(&g));
        me.switch(&g, Word::new(&census, 2)).unwrap();
    });
}

#[test]
fn s19_a_switch_to_a_suspended_greenlet_while_unwinding_is_refused() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
        me.switch(&g, ()).unwrap();
        while_unwinding(|| {
            if let Err(SwitchError::Unwinding(())) = me.try_switch(&g, ()) {
                log.add("refused");
            }
        });
        assert_eq!(log.take(), ["refused"]);
        me.switch(&g, ()).unwrap();
        assert!(g.is_dead());
    });
}

#[test]
fn s19_throwing_is_refused_with_the_error() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Ok(()));
        while_unwinding(|| {
            if let Err(SwitchError::Unwinding(thrown)) = me.try_throw(&g, Number(3)) {
                log.add(thrown.downcast::<Number>().unwrap().0);
            }
        });
        assert_eq!(log.take(), [3]);
        assert!(is_new(&g));
    });
}

#[test]
fn s19_entering_again_does_not_help() {
    let log = Log::new();
    enter(|_: &Root<()>| {
        while_unwinding(|| {
            enter(|inner: &Root<u8>| {
                let g = Greenlet::new(inner, |_, ()| Ok(1));
                if let Err(SwitchError::Unwinding(())) = inner.try_switch(&g, ()) {
                    log.add("refused");
                }
            });
        });
    });
    assert_eq!(log.take(), ["refused"]);
}

#[test]
fn s19_killing_is_allowed_while_unwinding() {
    let log = Log::new();
    let census = Rc::new(Census::new());
    enter(|me: &Root<()>| {
        let suspended = || {
            let (log, main, census) = (log.clone(), me.handle(), Rc::clone(&census));
            let g = Greenlet::new(me, move |me, ()| {
                let _held = census.token();
                let outcome = me.switch(&main, ());
                assert!(outcome.as_ref().is_err_and(|thrown| thrown.is_exit()));
                log.add("exits");
                outcome
            });
            me.switch(&g, ()).unwrap();
            g
        };
        let (killed, dropped) = (suspended(), suspended());
        while_unwinding(|| {
            me.kill(&killed).unwrap();
            drop(dropped);
            log.add("unwinding goes on");
        });
    });
    assert_eq!(log.take(), ["exits", "exits", "unwinding goes on"]);
}

#[test]
fn s19_a_greenlet_killed_while_unwinding_may_panic() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            me.switch(&main, ()).unwrap_err();
            panic!("discarded")
        });
        me.switch(&g, ()).unwrap();
        let (_, heard) = heard(|| while_unwinding(|| me.kill(&g).unwrap()));
        assert_eq!(heard, 2);
        assert!(g.is_dead());
        let next = Greenlet::new(me, |_, ()| Ok(()));
        me.switch(&next, ()).unwrap();
    });
}

#[test]
fn s19_each_greenlets_caught_panic_is_its_own() {
    // After the panic was caught, switching is allowed again.
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            for _ in 0..3 {
                assert!(catch(|| panic!("caught")).is_err());
                me.switch(&main, ())?;
            }
            Ok(())
        });
        for _ in 0..3 {
            me.switch(&g, ()).unwrap();
            assert!(catch(|| panic!("caught")).is_err());
        }
        me.switch(&g, ()).unwrap();
        assert!(g.is_dead());
    });
}
