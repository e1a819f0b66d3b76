//! s11: an error or panic at the end. s12: throw. s13: exits.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt::{self, Debug, Display},
    rc::Rc,
};

use greenlet::{Child, Current, Greenlet, GreenletExit, OrThrow, Root, SwitchError, Thrown, enter};

use crate::{
    support::{
        Number, assert_child_exit,
        census::{Census, Payload, Token},
        log::Log,
        number,
        panics::{catch, heard, text_of},
        unscoped,
    },
    with_each_cargo,
};

#[test]
fn s11_an_error_at_the_end_is_what_the_parents_switch_returns() {
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Err(Number(1).into()));
        assert_eq!(number(me.switch(&g, ())), 1);
        assert!(g.is_dead());
        let parses = Greenlet::new(me, |_, text: &'static str| {
            text.parse::<u8>()?;
            Ok(())
        });
        let thrown = me.switch(&parses, "x").unwrap_err();
        assert!(thrown.downcast::<std::num::ParseIntError>().is_ok());
    });
}

#[test]
fn s11_what_a_switch_returns_goes_on_as_a_box_of_stds() {
    type Boxed = Box<dyn std::error::Error>;
    enter(|me: &Root<()>| {
        let fails = Greenlet::new(me, |_, ()| Err(Number(1).into()));
        let boxed = Boxed::from(me.switch(&fails, ()).unwrap_err());
        assert_eq!(boxed.downcast::<Number>().unwrap(), Box::new(Number(1)));

        let main = me.handle();
        let exits = Greenlet::new(me, move |me, ()| {
            let boxed = Boxed::from(me.switch(&main, ()).unwrap_err());
            assert!(boxed.is::<GreenletExit>());
            Err(GreenletExit.into())
        });
        me.switch(&exits, ()).unwrap();
        let notice = me.throw(&exits, GreenletExit).unwrap_err();
        let text = notice.to_string();
        let boxed = Boxed::from(notice);
        assert!(!boxed.is::<GreenletExit>(), "a child's, not one's own");
        assert_eq!(boxed.to_string(), text);
    });
}

#[test]
fn s11_an_error_of_any_layout_is_dropped_once_whatever_is_made_of_it() {
    /// Its alignment is larger than that of the fields before it in its box.
    #[derive(Debug)]
    #[repr(align(128))]
    struct Aligned(Token);
    /// Has size zero: its drops are counted in a static.
    #[derive(Debug)]
    struct Empty;
    thread_local!(static EMPTY: Cell<usize> = const { Cell::new(0) });
    impl Drop for Empty {
        fn drop(&mut self) {
            EMPTY.set(EMPTY.get() + 1);
        }
    }
    impl Display for Aligned {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            Debug::fmt(&self.0, f)
        }
    }
    impl Error for Aligned {}
    impl Display for Empty {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("nothing")
        }
    }
    impl Error for Empty {}

    fn each_way<E: Error + 'static>(made: impl Fn() -> E, dropped: impl Fn() -> usize) {
        let ways: [fn(Thrown); 5] = [
            |thrown| drop(thrown),
            |thrown| assert!(thrown.downcast::<E>().is_ok()),
            |thrown| drop(thrown.downcast::<Number>().expect_err("another")),
            |thrown| drop(thrown.into_value::<()>().expect_err("no value")),
            |thrown| assert!(Box::<dyn Error>::from(thrown).downcast::<E>().is_ok()),
        ];
        enter(|me: &Root<()>| {
            for way in ways {
                let before = dropped();
                let error = made();
                let fails = Greenlet::new(me, move |_, ()| Err(error.into()));
                let thrown = me.switch(&fails, ()).unwrap_err();
                let error = thrown.downcast_ref::<E>().expect("the same");
                assert!(std::ptr::from_ref(error).is_aligned());
                assert_eq!(dropped(), before);
                way(thrown);
                assert_eq!(dropped(), before + 1);
            }
        });
    }
    let census = Census::new();
    each_way(
        || Aligned(census.token()),
        || census.born() - census.alive(),
    );
    each_way(|| Empty, || EMPTY.get());
}

#[test]
fn s11_an_error_goes_to_the_parent_not_to_the_last_sender() {
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Err(Number(1).into()));
        let caller = Greenlet::new(me, move |me, ()| {
            let killed = me.switch(&g, ()).unwrap_err();
            assert!(killed.is_exit());
            Err(killed)
        });
        assert_eq!(number(me.switch(&caller, ())), 1);
        assert!(caller.is_active());
    });
}

#[test]
fn s11_an_error_skips_dead_parents() {
    enter(|me: &Root<()>| {
        let parent = Greenlet::new(me, |_, ()| Ok(()));
        let g = Greenlet::new(me, |_, ()| Err(Number(2).into()));
        g.set_parent(&parent).unwrap();
        me.switch(&parent, ()).unwrap();
        assert_eq!(number(me.switch(&g, ())), 2);
    });
}

