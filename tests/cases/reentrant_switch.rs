//! Cases of `TestBrokenGreenlets` in `test_greenlet.py`: tracers that switch.

use std::cell::Cell;

use greenlet::{
    Builder, Child, Current, Greenlet, Root, SwitchError, enter,
    trace::{self, Tracer},
};

use crate::support::{log::Log, unscoped};

/// The tracer switches to a second greenlet and back. The traced message still arrives.
#[test]
fn reentrant_switch_two_greenlets() {
    let log = Log::new();
    enter(|me: &Root<&'static str>| {
        let main = me.handle();
        let first = Greenlet::new(me, {
            let log = log.clone();
            move |me, message: &'static str| {
                log.add(message);
                log.add(me.switch(&main, "from the first")?);
                Ok("the first ends")
            }
        });
        let (seen, armed) = (log.clone(), Cell::new(true));
        trace::set(Some(Tracer::new(move |_| {
            if armed.replace(false) {
                let second = enter(|inner: &Root<&'static str>| {
                    let second = Greenlet::new(inner, |_, ()| Ok("from the second"));
                    inner.switch(&second, ()).unwrap()
                });
                seen.add(second);
                armed.set(true);
            }
        })));
        log.add(me.switch(&first, "start").unwrap());
        log.add(me.switch(&first, "resume").unwrap());
        trace::set(None);
    });
    assert_eq!(
        log.take(),
        [
            "from the second", // at the start of the first
            "start",
            "from the second", // in main
            "from the first",
            "from the second", // in the first
            "resume",
            "from the second", // in main
            "the first ends",
        ]
    );
}

/// A third greenlet that switches to the one in whose name the tracer runs is refused with its
/// message; that one starts with its own.
#[test]
fn reentrant_switch_three_greenlets() {
    let log = Log::new();
    unscoped().enter(|me: &Current<u32>| {
        let first = Greenlet::new(me, {
            let log = log.clone();
            move |_, message: u32| {
                log.add(format!("the first starts with {message}"));
                Ok(message)
            }
        });
        let (target, seen, armed) = (first.clone(), log.clone(), Cell::new(true));
        trace::set(Some(Tracer::new(move |_| {
            if !armed.replace(false) {
                return;
            }
            let outcome = enter(|inner: &Root<Result<(), u32>>| {
                let target = target.clone();
                let second = Greenlet::new(inner, move |me: &Child<(), _>, ()| {
                    match me.try_switch(&target, 99) {
                        Err(SwitchError::Busy(back)) => Ok(Err(back)),
                        _ => Ok(Ok(())),
                    }
                });
                inner.switch(&second, ()).unwrap()
            });
            seen.add(format!("{outcome:?}"));
        })));
        assert_eq!(me.switch(&first, 1).unwrap(), 1);
        trace::set(None);
    });
    assert_eq!(log.take(), ["Err(99)", "the first starts with 1"]);
}

/// The order of events when the tracer switches to two others on the way to a third.
#[test]
fn reentrant_switch_three_greenlets2() {
    let log: Log<String> = Log::new();
    enter(|me: &Root<u32>| {
        let main = me.handle();
        let build = Builder::new().name("first");
        let first = build.build(me, {
            let log = log.clone();
            move |me, n: u32| {
                log.add(format!("first got {n}"));
                let n = me.switch(&main, n + 1)?;
                log.add(format!("first got {n}"));
                Ok(n + 1)
            }
        });
        let first = first.unwrap();
        let (seen, depth) = (log.clone(), Cell::new(0));
        trace::set(Some(Tracer::new(move |event| {
            let [from, to] = [event.from, event.to].map(|g| g.name().unwrap_or("root"));
            seen.add(format!("{}{from}>{to}", "-".repeat(depth.get())));
            if depth.get() == 1 || to != "first" {
                return;
            }
            depth.set(1);
            let sum = enter(|inner: &Root<u32>| {
                let others = ["second", "third"].map(|name| {
                    let build = Builder::new().name(name);
                    build.build(inner, |_, n: u32| Ok(n * 10)).unwrap()
                });
                others
                    .iter()
                    .map(|g| inner.switch(g, 1).unwrap())
                    .sum::<u32>()
            });
            seen.add(format!("{from}>{to} leaves with {sum}"));
            depth.set(0);
        })));
        assert_eq!(me.switch(&first, 1).unwrap(), 2);
        assert_eq!(me.switch(&first, 5).unwrap(), 6);
        trace::set(None);
    });
    let nested = ["-root>second", "-second>root", "-root>third", "-third>root"];
    let mut expected = Vec::new();
    for got in ["first got 1", "first got 5"] {
        expected.push("root>first");
        expected.extend(nested);
        expected.push("root>first leaves with 20");
        expected.extend([got, "first>root"]);
    }
    assert_eq!(log.take(), expected);
}
