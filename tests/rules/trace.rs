//! s22: a callback at every switch.

use std::{
    cell::{Cell, RefCell},
    hint::black_box,
    mem,
    panic::panic_any,
    rc::Rc,
    thread,
};

use greenlet::{
    Builder, Child, Current, Generator, Greenlet, GreenletExit, Root, Thrown, enter, local,
    trace::{self, Event, EventKind, Tracer},
};

use crate::{
    support::{
        Number, assert_child_exit,
        census::{Census, Payload},
        child::child,
        log::{Log, OnDrop, on_drop},
        number,
        panics::{catch, text_of},
        run_without_handles, suspended, unscoped,
    },
    with_each_cargo,
};

/// A tracer that logs events as `from>to`, with `!` for a throw.
fn tracer(log: &Log<String>) -> Tracer {
    let log = log.clone();
    Tracer::new(move |event| {
        let [from, to] = [event.from, event.to].map(|g| g.name().unwrap_or("main"));
        let sign = match event.kind {
            EventKind::Switch => ">",
            EventKind::Throw => "!",
        };
        log.add(format!("{from}{sign}{to}"));
    })
}

/// Traces `run`, and removes the tracer afterwards.
fn traced(run: impl FnOnce()) -> Vec<String> {
    let log = Log::new();
    assert!(trace::set(Some(tracer(&log))).is_none());
    run();
    assert!(trace::set(None).is_some());
    log.take()
}

fn named<'e, I: 'static, P: 'static>(
    me: &Current<'e, P>,
    name: &str,
    body: impl FnOnce(&Child<'e, I, P>, I) -> Result<P, Thrown> + 'e,
) -> Greenlet<'e, I> {
    Builder::new().name(name).build(me, body).unwrap()
}

#[test]
fn s22_every_switch_is_an_event_also_the_first_and_the_death() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = named(me, "g", move |me, ()| me.switch(&main, ()));
        let events = traced(|| {
            me.switch(&g, ()).unwrap();
            me.switch(&g, ()).unwrap();
        });
        assert_eq!(events, ["main>g", "g>main", "main>g", "g>main"]);
    });
}

#[test]
fn s22_a_death_by_error_or_panic_is_a_throw() {
    enter(|me: &Root<()>| {
        let fails = named(me, "fails", |_, ()| Err(Number(1).into()));
        let panics = named(me, "panics", |_, ()| panic!("by the child"));
        let events = traced(|| {
            assert_eq!(number(me.switch(&fails, ())), 1);
            assert!(catch(|| me.switch(&panics, ())).is_err());
        });
        assert_eq!(
            events,
            ["main>fails", "fails!main", "main>panics", "panics!main"]
        );
    });
}

#[test]
fn s22_a_throw_is_one_in_the_target_and_of_its_exit_in_the_parent() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = named(me, "g", move |me, ()| me.switch(&main, ()));
        me.switch(&g, ()).unwrap();
        let events = traced(|| assert_child_exit(me.throw(&g, GreenletExit)));
        assert_eq!(events, ["main!g", "g!main"]);
    });
}

#[test]
fn s22_a_switch_to_oneself_is_an_event() {
    enter(|me: &Root<()>| {
        let events = traced(|| {
            me.switch(&me.handle(), ()).unwrap();
            assert_eq!(number(me.throw(&me.handle(), Number(1))), 1);
        });
        assert_eq!(events, ["main>main", "main!main"]);

        let log = Log::new();
        let seen = log.clone();
        trace::set(Some(Tracer::new(move |event| {
            seen.add(event.from == event.to)
        })));
        let g = Greenlet::new(me, |me, ()| me.switch(&me.handle(), ()));
        me.switch(&g, ()).unwrap();
        trace::set(None);
        assert_eq!(log.take(), [false, true, false]);
    });
}

#[test]
fn s22_a_kill_is_a_throw_and_its_end_a_switch() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = named(me, "g", move |me, ()| me.switch(&main, ()));
        me.switch(&g, ()).unwrap();
        assert_eq!(traced(|| drop(g)), ["main!g", "g>main"]);
    });
}