#[test]
fn s11_a_new_parent_dies_of_an_error_without_running() {
    fn check<T: Payload>() {
        let census = Census::new();
        enter(|me: &Root<()>| {
            let parent = Greenlet::new(me, {
                let held = T::new(&census, 0);
                move |_, ()| {
                    let _held = held;
                    unreachable!("it does not run")
                }
            });
            let g = Greenlet::new(me, |_, ()| Err(Number(3).into()));
            g.set_parent(&parent).unwrap();
            assert_eq!(census.alive(), 1);
            assert_eq!(number(me.switch(&g, ())), 3);
            assert!(parent.is_dead());
            assert_eq!(census.alive(), 0);
        });
    }
    with_each_cargo!(check);
}

#[test]
fn s11_an_error_to_a_busy_parent_reaches_the_greenlet_it_waits_for() {
    enter(|me: &Root<u8>| {
        let g = Greenlet::new(me, |_, ()| Err(Number(4).into()));
        enter(|inner: &Root<()>| assert_eq!(number(inner.switch(&g, ())), 4));
    });
}

#[test]
fn s11_a_panic_resumes_in_the_parents_switch() {
    let (outcome, heard) = heard(|| {
        catch(|| {
            enter(|me: &Root<()>| {
                let g = Greenlet::new(me, |_, ()| panic!("by the child"));
                let _ = me.switch(&g, ());
                unreachable!("the panic goes on in this switch")
            })
        })
    });
    assert_eq!(text_of(&*outcome.unwrap_err()), "by the child");
    assert_eq!(
        heard, 1,
        "the hook hears of it where it happens, and only there"
    );
}

#[test]
fn s11_a_panic_can_be_caught_in_the_parent() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, {
            let log = log.clone();
            move |_, ()| {
                let _dropped = log.at_drop("unwound");
                std::panic::panic_any(7_u16)
            }
        });
        let payload = catch(|| me.switch(&g, ())).unwrap_err();
        assert_eq!(*payload.downcast::<u16>().unwrap(), 7);
        assert_eq!(log.take(), ["unwound"]);
        assert!(g.is_dead());
        let again = Greenlet::new(me, |_, ()| Ok(()));
        me.switch(&again, ()).unwrap();
    });
}

#[test]
fn s11_a_panic_goes_from_parent_to_parent() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let outer = Greenlet::new(me, {
            let log = log.clone();
            move |me: &Child<(), _>, ()| {
                let _dropped = log.at_drop("outer");
                let inner = Greenlet::new(me, {
                    let log = log.clone();
                    move |_, ()| {
                        let _dropped = log.at_drop("inner");
                        panic!("deep")
                    }
                });
                me.switch(&inner, ())
            }
        });
        let payload = catch(|| me.switch(&outer, ())).unwrap_err();
        assert_eq!(text_of(&*payload), "deep");
        assert!(outer.is_dead());
    });
    assert_eq!(log.take(), ["inner", "outer"]);
}

#[test]
fn s11_a_new_parent_dies_of_a_panic_without_running() {
    enter(|me: &Root<()>| {
        let parent = Greenlet::new(me, |_, ()| unreachable!("it does not run"));
        let g = Greenlet::new(me, |_, ()| panic!("by the child"));
        g.set_parent(&parent).unwrap();
        let payload = catch(|| me.switch(&g, ())).unwrap_err();
        assert_eq!(text_of(&*payload), "by the child");
        assert!(parent.is_dead());
    });
}

#[test]
fn s12_throw_into_suspended_is_what_its_switch_returns() {
    enter(|me: &Root<u32>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| {
            let caught = number(me.switch(&main, 1));
            number(me.switch(&main, caught));
            Ok(9)
        });
        assert_eq!(me.switch(&g, ()).unwrap(), 1);
        assert_eq!(me.throw(&g, Number(5)).unwrap(), 5);
        assert_eq!(me.throw(&g, Number(6)).unwrap(), 9);
    });
}

#[test]
fn s12_throw_into_new_goes_to_its_parent() {
    let census = Census::new();
    let log = Log::new();
    enter(|me: &Root<()>| {
        let slot = Rc::new(RefCell::new(None));
        let parent = Greenlet::new(me, {
            let (slot, log) = (Rc::clone(&slot), log.clone());
            let (main, token) = (me.handle(), census.token());
            move |me, ()| {
                slot.replace(Some(Greenlet::new(me, move |_, ()| {
                    drop(token);
                    unreachable!("it does not run")
                })));
                log.add(number(me.switch(&main, ())));
                Ok(())
            }
        });
        me.switch(&parent, ()).unwrap();
        let new = slot.take().unwrap();
        assert_eq!(census.alive(), 1);
        me.throw(&new, Number(7)).unwrap();
        assert_eq!(log.take(), [7]);
        assert!(new.is_dead() && parent.is_dead());
        assert_eq!(census.alive(), 0);
    });
}

