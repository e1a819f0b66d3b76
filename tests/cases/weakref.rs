use std::{cell::RefCell, rc::Rc};

use greenlet::{Greenlet, Root, WeakGreenlet, enter};

use crate::support::log::{Log, on_drop};

#[test]
fn dead_weakref() {
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Ok(()));
        let weak = g.downgrade();
        me.switch(&g, ()).unwrap();
        drop(g);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn inactive_weakref() {
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Ok(()));
        let weak = g.downgrade();
        drop(g);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn dealloc_weakref() {
    let seen = Log::new();
    enter(|me: &Root<()>| {
        let weak = Rc::new(RefCell::new(None::<WeakGreenlet<()>>));
        let main = me.handle();
        let parent = Greenlet::new(me, {
            let (weak, seen) = (Rc::clone(&weak), seen.clone());
            move |me, ()| {
                let _seen = on_drop(|| seen.add(weak.take().unwrap().upgrade().is_none()));
                me.switch(&main, ())
            }
        });
        me.switch(&parent, ()).unwrap();
        let child = Greenlet::new(me, |_, ()| Ok(()));
        child.set_parent(&parent).unwrap();
        drop(parent);
        weak.replace(Some(child.downgrade()));
        assert_eq!(seen.take(), []);
        drop(child);
        assert_eq!(seen.take(), [true]);
    });
}
