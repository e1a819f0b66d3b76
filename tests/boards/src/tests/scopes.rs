//! Greenlets that borrow.

use alloc::rc::Rc;

use boards::HeapStack;
use greenlet::{Builder, Current};

use super::enter;

pub fn lend() {
    let words = ["to", "be", "or"];
    let mut lengths = 0;
    // SAFETY: as in `enter`.
    unsafe {
        greenlet::scope(|scope, me: &Current<usize>| {
            let main = me.handle();
            let lengths = &mut lengths;
            let words = &words;
            let child =
                Builder::new()
                    .stack(HeapStack::new())
                    .build_scoped(scope, me, move |me, ()| {
                        for word in words {
                            *lengths += word.len();
                            me.switch(&main, *lengths)?;
                        }
                        Ok(0)
                    });
            let child = child.unwrap();
            assert_eq!(
                [(); 4].map(|()| me.switch(&child, ()).unwrap()),
                [2, 4, 6, 0]
            );
        });
    }
    assert_eq!(lengths, 6);
}

/// Members that hold themselves, so that only the end of the scope ends them.
pub fn kill_their_members() {
    let token = Rc::new(());
    enter(|me: &Current<()>| {
        me.scope(|scope| {
            for held in [Rc::clone(&token), Rc::clone(&token)] {
                let main = me.handle();
                let child = Builder::new().stack(HeapStack::new()).build_scoped(
                    scope,
                    me,
                    move |me, ()| {
                        let _held = (held, me.handle());
                        me.switch(&main, ())
                    },
                );
                me.switch(&child.unwrap(), ()).unwrap();
            }
            assert_eq!(Rc::strong_count(&token), 3);
        });
        assert_eq!(Rc::strong_count(&token), 1);
    });
}
