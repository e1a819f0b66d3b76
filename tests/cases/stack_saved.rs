use std::hint::black_box;

use greenlet::{Greenlet, Root, enter};

/// A new or dead greenlet, and a root, use no bytes of a stack. A suspended one uses at least the size of its
/// locals.
#[test]
fn stack_saved() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let back = main.clone();
        let g = Greenlet::new(me, move |me, ()| {
            let local = [0_u8; 4096];
            me.switch(&back, ())?;
            black_box(&local);
            Ok(())
        });
        let used = || g.stack_usage().map(|usage| usage.in_use);
        assert_eq!(used(), None);
        me.switch(&g, ()).unwrap();
        assert!(used().is_some_and(|bytes| (4096..256 * 1024).contains(&bytes)));
        me.switch(&g, ()).unwrap();
        assert_eq!(used(), None);
        assert!(main.stack_usage().is_none());
    });
}