#[test]
fn s12_throw_into_a_new_child_of_the_thrower_comes_back_at_once() {
    enter(|me: &Root<()>| {
        let new = Greenlet::new(me, |_, ()| unreachable!("it does not run"));
        assert_eq!(number(me.throw(&new, Number(7))), 7);
        assert!(new.is_dead());
    });
}

#[test]
fn s12_throw_into_new_kills_new_parents_too() {
    enter(|me: &Root<()>| {
        let chain = [(); 3].map(|()| Greenlet::new(me, |_, ()| unreachable!("none runs")));
        chain[0].set_parent(&chain[1]).unwrap();
        chain[1].set_parent(&chain[2]).unwrap();
        assert_eq!(number(me.throw(&chain[0], Number(8))), 8);
        assert!(chain.iter().all(Greenlet::is_dead));
    });
}

#[test]
fn s12_throw_into_dead_goes_to_its_first_live_ancestor() {
    let log = Log::new();
    enter(|me: &Root<u32>| {
        let main = me.handle();
        let live = Greenlet::new(me, {
            let log = log.clone();
            move |me, n: u32| {
                log.add(number(me.switch(&main, n)));
                Ok(0)
            }
        });
        me.switch(&live, 1).unwrap();
        let [dead, deader] = [(); 2].map(|()| Greenlet::new(me, |_, n: u32| Ok(n)));
        dead.set_parent(&live).unwrap();
        deader.set_parent(&dead).unwrap();
        me.kill(&dead).unwrap();
        me.kill(&deader).unwrap();
        assert_eq!(me.throw(&deader, Number(3)).unwrap(), 0);
        assert_eq!(log.take(), [3]);
        // Now that is the thrower.
        assert_eq!(number(me.throw(&deader, Number(4))), 4);
    });
}

#[test]
fn s12_throw_into_oneself_returns_the_error_at_once() {
    enter(|me: &Root<()>| {
        assert_eq!(number(me.throw(&me.handle(), Number(2))), 2);
        let thrown = me.throw(&me.handle(), GreenletExit).unwrap_err();
        assert!(thrown.is_exit());
        let g = Greenlet::new(me, |me: &Child<(), _>, ()| {
            me.throw(&me.handle(), Number(3))
        });
        assert_eq!(number(me.switch(&g, ())), 3);
        assert!(g.is_dead());
    });
}

#[test]
fn s12_an_error_that_is_refused_comes_back() {
    let past = unscoped().enter(|me: &Current<()>| me.handle());
    unscoped().enter(|me: &Current<()>| {
        let main = me.handle();
        enter(|inner: &Root<()>| match inner.try_throw(&main, Number(5)) {
            Err(SwitchError::Busy(thrown)) => assert_eq!(number::<()>(Err(thrown)), 5),
            _ => panic!("thrown at one that waits"),
        });
        // The ancestor of a finished main is the next main.
        assert_eq!(number(me.throw(&past, Number(6))), 6);
    });
}

#[test]
fn s12_uncaught_it_goes_on_to_the_targets_parent_not_to_the_thrower() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let thrower_main = main.clone();
        let target = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
        me.switch(&target, ()).unwrap();
        let thrower = Greenlet::new(me, {
            let (target, log) = (target.clone(), log.clone());
            move |me, ()| {
                log.add("throws");
                me.throw(&target, Number(1))?;
                log.add("goes on");
                me.switch(&thrower_main, ())
            }
        });
        assert_eq!(number(me.switch(&thrower, ())), 1);
        assert_eq!(log.take(), ["throws"]);
        assert!(target.is_dead() && thrower.is_active());
    });
}

#[test]
fn s13_an_exit_reaches_the_parent_as_a_notice() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me, ()| me.switch(&main, ()));
        me.switch(&g, ()).unwrap();
        assert_child_exit(me.throw(&g, GreenletExit));
        assert!(g.is_dead());
    });
}

#[test]
fn s13_the_greenlet_itself_sees_an_exit_and_no_notice() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let thrown = me.switch(&main, ()).unwrap_err();
                log.add((thrown.is_exit(), thrown.is_child_exit()));
                assert_eq!(thrown.downcast_ref(), Some(&GreenletExit));
                assert!(thrown.downcast::<GreenletExit>().is_ok());
                Ok(())
            }
        });
        me.switch(&g, ()).unwrap();
        me.throw(&g, GreenletExit).unwrap();
    });
    assert_eq!(log.take(), [(true, false)]);
}

