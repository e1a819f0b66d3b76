use greenlet::{Child, Current, Greenlet, GreenletExit, Root, enter};

use crate::support::{Number, assert_child_exit, number};

/// Makes a greenlet that sends `ok`, then `ok` again if a number is thrown at it, else `fail`.
fn catcher<'e>(me: &Current<'e, &'static str>) -> Greenlet<'e, ()> {
    let main = me.handle();
    let g = Greenlet::new(me, move |me: &Child<(), _>, ()| {
        match me.switch(&main, "ok") {
            Err(thrown) if thrown.downcast_ref::<Number>().is_some() => me.switch(&main, "ok")?,
            _ => me.switch(&main, "fail")?,
        }
        Ok("end")
    });
    assert_eq!(me.switch(&g, ()).unwrap(), "ok");
    g
}

#[test]
fn class() {
    enter(|me| {
        let g = catcher(me);
        assert_eq!(me.throw(&g, Number(0)).unwrap(), "ok");
    });
}

#[test]
fn val() {
    enter(|me: &Root<u32>| {
        let main = me.handle();
        for sent in [1, 2] {
            let main = main.clone();
            let g = Greenlet::new(me, move |me, ()| {
                let val = number(me.switch(&main, 0));
                me.switch(&main, val)?;
                Ok(0)
            });
            assert_eq!(me.switch(&g, ()).unwrap(), 0);
            assert_eq!(me.throw(&g, Number(sent)).unwrap(), sent);
        }
    });
}

#[test]
fn kill() {
    enter(|me: &Root<&str>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            me.switch(&main, "ok")?;
            me.switch(&main, "fail")?;
            Ok("fail")
        });
        assert_eq!(me.switch(&g, ()).unwrap(), "ok");
        assert_child_exit(me.throw(&g, GreenletExit));
        assert!(g.is_dead());
        assert_child_exit(me.throw(&g, GreenletExit));
    });
}

#[test]
fn throw_goes_to_original_parent() {
    enter(|me: &Root<&'static str>| {
        let main = me.handle();
        let pair = || {
            let back = main.clone();
            let first = Greenlet::new(me, move |me, _: &'static str| {
                match me.switch(&back, "ready to catch") {
                    Ok(_) => Ok("normal exit"),
                    Err(thrown) => {
                        assert!(thrown.downcast::<Number>().is_ok());
                        Ok("caught")
                    }
                }
            });
            let back = main.clone();
            let second = Greenlet::new(me, move |me, _: &'static str| {
                me.switch(&back, "from the second")?;
                Ok("second")
            });
            second.set_parent(&first).unwrap();
            (first, second)
        };

        // Both are new, so neither runs.
        let (first, second) = pair();
        assert_eq!(number(me.throw(&second, Number(1))), 1);
        assert!(first.is_dead() && second.is_dead());

        // The parent is suspended, the target is new.
        let (first, second) = pair();
        assert_eq!(me.switch(&first, "").unwrap(), "ready to catch");
        assert_eq!(me.throw(&second, Number(1)).unwrap(), "caught");
        assert!(first.is_dead() && second.is_dead());

        // Both are suspended.
        let (first, second) = pair();
        assert_eq!(me.switch(&first, "").unwrap(), "ready to catch");
        assert_eq!(me.switch(&second, "").unwrap(), "from the second");
        assert_eq!(me.throw(&second, Number(1)).unwrap(), "caught");
        assert!(first.is_dead() && second.is_dead());
    });
}
