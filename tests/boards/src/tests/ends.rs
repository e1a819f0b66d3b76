//! How a greenlet ends, and which greenlet receives the result.

use alloc::rc::Rc;
use core::{error::Error, fmt};

use greenlet::{Greenlet, GreenletExit, KillError, SwitchError, Thrown};

use super::{enter, greenlet};

#[derive(Debug, PartialEq)]
struct Fault(u32);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault {}", self.0)
    }
}

impl Error for Fault {}

pub fn with_a_value() {
    enter(|me| {
        let child = greenlet(me, |_, n: u32| Ok(n + 1));
        assert!(!child.is_active() && !child.is_dead());
        assert_eq!(me.switch(&child, 41).unwrap(), 42);
        assert!(child.is_dead());
        // A message to a dead greenlet goes to its parent, here the sender.
        assert_eq!(me.switch(&child, 5).unwrap(), 5);

        let other = greenlet(me, |_, _: &str| Ok(0));
        assert_eq!(me.switch(&other, "first").unwrap(), 0);
        match me.try_switch(&other, "second") {
            Err(SwitchError::Dead(message)) => assert_eq!(message, "second"),
            other => panic!("{other:?}"),
        }
    });
}

pub fn with_an_error() {
    enter(|me| {
        let child = greenlet(me, |_, n| -> Result<(), Thrown> { Err(Fault(n).into()) });
        let thrown = me.switch(&child, 3).unwrap_err();
        assert_eq!(thrown.downcast::<Fault>().unwrap(), Fault(3));
        assert!(child.is_dead());
    });
}

pub fn with_an_error_thrown_at_it() {
    enter(|me| {
        let main = me.handle();
        let child = greenlet(me, move |me, ()| {
            let thrown = me.switch(&main, 1).unwrap_err();
            let Fault(n) = thrown.downcast()?;
            me.switch(&main, n)?;
            Ok(0)
        });
        assert_eq!(me.switch(&child, ()).unwrap(), 1);
        assert_eq!(me.throw(&child, Fault(2)).unwrap(), 2);
        // Not handled this time: the error goes to the parent.
        let thrown = me.throw(&child, Fault(3)).unwrap_err();
        assert_eq!(thrown.downcast_ref(), Some(&Fault(3)));
        assert!(child.is_dead());
    });
}

pub fn unstarted_by_a_throw() {
    enter(|me| {
        let child = greenlet(me, |_, ()| -> Result<(), Thrown> {
            unreachable!("never started")
        });
        assert_eq!(
            me.throw(&child, Fault(4)).unwrap_err().downcast_ref(),
            Some(&Fault(4))
        );
        assert!(child.is_dead());

        let child = greenlet(me, |_, ()| -> Result<(), Thrown> {
            unreachable!("never started")
        });
        assert!(me.throw(&child, GreenletExit).unwrap_err().is_child_exit());
    });
}

/// Makes a greenlet that owns `token` and, once started, waits for ever.
fn holder<'e>(me: &greenlet::Current<'e, ()>, token: &Rc<()>) -> Greenlet<'e, ()> {
    let (token, main) = (Rc::clone(token), me.handle());
    let holder = greenlet(me, move |me, ()| {
        let _held = token;
        loop {
            me.switch(&main, ())?;
        }
    });
    me.switch(&holder, ()).unwrap();
    holder
}

pub fn by_a_kill() {
    enter(|me| {
        let token = Rc::new(());
        let child = holder(me, &token);
        assert!(child.is_active());
        assert_eq!(Rc::strong_count(&token), 2);
        me.kill(&child).unwrap();
        assert!(child.is_dead());
        assert_eq!(Rc::strong_count(&token), 1);
        me.kill(&child).unwrap();
        assert_eq!(me.kill(&me.handle()), Err(KillError::Root));
    });
}

pub fn by_the_drop_of_its_handle() {
    enter(|me| {
        let token = Rc::new(());
        let (suspended, handle) = (holder(me, &token), holder(me, &token));
        let copy = handle.clone();
        drop(suspended);
        assert_eq!(Rc::strong_count(&token), 2);
        drop(handle);
        assert_eq!(Rc::strong_count(&token), 2);
        drop(copy);
        assert_eq!(Rc::strong_count(&token), 1);

        let held = Rc::clone(&token);
        let new = greenlet(me, move |_, ()| {
            drop(held);
            Ok(())
        });
        assert_eq!(Rc::strong_count(&token), 2);
        drop(new);
        assert_eq!(Rc::strong_count(&token), 1);
    });
}

pub fn seen_through_weak_handles() {
    enter(|me| {
        let child = holder(me, &Rc::new(()));
        let weak = child.downgrade();
        me.switch(&weak.upgrade().unwrap(), ()).unwrap();
        drop(child);
        assert!(weak.upgrade().is_none());
    });
}
