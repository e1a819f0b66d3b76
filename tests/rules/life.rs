//! s5: new, active, dead; and the stack.

use std::env;

use greenlet::{Builder, Greenlet, Root, StackError, Status, SwitchError, enter};

use crate::support::{
    Number,
    census::{Census, Payload, Word},
    child::child,
    is_new,
};

#[test]
fn s5_a_greenlet_is_new_then_active_then_dead() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            assert!(me.handle().is_active(), "running");
            assert_eq!(me.handle().status(), Status::Running);
            me.switch(&main, ())?;
            enter(|_: &Root<()>| {
                assert!(me.handle().is_active(), "busy");
                assert_eq!(me.handle().status(), Status::Busy);
            });
            Ok(())
        });
        assert!(is_new(&g));
        assert_eq!(g.status(), Status::New);
        me.switch(&g, ()).unwrap();
        assert!(g.is_active() && !g.is_dead(), "suspended");
        assert_eq!(g.status(), Status::Suspended);
        me.switch(&g, ()).unwrap();
        assert!(!g.is_active() && g.is_dead());
        assert_eq!(g.status(), Status::Dead);
    });
}

#[test]
fn s5_debug_says_the_state() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let build = Builder::new().name("walker");
        let g = build.build(me, move |me, ()| {
            assert!(format!("{me:?}").contains("current active started"));
            enter(|_: &Root<()>| assert!(format!("{me:?}").contains("busy active started")));
            me.switch(&main, ())
        });
        let g = g.unwrap();
        assert!(format!("{g:?}").contains("\"walker\""));
        assert!(format!("{g:?}").contains("pending"));
        me.switch(&g, ()).unwrap();
        assert!(format!("{g:?}").contains("suspended active started"));
        me.switch(&g, ()).unwrap();
        let words = format!("{g:?}");
        assert!(words.contains("dead"));
        for word in ["pending", "active", "started", "suspended", "current"] {
            assert!(!words.contains(word), "{words}");
        }
    });
}

#[test]
fn s5_dead_is_final() {
    enter(|me: &Root<u32>| {
        let other = Greenlet::new(me, |_, n: u32| Ok(n));
        let ends: [Greenlet<u32>; 4] = [
            Greenlet::new(me, |_, n| Ok(n)),
            Greenlet::new(me, |_, _| Err(Number(1).into())),
            Greenlet::new(me, |_, _| unreachable!("killed when new")),
            Greenlet::new(me, |_, _| unreachable!("thrown at when new")),
        ];
        me.kill(&ends[2]).unwrap();
        let _ = me.throw(&ends[3], Number(2));
        for (index, g) in ends.iter().enumerate() {
            if index < 2 {
                let _ = me.switch(g, 0);
            }
            for _ in 0..2 {
                assert!(g.is_dead(), "{index}");
                let _ = me.switch(g, 1);
                let _ = me.throw(g, Number(3));
                me.kill(g).unwrap();
                let _ = g.set_parent(&other);
            }
            assert!(g.is_dead(), "{index}");
        }
    });
}

/// A quarter of the address space, which has room for three such stacks at most.
const QUARTER: usize = 1 << (usize::BITS - 2);

#[test]
#[cfg_attr(miri, ignore = "too many greenlets for Miri")]
fn s5_an_unstarted_greenlet_costs_no_stack() {
    enter(|me: &Root<()>| {
        let many: Vec<_> = (0..1000)
            .map(|_| {
                let build = Builder::new().stack_size(QUARTER);
                build.build(me, |_, ()| Ok(())).unwrap()
            })
            .collect();
        assert!(many.iter().all(is_new));
    });
}

#[test]
fn s5_without_a_stack_the_message_comes_back_and_the_target_stays_new() {
    let census = Census::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let mut started = Vec::new();
        // On 32 bits some can be mapped.
        for _ in 0..4 {
            let main = main.clone();
            let build = Builder::new().stack_size(QUARTER);
            let g = build.build(me, move |me, _: Word| me.switch(&main, ()).map(drop));
            let g = g.unwrap();
            match me.try_switch(&g, Word::new(&census, 5)) {
                Ok(arrived) => arrived.unwrap(),
                Err(SwitchError::Stack(word, error)) => {
                    assert_eq!(word.value(), 5);
                    assert!(matches!(error, StackError::Map { bytes, .. } if bytes > QUARTER));
                    assert!(is_new(&g));
                    // Still new: an error thrown at it goes to its parent.
                    let thrown = me.throw(&g, Number(6)).unwrap_err();
                    assert_eq!(thrown.downcast::<Number>().unwrap(), Number(6));
                    assert!(g.is_dead());
                    return;
                }
                Err(refusal) => panic!("{refusal}"),
            }
            started.push(g);
        }
        panic!("all of the address space was had");
    });
}

