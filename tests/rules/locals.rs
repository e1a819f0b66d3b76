//! s23: greenlet-local values.

use std::cell::{Cell, RefCell};

use greenlet::{Current, Greenlet, Root, enter, local};

use crate::{
    shared_by_greenlets,
    support::{
        census::{Census, Token},
        log::{Log, on_drop},
        panics::panic_text,
        unscoped,
    },
};

local! {
    static NUMBER: Cell<u32> = Cell::new(0);
    static TEXT: RefCell<String> = RefCell::new(String::from("initial"));
    static HELD: RefCell<Vec<Token>> = RefCell::default();
}

#[test]
fn s23_each_greenlet_has_its_own_values_and_a_new_one_has_none() {
    enter(|me: &Root<u32>| {
        NUMBER.with(|number| number.set(1));
        TEXT.with(|text| text.borrow_mut().push_str(" of main"));
        let main = me.handle();
        let counts = |step: u32| {
            let main = main.clone();
            Greenlet::new(me, move |me, ()| {
                assert_eq!(NUMBER.with(Cell::get), 0);
                assert_eq!(TEXT.with(|text| text.borrow().clone()), "initial");
                loop {
                    NUMBER.with(|number| number.set(number.get() + step));
                    me.switch(&main, NUMBER.with(Cell::get))?;
                }
            })
        };
        let (ones, tens) = (counts(1), counts(10));
        for round in 1..4 {
            assert_eq!(me.switch(&ones, ()).unwrap(), round);
            assert_eq!(me.switch(&tens, ()).unwrap(), round * 10);
        }
        assert_eq!(NUMBER.with(Cell::get), 1);
        assert_eq!(TEXT.with(|text| text.borrow().clone()), "initial of main");
    });
}

#[test]
fn s23_a_root_has_its_own_values() {
    enter(|_: &Root<()>| {
        NUMBER.with(|number| number.set(1));
        enter(|_: &Root<()>| {
            assert_eq!(NUMBER.with(Cell::get), 0);
            NUMBER.with(|number| number.set(2));
        });
        assert_eq!(NUMBER.with(Cell::get), 1);
    });
    enter(|_: &Root<()>| assert_eq!(NUMBER.with(Cell::get), 0));
}

#[test]
fn s23_values_are_dropped_when_the_greenlet_ends_before_its_parent_resumes() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let hold = || HELD.with(|held| held.borrow_mut().push(census.token()));
        hold();
        let token = census.token();
        let returns = Greenlet::new(me, move |_, ()| {
            HELD.with(|held| held.borrow_mut().push(token));
            Ok(())
        });
        assert_eq!(census.alive(), 2);
        me.switch(&returns, ()).unwrap();
        assert_eq!(census.alive(), 1);

        let (main, token) = (me.handle(), census.token());
        let killed = Greenlet::new(me, move |me, ()| {
            HELD.with(|held| held.borrow_mut().push(token));
            me.switch(&main, ())
        });
        me.switch(&killed, ()).unwrap();
        assert_eq!(census.alive(), 2);
        me.kill(&killed).unwrap();
        assert_eq!(census.alive(), 1);
    });
    assert_eq!(census.alive(), 0);
}

#[test]
fn s23_a_roots_values_go_with_it_though_a_handle_is_left() {
    let census = Census::new();
    let main = unscoped().enter(|me: &Current<()>| {
        HELD.with(|held| held.borrow_mut().push(census.token()));
        me.handle()
    });
    assert!(main.is_dead());
    assert_eq!(census.alive(), 0);
}

#[test]
fn s23_a_killed_greenlet_has_its_values_while_its_locals_are_dropped() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let (main, seen) = (me.handle(), log.clone());
        let g = Greenlet::new(me, move |me, ()| {
            NUMBER.with(|number| number.set(7));
            let _dropped = on_drop(move || seen.add(NUMBER.with(Cell::get)));
            me.switch(&main, ())
        });
        me.switch(&g, ()).unwrap();
        NUMBER.with(|number| number.set(1));
        drop(g);
        assert_eq!(NUMBER.with(Cell::get), 1);
    });
    assert_eq!(log.take(), [7]);
}

#[test]
fn s23_outside_every_greenlet_there_is_no_value() {
    assert_eq!(NUMBER.try_with(Cell::get), None);
    let text = panic_text(|| NUMBER.with(Cell::get));
    assert!(text.contains("greenlet-local"), "{text}");
}

#[test]
fn s23_a_greenlet_that_has_dropped_its_values_has_none() {
    shared_by_greenlets! {
        static SEEN: Cell<Option<Option<u32>>> = Cell::new(None);
    }
    struct Asks;
    impl Drop for Asks {
        fn drop(&mut self) {
            SEEN.set(Some(NUMBER.try_with(Cell::get)));
        }
    }
    local! {
        static ASKS: Asks = Asks;
    }
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| {
            NUMBER.with(|number| number.set(5));
            ASKS.with(|_| ());
            Ok(())
        });
        me.switch(&g, ()).unwrap();
    });
    assert_eq!(SEEN.get(), Some(None));
}

#[test]
fn s23_making_a_value_may_ask_for_others_and_switch() {
    local! {
        static SUM: u32 = {
            let through_another = enter(|me: &Root<u32>| {
                let g = Greenlet::new(me, |_, n: u32| Ok(n + 1));
                me.switch(&g, 1).unwrap()
            });
            through_another + NUMBER.with(Cell::get)
        };
    }
    enter(|_: &Root<()>| {
        NUMBER.with(|number| number.set(40));
        assert_eq!(SUM.with(|sum| *sum), 42);
    });
}