#[test]
fn s22_a_parent_that_is_switched_to_by_a_death_is_seen() {
    enter(|me: &Root<u32>| {
        let parent = named(me, "parent", |_, n: u32| Ok(n));
        let child = named(me, "child", |_, n: u32| Ok(n));
        child.set_parent(&parent).unwrap();
        let events = traced(|| assert_eq!(me.switch(&child, 1).unwrap(), 1));
        assert_eq!(events, ["main>child", "child>parent", "parent>main"]);
    });
}

#[test]
fn s22_the_tracer_is_called_in_the_target_after_the_arrival() {
    local! {
        static WHO: Cell<&'static str> = Cell::new("new");
    }
    let log = Log::new();
    enter(|me: &Root<()>| {
        WHO.with(|who| who.set("main"));
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            WHO.with(|who| who.set("g"));
            me.switch(&main, ())
        });
        let seen = log.clone();
        trace::set(Some(Tracer::new(move |event| {
            seen.add((
                WHO.with(Cell::get),
                event.from.is_dead(),
                event.to.is_active(),
            ));
        })));
        me.switch(&g, ()).unwrap();
        me.switch(&g, ()).unwrap();
        trace::set(None);
    });
    assert_eq!(
        log.take(),
        [
            ("new", false, true),
            ("main", false, true),
            ("g", false, true),
            ("main", true, true)
        ]
    );
}

#[test]
fn s22_each_thread_has_its_own_tracer() {
    enter(|me: &Root<()>| {
        let g = named(me, "g", |_, ()| Ok(()));
        let events = traced(|| {
            let elsewhere = thread::spawn(|| {
                assert!(trace::set(None).is_none());
                enter(|me: &Root<()>| {
                    let g = Greenlet::new(me, |_, ()| Ok(()));
                    me.switch(&g, ()).unwrap();
                });
            });
            elsewhere.join().unwrap();
            me.switch(&g, ()).unwrap();
        });
        assert_eq!(events, ["main>g", "g>main"]);
    });
}

#[test]
fn s22_a_tracer_that_panics_is_removed_and_the_panic_goes_on_in_the_target() {
    fn check<T: Payload>() {
        let census = Census::new();
        let log = Log::new();
        enter(|me: &Root<Option<T>>| {
            let main = me.handle();
            let g = Greenlet::new(me, {
                let log = log.clone();
                move |me, ()| {
                    let caught = catch(|| me.switch(&main, None));
                    log.add(text_of(&*caught.err().unwrap()).to_string());
                    Ok(None)
                }
            });
            me.switch(&g, ()).unwrap();
            trace::set(Some(Tracer::new(|_| panic!("by the tracer"))));
            assert!(me.switch(&g, ()).unwrap().is_none());
            assert!(trace::set(None).is_none(), "it was removed");
            assert_eq!(log.take(), ["by the tracer"]);

            // A message that arrives with the panic is dropped.
            let echo = Greenlet::new(me, |_, message: T| {
                trace::set(Some(Tracer::new(|_| panic!("by the tracer"))));
                Ok(Some(message))
            });
            let caught = catch(|| me.switch(&echo, T::new(&census, 1)));
            assert_eq!(text_of(&*caught.err().unwrap()), "by the tracer");
            assert_eq!(census.alive(), 0);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s22_when_a_tracer_panics_at_the_first_switch_the_body_does_not_run() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<()>| {
            let token = census.token();
            let g = Greenlet::new(me, move |_, _: T| {
                drop(token);
                unreachable!("it does not run")
            });
            trace::set(Some(Tracer::new(|_| panic!("by the tracer"))));
            let caught = catch(|| me.switch(&g, T::new(&census, 1)));
            assert_eq!(text_of(&*caught.err().unwrap()), "by the tracer");
            assert!(trace::set(None).is_none(), "it was removed");
            assert!(g.is_dead());
            assert_eq!(census.alive(), 0);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s22_a_tracer_that_panics_in_a_kill_does_not_disturb_the_dropper() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let _dropped = log.at_drop("killed");
                me.switch(&main, ())
            }
        });
        me.switch(&g, ()).unwrap();
        let calls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&calls);
        // The second call is the one in the killer.
        trace::set(Some(Tracer::new(move |_| {
            counted.set(counted.get() + 1);
            assert!(counted.get() < 2, "by the tracer");
        })));
        catch(|| drop(g)).unwrap();
        assert!(trace::set(None).is_none(), "it was removed");
        assert_eq!(calls.get(), 2);
    });
    assert_eq!(log.take(), ["killed"]);
}

