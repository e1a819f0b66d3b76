use greenlet::{
    Builder, Child, Current, Greenlet, Root, enter,
    trace::{self, EventKind, Tracer},
};

use crate::support::{
    Number,
    log::Log,
    number,
    panics::{catch, text_of},
};

type Seen = (EventKind, String, String);

fn tracer(log: &Log<Seen>) -> Tracer {
    let log = log.clone();
    Tracer::new(move |event| {
        let [from, to] = [event.from, event.to].map(|g| g.name().unwrap_or("main").to_string());
        log.add((event.kind, from, to));
    })
}

fn named<'e>(me: &Current<'e, ()>, name: &str, fails: bool) -> Greenlet<'e, ()> {
    let body = move |_: &Child<(), _>, ()| if fails { Err(Number(1).into()) } else { Ok(()) };
    Builder::new().name(name).build(me, body).unwrap()
}

#[test]
fn a_greenlet_tracing() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let (ends, fails) = (named(me, "ends", false), named(me, "fails", true));
        trace::set(Some(tracer(&log)));
        me.switch(&ends, ()).unwrap();
        assert_eq!(number(me.switch(&fails, ())), 1);
        trace::set(None);
        me.switch(&named(me, "unseen", false), ()).unwrap();
    });
    let expected = [
        (EventKind::Switch, "main", "ends"),
        (EventKind::Switch, "ends", "main"),
        (EventKind::Switch, "main", "fails"),
        (EventKind::Throw, "fails", "main"),
    ];
    assert_eq!(
        log.take(),
        expected.map(|(kind, from, to)| (kind, from.to_string(), to.to_string()))
    );
}

#[test]
fn b_exception_disables_tracing() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, {
            let log = log.clone();
            move |me, ()| {
                let caught = catch(|| me.switch(&main, ()));
                log.add(text_of(&*caught.unwrap_err()).to_string());
                Ok(())
            }
        });
        me.switch(&g, ()).unwrap();
        trace::set(Some(Tracer::new(|_| panic!("by the tracer"))));
        me.switch(&g, ()).unwrap();
        assert!(trace::set(None).is_none());
    });
    assert_eq!(log.take(), ["by the tracer"]);
}

#[test]
fn set_same_tracer_twice() {
    let log = Log::new();
    let tracer = tracer(&log);
    enter(|me: &Root<()>| {
        trace::set(Some(tracer.clone()));
        trace::set(Some(tracer));
        me.switch(&named(me, "g", false), ()).unwrap();
        trace::set(None);
    });
    assert_eq!(log.take().len(), 2);
}
