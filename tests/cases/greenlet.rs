//! Cases of `test_greenlet.py`, except those in `reentrant_switch.rs`.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Barrier},
    thread,
};

use greenlet::{
    Builder, Child, Current, Greenlet, GreenletExit, ParentError, Root, SwitchError, Thrown, enter,
};

use crate::support::{
    Number,
    census::{Census, Payload, Wide},
    is_new,
    log::Log,
    number,
    panics::heard,
    run_without_handles, unscoped,
};

// ---- TestGreenlet

#[test]
fn simple() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                log.add(1);
                me.switch(&main, ())?;
                log.add(3);
                Ok(())
            }
        });
        log.add(0);
        me.switch(&g, ()).unwrap();
        log.add(2);
        me.switch(&g, ()).unwrap();
        log.add(4);
    });
    assert_eq!(log.take(), [0, 1, 2, 3, 4]);
}

#[test]
fn parent_equals_none() {
    // A builder uses the running greenlet as the parent, too.
    enter(|me: &Root<u32>| {
        let g = Builder::new().build(me, |_, ()| Ok(3)).unwrap();
        assert!(is_new(&g));
        assert_eq!(me.switch(&g, ()).unwrap(), 3);
    });
}

#[test]
fn two_children() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let [g, h] = [(); 2].map(|()| {
            let (log, main) = (log.clone(), me.handle());
            Greenlet::new(me, move |me, ()| {
                log.add(1);
                me.switch(&main, ())?;
                log.add(1);
                log.add(1);
                Ok(())
            })
        });
        let mut seen = 0;
        for (target, expected) in [(&g, 1), (&h, 2), (&h, 4), (&g, 6)] {
            me.switch(target, ()).unwrap();
            seen += log.take().len();
            assert_eq!(seen, expected);
        }
        assert!(g.is_dead() && h.is_dead());
    });
}

#[test]
fn two_recursive_children() {
    let census = Rc::new(Census::new());
    let log = Log::new();
    enter(|me: &Root<()>| {
        let outer = Greenlet::new(me, {
            let (log, census) = (log.clone(), Rc::clone(&census));
            move |me: &Child<(), _>, ()| {
                log.add("a");
                let own = me.handle();
                let held = census.token();
                let inner = Greenlet::new(me, {
                    let log = log.clone();
                    move |me, ()| {
                        let _held = held;
                        log.add("b");
                        me.switch(&own, ())
                    }
                });
                me.switch(&inner, ())?;
                log.add("c");
                Ok(())
            }
        });
        me.switch(&outer, ()).unwrap();
        assert!(outer.is_dead());
        assert_eq!(
            census.alive(),
            0,
            "the inner one is killed as the outer ends"
        );
    });
    assert_eq!(log.take(), ["a", "b", "c"]);
}

#[test]
fn threads() {
    let threads: Vec<_> = (0..10).map(|_| thread::spawn(simple)).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Makes a greenlet that waits, records an error that is thrown at it, and ends with an error.
fn fmain<'e, P: Default + 'static>(me: &Current<'e, P>, seen: &Log<String>) -> Greenlet<'e, P> {
    let (main, seen) = (me.handle(), seen.clone());
    Greenlet::new(me, move |me: &Child<P, _>, _: P| {
        if let Err(thrown) = me.switch(&main, P::default()) {
            seen.add(thrown.to_string());
            return Err(thrown);
        }
        Err(Number(1).into())
    })
}

#[test]
fn exception() {
    let seen = Log::new();
    enter(|me: &Root<u32>| {
        let g1 = fmain(me, &seen);
        let g2 = fmain(me, &seen);
        me.switch(&g1, 0).unwrap();
        me.switch(&g2, 0).unwrap();
        g2.set_parent(&g1).unwrap();
        assert_eq!(seen.take(), [""; 0]);
        assert_eq!(number(me.switch(&g2, 0)), 1);
        assert_eq!(seen.take(), ["number 1"]);
        assert_eq!(me.switch(&g2, 0).unwrap(), 0);
        assert_eq!(me.switch(&g2, 25).unwrap(), 25);
        assert_eq!(seen.take(), [""; 0]);
    });
}

#[test]
fn send_exception() {
    let seen = Log::new();
    enter(|me: &Root<()>| {
        let g1 = fmain(me, &seen);
        me.switch(&g1, ()).unwrap();
        let crasher = Greenlet::new(me, |_, ()| Err(Number(5).into()));
        crasher.set_parent(&g1).unwrap();
        assert_eq!(number(me.switch(&crasher, ())), 5);
        assert_eq!(seen.take(), ["number 5"]);
    });
}

#[test]
fn dealloc() {
    let seen = Log::new();
    enter(|me: &Root<()>| {
        let g1 = fmain(me, &seen);
        let g2 = fmain(me, &seen);
        me.switch(&g1, ()).unwrap();
        me.switch(&g2, ()).unwrap();
        assert_eq!(seen.take(), [""; 0]);
        let exit = GreenletExit.to_string();
        drop(g1);
        assert_eq!(seen.take(), [exit.as_str()]);
        drop(g2);
        assert_eq!(seen.take(), [exit.as_str()]);
    });
}

#[test]
fn dealloc_catches_greenlet_exit_throws_other() {
    for panics in [false, true] {
        enter(|me: &Root<()>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, ()| {
                assert!(me.switch(&main, ()).unwrap_err().is_exit());
                if panics {
                    panic!("said by the panic hook");
                }
                Err(Number(1).into())
            });
            me.switch(&g, ()).unwrap();
            let ((), heard) = heard(|| drop(g));
            assert_eq!(heard, usize::from(panics));
        });
    }
}

