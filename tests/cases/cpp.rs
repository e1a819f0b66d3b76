use std::{cell::RefCell, rc::Rc};

use greenlet::{Child, Greenlet, Root, enter};

use crate::support::{
    Number,
    census::Census,
    child::child,
    number,
    panics::{catch, text_of},
};

/// A panic is caught in its own greenlet, also if other greenlets ran within the `catch_unwind`.
#[test]
fn exception_switch() {
    enter(|me: &Root<u32>| {
        let catching = [1, 2].map(|who| {
            let main = me.handle();
            Greenlet::new(me, move |me: &Child<u32, _>, _: u32| {
                let caught = catch(|| -> u32 {
                    let sent = me.switch(&main, 0).unwrap();
                    panic!("{who} was sent {sent}")
                });
                assert_eq!(
                    text_of(&*caught.unwrap_err()),
                    format!("{who} was sent {}", who * 10)
                );
                Ok(who)
            })
        });
        for g in &catching {
            assert_eq!(me.switch(g, 0).unwrap(), 0);
        }
        assert_eq!(me.switch(&catching[1], 20).unwrap(), 2);
        assert_eq!(me.switch(&catching[0], 10).unwrap(), 1);
    });
}

/// A foreign exception does not unwind into another greenlet: at the bottom of the stack it aborts.
#[test]
fn unhandled_exception_in_greenlet_aborts() {
    #[repr(C, align(16))]
    struct Exception([u8; 512]);
    unsafe extern "C-unwind" {
        fn _Unwind_RaiseException(exception: *mut core::ffi::c_void) -> core::ffi::c_int;
    }

    let Some(ended) = child(|| {
        enter(|me: &Root<()>| {
            let g = Greenlet::new(me, |_, ()| {
                let exception = Box::leak(Box::new(Exception([0; 512])));
                // SAFETY: an exception object of class zero, without a clean-up function.
                unsafe { _Unwind_RaiseException(std::ptr::from_mut(exception).cast()) };
                Ok(())
            });
            let crossed = catch(|| me.switch(&g, ()));
            eprintln!("it crossed: {crossed:?}");
        });
    }) else {
        return;
    };
    ended.assert_aborted_with(&["exception"]);
    assert!(!ended.stderr.contains("it crossed"));
}

/// A thousand greenlets that end with an error, inside the `catch_unwind` of another, leak nothing.
#[test]
fn leak_test_exception_switch_and_do_in_g2() {
    let census = Rc::new(Census::new());
    enter(|me: &Root<()>| {
        let ended = Rc::new(RefCell::new(0));
        for round in 0..1000 {
            let (census, ended) = (Rc::clone(&census), Rc::clone(&ended));
            let first = Greenlet::new(me, move |me: &Child<(), _>, ()| {
                let _held = census.token();
                let token = census.token();
                let second = Greenlet::new(me, move |_, ()| {
                    let _held = token;
                    Err(Number(round).into())
                });
                assert_eq!(number(me.switch(&second, ())), round);
                *ended.borrow_mut() += 1;
                Err(Number(round + 1).into())
            });
            assert_eq!(number(me.switch(&first, ())), round + 1);
        }
        assert_eq!(*ended.borrow(), 1000);
        assert_eq!(census.alive(), 0);
    });
}
