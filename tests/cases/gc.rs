use std::{cell::RefCell, rc::Rc};

use greenlet::{Current, Greenlet};

use crate::support::{census::Census, unscoped};

/// A dead greenlet does not keep what it received and returned, so its own handle among these is no cycle.
#[test]
fn dead_circular_ref() {
    struct Itself(Option<Greenlet<'static, Itself>>);

    let census = Rc::new(Census::new());
    let weak = unscoped().enter(|me: &Current<Itself>| {
        let held = census.token();
        let kept = Rc::new(RefCell::new(held));
        let g = Greenlet::new(me, move |_, itself: Itself| {
            let _kept = kept;
            Ok(itself)
        });
        let itself = Itself(Some(g.clone()));
        let Itself(returned) = me.switch(&g, itself).unwrap();
        assert!(g.is_dead());
        drop(g);
        let weak = returned.as_ref().unwrap().downgrade();
        drop(returned);
        weak
    });
    assert!(weak.upgrade().is_none());
    assert_eq!(census.alive(), 0);
}
