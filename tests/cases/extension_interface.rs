use greenlet::{Builder, Greenlet, Root, enter};

use crate::support::{Number, number};

#[test]
fn switch() {
    enter(|me: &Root<u32>| {
        let g = Greenlet::new(me, |_, ()| Ok(42));
        assert_eq!(me.switch(&g, ()).unwrap(), 42);
    });
}

#[test]
fn setparent() {
    enter(|me: &Root<&str>| {
        let main = me.handle();
        let back = main.clone();
        let foo = Greenlet::new(me, move |me, _: &str| {
            // A child that ends resumes this greenlet here.
            let heard = me.switch(&back, "foo waits")?;
            assert_eq!(heard, "bar ends");
            Ok("foo ends")
        });
        let bar = Greenlet::new(me, move |me, _: &str| {
            me.switch(&main, "bar waits")?;
            Ok("bar ends")
        });
        assert_eq!(me.switch(&foo, "").unwrap(), "foo waits");
        assert_eq!(me.switch(&bar, "").unwrap(), "bar waits");
        bar.set_parent(&foo).unwrap();
        assert_eq!(me.switch(&bar, "").unwrap(), "foo ends");
        assert!(foo.is_dead() && bar.is_dead());
    });
}

#[test]
fn getcurrent() {
    enter(|me: &Root<()>| {
        assert!(me.handle().is_active());
        let g = Greenlet::new(me, |me, ()| {
            assert!(me.handle().is_active());
            Ok(())
        });
        me.switch(&g, ()).unwrap();
    });
}

#[test]
fn new_greenlet() {
    enter(|me: &Root<i32>| {
        let g = Builder::new().build(me, |_, ()| Ok(-15)).unwrap();
        assert_eq!(me.switch(&g, ()).unwrap(), -15);
    });
}

#[test]
fn throw() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            assert_eq!(number(me.switch(&main, ())), 7);
            Err(Number(8).into())
        });
        me.switch(&g, ()).unwrap();
        assert_eq!(number(me.throw(&g, Number(7))), 8);
        assert!(g.is_dead());
    });
}