#[test]
fn thread_bug() {
    let inside = Arc::new(Barrier::new(2));
    let threads = [3, 4].map(|rounds| {
        let inside = Arc::clone(&inside);
        thread::spawn(move || {
            enter(|me: &Root<u32>| {
                let g = Greenlet::new(me, move |_, ()| {
                    // Both threads are in their greenlets here.
                    inside.wait();
                    Ok((0..rounds)
                        .map(|n| std::hint::black_box(n) + 1)
                        .sum::<u32>())
                });
                me.switch(&g, ()).unwrap()
            })
        })
    });
    assert_eq!(threads.map(|thread| thread.join().unwrap()), [6, 10]);
}

#[test]
fn switch_kwargs() {
    struct Arguments {
        x: u32,
        y: u32,
    }
    enter(|me: &Root<u32>| {
        let g = Greenlet::new(me, |_, Arguments { x, y }| Ok(x * y));
        assert_eq!(me.switch(&g, Arguments { y: 3, x: 2 }).unwrap(), 6);
    });
}

/// The killer resumes, and a later message of the killed greenlet still goes to its parent.
#[test]
fn parent_restored_on_kill() {
    let log = Log::new();
    enter(|me: &Root<&'static str>| {
        let main = me.handle();
        let parent = Greenlet::new(me, {
            let (log, main) = (log.clone(), main.clone());
            move |me, _: &'static str| {
                log.add(me.switch(&main, "the parent waits")?);
                Ok("the parent ends")
            }
        });
        me.switch(&parent, "").unwrap();
        let g = Greenlet::new(me, move |me, _: &'static str| me.switch(&main, "it waits"));
        g.set_parent(&parent).unwrap();
        me.switch(&g, "").unwrap();
        let killer = Greenlet::new(me, {
            let (log, g) = (log.clone(), g.clone());
            move |me, ()| {
                me.kill(&g).unwrap();
                log.add("the killer goes on");
                Ok("the killer ends")
            }
        });
        assert_eq!(me.switch(&killer, ()).unwrap(), "the killer ends");
        assert!(g.is_dead() && parent.is_active());
        assert_eq!(me.switch(&g, "to the dead").unwrap(), "the parent ends");
    });
    assert_eq!(log.take(), ["the killer goes on", "to the dead"]);
}

#[test]
fn dealloc_switch_args_not_lost() {
    let census = Rc::new(Census::new());
    let seen = Log::new();
    enter(|me: &Root<Wide>| {
        let main = me.handle();
        let value = run_without_handles(me, {
            let (census, seen) = (Rc::clone(&census), seen.clone());
            move |me| {
                let outcome = me.switch(&main, Wide::new(&census, 42));
                seen.add(outcome.is_err_and(|thrown| thrown.is_exit()));
                Err(Number(0).into())
            }
        });
        assert_eq!(value.unwrap().value(), 42);
        assert_eq!(seen.take(), [true]);
    });
}

/// A handle that is made while a greenlet is killed does not keep it alive.
#[test]
fn issue_245_reference_counting_subclass_no_threads() {
    let census = Rc::new(Census::new());
    let kept: Rc<RefCell<Vec<Greenlet<'static, ()>>>> = Rc::default();
    unscoped().enter(|me: &Current<()>| {
        for _ in 0..10 {
            let (main, census, kept) = (me.handle(), Rc::clone(&census), Rc::clone(&kept));
            let g = Greenlet::new(me, move |me, ()| {
                let _held = census.token();
                let outcome = me.switch(&main, ());
                kept.borrow_mut().push(me.handle());
                outcome
            });
            me.switch(&g, ()).unwrap();
            drop(g);
        }
        assert_eq!(census.alive(), 0);
        let kept = kept.take();
        assert_eq!(kept.len(), 10);
        assert!(kept.iter().all(Greenlet::is_dead));
    });
}