/// Panics when it is dropped.
fn panics_when_dropped() -> OnDrop<fn()> {
    on_drop(|| panic!("by a destructor"))
}

/// A tracer that removes itself at an event. What it owns then panics.
fn removes_itself(at: fn(&Event<'_>) -> bool) -> Tracer {
    let owned = panics_when_dropped();
    Tracer::new(move |event| {
        let _ = &owned;
        if at(event) {
            trace::set(None);
        }
    })
}

/// A tracer that panics at a death. What the panic carries then panics.
fn panics_at_a_death() -> Tracer {
    Tracer::new(|event| {
        if event.from.is_dead() {
            panic_any(panics_when_dropped());
        }
    })
}

#[test]
fn s22_a_destructor_of_the_tracer_that_panics_in_a_kill_does_not_disturb_the_dropper() {
    for tracer in [
        removes_itself(|event| event.from.is_dead()),
        panics_at_a_death(),
    ] {
        enter(|me: &Root<()>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
            me.switch(&g, ()).unwrap();
            let weak = g.downgrade();
            trace::set(Some(tracer));
            catch(|| drop(g)).unwrap();
            assert!(weak.upgrade().is_none());
            assert!(trace::set(None).is_none(), "it was removed");
        });
    }
}

#[test]
fn s20_no_member_outlives_its_enter_when_a_tracer_panics_at_the_end() {
    for tracer in [
        removes_itself(|event| event.from.is_dead()),
        panics_at_a_death(),
    ] {
        let log = Log::new();
        let caught = catch(|| {
            enter(|me: &Root<()>| {
                for _ in 0..2 {
                    let log = &log;
                    let member = Greenlet::new(me, move |me, ()| {
                        let _dropped = log.at_drop("killed");
                        me.switch_to_parent(())
                    });
                    me.switch(&member, ()).unwrap();
                    mem::forget(member);
                }
                trace::set(Some(tracer));
            })
        });
        caught.unwrap();
        assert_eq!(log.take(), ["killed", "killed"]);
    }
}

#[test]
fn s22_a_destructor_of_the_tracer_that_panics_does_so_in_the_target_and_nothing_is_lost() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let caught = catch(|| {
            let log = log.clone();
            run_without_handles(me, move |me| {
                let _dropped = log.at_drop("killed when left");
                trace::set(Some(removes_itself(|_| true)));
                me.switch(&main, ())
            })
        });
        assert_eq!(text_of(&*caught.unwrap_err()), "by a destructor");
        assert_eq!(log.take(), ["killed when left"]);
    });
}

#[test]
fn s22_a_kill_outside_every_greenlet_survives_a_tracer_that_panics() {
    let Some(ended) = child(|| {
        let g = unscoped().enter(|me: &Current<()>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
            me.switch(&g, ()).unwrap();
            g
        });
        trace::set(Some(removes_itself(|_| true)));
        catch(|| drop(g)).unwrap();
    }) else {
        return;
    };
    ended.assert_success();
}

#[test]
fn s22_a_tracer_may_switch_and_the_message_is_not_lost() {
    fn check<T: Payload>() {
        let census = Rc::new(Census::new());
        let log = Log::new();
        enter(|me: &Root<T>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, message: T| me.switch(&main, message));
            let (seen, counted, busy) = (log.clone(), Rc::clone(&census), Cell::new(false));
            trace::set(Some(Tracer::new(move |_| {
                if busy.replace(true) {
                    return;
                }
                let value = enter(|inner: &Root<T>| {
                    let echo = Greenlet::new(inner, |_, message: T| Ok(message));
                    inner.switch(&echo, T::new(&counted, 100)).unwrap().value()
                });
                seen.add(value);
                busy.set(false);
            })));
            assert_eq!(me.switch(&g, T::new(&census, 1)).unwrap().value(), 1);
            assert_eq!(me.switch(&g, T::new(&census, 2)).unwrap().value(), 2);
            trace::set(None);
            assert_eq!(log.take(), [100; 4]);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s22_set_returns_the_previous_tracer_and_may_set_it_again() {
    let log = Log::new();
    let tracer = tracer(&log);
    enter(|me: &Root<()>| {
        let g = named(me, "g", |_, ()| Ok(()));
        assert!(trace::set(Some(tracer.clone())).is_none());
        assert!(trace::set(Some(tracer.clone())).is_some());
        me.switch(&g, ()).unwrap();
        assert!(trace::set(None).is_some());
        assert!(trace::set(None).is_none());
        me.switch(&me.handle(), ()).unwrap();
    });
    assert_eq!(log.take(), ["main>g", "g>main"]);
}

#[test]
fn s22_a_tracer_set_in_a_greenlet_sees_it_leave() {
    let log = Log::new();
    let tracer = tracer(&log);
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = named(me, "g", move |me, ()| {
            trace::set(Some(tracer));
            me.switch(&main, ())?;
            trace::set(None);
            Ok(())
        });
        me.switch(&g, ()).unwrap();
        me.switch(&g, ()).unwrap();
    });
    assert_eq!(log.take(), ["g>main", "main>g"]);
}