#[test]
fn s13_a_question_mark_does_not_make_the_parents_own_exit_of_it() {
    enter(|me: &Root<u8>| {
        let parent = Greenlet::new(me, |me: &Child<(), _>, ()| {
            let child = Greenlet::new(me, |_, ()| Err(GreenletExit.into()));
            let notice = me.switch(&child, ()).unwrap_err();
            assert!(notice.is_child_exit() && !notice.is_exit());
            assert!(notice.downcast_ref::<GreenletExit>().is_none());
            Err(notice)
        });
        let thrown = me.switch(&parent, ()).unwrap_err();
        assert!(thrown.is_child_exit() && !thrown.is_exit());
        let thrown = thrown.downcast::<GreenletExit>().unwrap_err();
        assert!(
            thrown.is_child_exit(),
            "what is not taken out stays what it is"
        );
    });
}

#[test]
fn s13_an_exit_thrown_at_a_new_or_dead_greenlet_is_a_notice_too() {
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Ok(()));
        assert_child_exit(me.throw(&g, GreenletExit));
        assert!(g.is_dead());
        assert_child_exit(me.throw(&g, GreenletExit));
        // To another ancestor than the thrower as well.
        let main = me.handle();
        let live = Greenlet::new(me, move |me, ()| {
            assert_child_exit(me.switch(&main, ()));
            Err(Number(1).into())
        });
        me.switch(&live, ()).unwrap();
        g.set_parent(&live).unwrap();
        assert_eq!(number(me.throw(&g, GreenletExit)), 1);
    });
}

/// An error with a source.
#[derive(Debug)]
struct Outer(Number);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("outer")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

type SendBox = Box<dyn std::error::Error + Send + Sync>;

fn texts(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let (mut texts, mut next) = (Vec::new(), Some(error));
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts
}

#[test]
fn s11_boxed_errors_go_in_and_out_with_their_sources() {
    use std::error::Error;

    fn through(me: &Current<()>, error: Result<(), Thrown>) -> Result<(), Thrown> {
        me.switch(&Greenlet::new(me, |_, ()| error), ())
    }
    fn out(thrown: Result<(), Thrown>) -> Result<(), Box<dyn Error>> {
        Ok(thrown?)
    }
    fn out_to_any_thread(thrown: Result<(), Thrown>) -> Result<(), SendBox> {
        Ok(thrown?)
    }

    let boxed = || Err::<(), Box<dyn Error>>(Box::new(Outer(Number(1)))).or_throw();
    let sent = || Err::<(), SendBox>(Box::new(Outer(Number(1)))).or_throw();
    let plain = || Err::<(), Thrown>(Outer(Number(1)).into());
    enter(|me: &Root<()>| {
        for error in [boxed(), sent(), plain()] {
            let error = through(me, error).unwrap_err();
            assert!(error.downcast_ref::<Outer>().is_some());
            assert_eq!(error.downcast::<Outer>().unwrap().0, Number(1));
        }
        for error in [boxed(), sent(), plain()] {
            let error = out(through(me, error)).unwrap_err();
            assert_eq!(texts(&*error), ["outer", "number 1"]);
            assert!(error.is::<Outer>());
        }
        for (error, kept) in [(boxed(), false), (sent(), true), (plain(), false)] {
            let error = out_to_any_thread(through(me, error)).unwrap_err();
            assert_eq!(texts(&*error), ["outer", "number 1"]);
            assert_eq!(format!("{error:?}"), "Outer(Number(1))");
            assert_eq!(error.is::<Outer>(), kept);
        }
        let text = through(me, Err("a text").or_throw()).unwrap_err();
        assert_eq!(text.to_string(), "a text");
    });
}

#[test]
fn s13_an_exit_that_was_boxed_on_the_way_is_one_again() {
    use std::error::Error;

    let again = |thrown: Thrown| Thrown::from_boxed(Box::<dyn Error>::from(thrown));
    assert!(again(GreenletExit.into()).is_exit());
    enter(|me: &Root<()>| {
        let g = Greenlet::new(me, |_, ()| Err(GreenletExit.into()));
        let news = again(me.switch(&g, ()).unwrap_err());
        assert!(news.is_child_exit());
        assert_eq!(
            news.into_send().to_string(),
            "a child greenlet was asked to exit and has"
        );
    });
}

#[test]
fn s11_anyhow_goes_in_and_out() {
    fn fails() -> anyhow::Result<()> {
        Err(anyhow::Error::new(Number(2)).context("outer"))
    }
    fn through() -> anyhow::Result<()> {
        enter(|me: &Root<()>| {
            let g = Greenlet::new(me, |_, ()| fails().or_throw());
            me.switch(&g, ()).map_err(Thrown::into_send)?;
            Ok(())
        })
    }
    assert_eq!(format!("{:#}", through().unwrap_err()), "outer: number 2");
}