#[test]
fn falling_off_end_switches_to_unstarted_parent_works() {
    enter(|me: &Root<u32>| {
        let parent = Greenlet::new(me, |_, n: u32| Ok(n + 1));
        let child = Greenlet::new(me, |_, ()| Ok(24));
        child.set_parent(&parent).unwrap();
        assert_eq!(me.switch(&child, ()).unwrap(), 25);
    });
}

#[test]
fn switch_to_dead_greenlet_reparent() {
    enter(|me: &Root<u32>| {
        let [g1, g2] = [100, 1000].map(|more| Greenlet::new(me, move |_, n: u32| Ok(n + more)));
        assert_eq!(me.switch(&g1, 1).unwrap(), 101);
        assert!(g1.is_dead());
        g1.set_parent(&g2).unwrap();
        assert_eq!(me.switch(&g1, 42).unwrap(), 1042);
        assert!(g2.is_dead());
    });
}

// ---- TestGreenletSetParentErrors

#[test]
fn main_greenlet_parent_is_none() {
    enter(|me: &Root<()>| {
        let error = me.handle().set_parent(&me.handle()).unwrap_err();
        assert_eq!(error, ParentError::Root);
        assert!(error.to_string().contains("has no parent"));
    });
}

#[test]
fn trivial_cycle() {
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Ok(()));
        assert_eq!(g.set_parent(&g), Err(ParentError::Cycle));
    });
}

#[test]
fn trivial_cycle_main() {
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Ok(()));
        assert_eq!(me.handle().set_parent(&g), Err(ParentError::Root));
        me.switch(&g, ()).unwrap();
    });
}

#[test]
fn deeper_cycle() {
    enter(|me: &Root<()>| {
        let [g1, g2, g3] = [(); 3].map(|()| Greenlet::new(me, |_, ()| Ok(())));
        g1.set_parent(&g2).unwrap();
        g2.set_parent(&g3).unwrap();
        assert_eq!(g3.set_parent(&g1), Err(ParentError::Cycle));
    });
}

// ---- TestRepr

#[test]
fn main_while_running() {
    enter(|me: &Root<()>| {
        assert!(format!("{me:?}").ends_with(" current active started main>"));
        assert_eq!(format!("{me:?}"), format!("{:?}", me.handle()));
    });
}

#[test]
fn main_in_background() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |_, ()| {
            assert!(format!("{main:?}").ends_with(" suspended active started main>"));
            Ok(())
        });
        me.switch(&g, ()).unwrap();
    });
}

#[test]
fn initial() {
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Ok(()));
        assert!(format!("{g:?}").ends_with(" pending>"));
    });
}

#[test]
fn dead() {
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Ok(()));
        me.switch(&g, ()).unwrap();
        let words = format!("{g:?}");
        assert!(words.ends_with(" dead>"));
        for word in ["suspended", "started", "active", "current"] {
            assert!(!words.contains(word), "{words}");
        }
    });
}

// ---- TestMainGreenlet

/// The main greenlet has the same type as other greenlets.
#[test]
fn main_greenlet_is_greenlet() {
    enter(|me: &Root<u32>| {
        let g = Greenlet::new(me, |_, n: u32| Ok(n));
        let both: [Greenlet<u32>; 2] = [me.handle(), g];
        for (n, target) in (0..).zip(&both) {
            assert_eq!(me.switch(target, n).unwrap(), n);
        }
    });
}

// ---- TestBrokenGreenlets

#[test]
fn failed_to_initialstub() {
    enter(|me: &Root<()>| {
        // On 32 bits some can be mapped.
        let mut started = Vec::new();
        for _ in 0..4 {
            let main = me.handle();
            let build = Builder::new().stack_size(1 << (usize::BITS - 2));
            let g = build.build(me, move |me, ()| me.switch(&main, ())).unwrap();
            let Err(thrown) = me.switch(&g, ()) else {
                started.push(g);
                continue;
            };
            let refused: Result<SwitchError<()>, Thrown> = thrown.downcast();
            assert!(matches!(refused, Ok(SwitchError::Stack((), _))));
            assert!(is_new(&g));
            return;
        }
        panic!("all of the address space was had");
    });
}