/// 64-bit only: a stack can be so large that a second one fits only after the first is given back.
#[test]
#[cfg(target_pointer_width = "64")]
fn s5_a_start_that_failed_can_be_tried_again() {
    use crate::machine;

    if machine::address_space_takes_memory() {
        return machine::skip(machine::TAKES_MEMORY);
    }
    enter(|me: &Root<u32>| {
        let main = me.handle();
        let mut started = Vec::new();
        // 64 TiB: one or three of them fit.
        for n in 0..5 {
            let main = main.clone();
            let build = Builder::new().stack_size(1 << 46);
            let g = build.build(me, move |me, n: u32| me.switch(&main, n));
            let g = g.unwrap();
            match me.try_switch(&g, n) {
                Ok(arrived) => assert_eq!(arrived.unwrap(), n),
                Err(SwitchError::Stack(back, _)) => {
                    assert_eq!(back, n);
                    if started.pop().is_none() {
                        return machine::skip("not even one stack of 64 TiB fits here");
                    }
                    assert_eq!(me.switch(&g, back).unwrap(), n);
                    assert!(g.is_active());
                    return;
                }
                Err(refusal) => panic!("{refusal}"),
            }
            started.push(g);
        }
        panic!("five stacks of 64 TiB were had");
    });
}

#[test]
#[cfg_attr(miri, ignore = "under Miri locals are not on the stack")]
fn s5_a_dead_greenlet_has_given_its_stack_back() {
    // The next greenlet gets the same stack.
    const NEAR: usize = 32 * 1024;
    fn address_of_a_local() -> usize {
        let local = 0_u8;
        std::hint::black_box(&raw const local).addr()
    }
    enter(|me: &Root<usize>| {
        let main = me.handle();
        let first = Greenlet::new(me, |_, ()| Ok(address_of_a_local()));
        let there = me.switch(&first, ()).unwrap();
        let second = Greenlet::new(me, {
            let main = main.clone();
            move |me, ()| {
                me.switch(&main, address_of_a_local())?;
                Ok(0)
            }
        });
        assert!(me.switch(&second, ()).unwrap().abs_diff(there) < NEAR);
        let third = Greenlet::new(me, |_, ()| Ok(address_of_a_local()));
        assert!(me.switch(&third, ()).unwrap().abs_diff(there) > NEAR);
        me.kill(&second).unwrap();
        let fourth = Greenlet::new(me, |_, ()| Ok(address_of_a_local()));
        assert!(me.switch(&fourth, ()).unwrap().abs_diff(there) < NEAR);
    });
}

#[test]
fn s5_the_size_of_a_stack_is_the_builders() {
    fn deep(levels: u32) -> u32 {
        let frame = [levels as u8; 1024];
        std::hint::black_box(&frame);
        if levels == 0 { 0 } else { 1 + deep(levels - 1) }
    }
    enter(|me: &Root<u32>| {
        // 3 MiB and more, where the default is 256 KiB.
        let build = Builder::new().stack_size(16 << 20);
        let g = build.build(me, |_, levels: u32| Ok(deep(levels))).unwrap();
        assert_eq!(me.switch(&g, 3000).unwrap(), 3000);
    });
}

/// With std's own panic hook, without a backtrace.
#[test]
fn s5_the_smallest_stack_has_room_for_a_panic_and_its_hook() {
    let Some(ended) = child(|| {
        // SAFETY: no other thread of this process uses the environment.
        unsafe { env::remove_var("RUST_BACKTRACE") };
        enter(|me: &Root<()>| {
            let build = Builder::new().stack_size(Builder::MIN_STACK_SIZE);
            let g = build.build(me, |_, ()| panic!("on a small stack"));
            let _ = me.switch(&g.unwrap(), ());
        });
    }) else {
        return;
    };
    assert_eq!(ended.status.code(), Some(101), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("on a small stack"),
        "{}",
        ended.stderr
    );
}
