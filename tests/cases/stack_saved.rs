use std::hint::black_box;

use greenlet::{Greenlet, Root, enter};

/// Bytes in use: none of a new or dead greenlet, or of one that runs on a stack that was there
/// before it; of a suspended one at least what its locals take.
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