#[test]
fn s22_a_tracer_may_drop_the_last_handle_of_the_greenlet_that_just_died() {
    let Some(ended) = child(|| {
        unscoped().enter(|me: &Current<()>| {
            let dies = Greenlet::new(me, |_, ()| Ok(()));
            // Owns the only handle of the greenlet that dies.
            let holder = Greenlet::new(me, move |me, ()| {
                me.switch(&dies, ()).map(|()| unreachable!("it is killed"))
            });
            let (killed, busy) = (holder.clone(), Cell::new(false));
            trace::set(Some(Tracer::new(move |event| {
                if event.from.is_dead() && !busy.replace(true) {
                    enter(|inner: &Root<u8>| inner.kill(&killed).unwrap());
                }
            })));
            me.switch(&holder, ()).unwrap();
            trace::set(None);
            assert!(holder.is_dead());
        });
    }) else {
        return;
    };
    ended.assert_success();
}

/// Overwrites the frames of calls that have returned.
#[inline(never)]
fn overwrite_frames() {
    black_box([usize::MAX; 4096]);
}

/// A generator outside every greenlet is resumed by `resume`, and an error ends the resume while a tracer that was
/// called for its switch is suspended.
fn end_a_resume_while_a_tracer_is_suspended(resume: impl FnOnce(Box<dyn FnOnce()>)) {
    let library = unscoped();
    let log = Log::new();
    let kept: Rc<RefCell<Vec<Greenlet<()>>>> = Rc::default();
    let mut generator = library.enter(|me: &Current<()>| {
        let kept = Rc::clone(&kept);
        Generator::new(me, move |yielder, ()| {
            kept.borrow_mut().push(yielder.handle());
            (0..2).try_for_each(|n| yielder.give(n))
        })
    });
    assert_eq!(generator.next(), Some(0));
    let fails = library
        .enter(|me: &Current<()>| Greenlet::<()>::new(me, |_, ()| Err::<(), _>(Number(1).into())));
    let tracer = Tracer::new({
        let (kept, log, fails) = (Rc::clone(&kept), log.clone(), Cell::new(Some(fails)));
        move |event| {
            let Some(fails) = fails.take() else { return };
            library.enter(|me: &Current<()>| {
                kept.borrow_mut().push(me.handle());
                me.switch(&fails, ()).unwrap();
            });
            log.add(event.from.is_dead());
        }
    });
    resume(Box::new(move || {
        trace::set(Some(tracer));
        // The greenlet that resumes receives the error.
        assert_eq!(number(generator.resume(())), 1);
        trace::set(None);
    }));
    overwrite_frames();
    library.enter(|me: &Current<()>| {
        let tracer = kept.borrow_mut().pop().unwrap();
        // The generator ends in this root, as nobody waits for its item.
        let _gone = me.switch(&tracer, ()).unwrap_err();
    });
    assert_eq!(log.take(), [true]);
}

#[test]
fn s22_the_root_of_a_resume_may_end_while_a_tracer_is_called_for_its_switch() {
    end_a_resume_while_a_tracer_is_suspended(|resume| resume());
}

#[test]
fn s22_so_may_the_root_of_a_drop_in_which_a_tracer_resumes() {
    end_a_resume_while_a_tracer_is_suspended(|resume| {
        let victim = unscoped().enter(|me: &Current<()>| suspended(me, &Log::new(), ""));
        let resume = Cell::new(Some(resume));
        trace::set(Some(Tracer::new(move |event| {
            if event.from.is_dead() {
                resume.take().unwrap()();
            }
        })));
        drop(victim);
    });
}
