//! A callback at every switch (rule s22), with the feature `trace`.
//!
//! In a thread that has a tracer every switch takes the slow path. In one that has none the feature costs
//! nothing on the fast path.

#[cfg(not(feature = "trace"))]
use crate::host;

#[cfg(feature = "trace")]
pub use on::{Event, EventKind, Tracer, set};
#[cfg(feature = "trace")]
pub(crate) use on::{announce, is_on};

/// Returns `true` if this thread has a tracer.
#[cfg(not(feature = "trace"))]
pub(crate) const fn is_on() -> bool {
    false
}

/// Tells the tracer of an arrival. `Err` is the panic of a tracer, which is removed.
#[cfg(not(feature = "trace"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
pub(crate) fn announce(
    _thrown: bool,
    _from: &crate::tree::Block,
    _to: &crate::tree::Block,
) -> Result<(), host::Panic> {
    Ok(())
}

#[cfg(feature = "trace")]
mod on {
    use alloc::rc::Rc;
    use core::{cell::RefCell, fmt};

    use crate::{
        AnyGreenlet, host,
        tree::{Block, thread},
    };

    /// What a tracer is called with, in the greenlet that was switched to.
    ///
    /// ```
    /// use greenlet::trace::{Event, EventKind};
    ///
    /// fn line(event: &Event<'_>) -> String {
    ///     let verb = match event.kind {
    ///         EventKind::Switch => "switches to",
    ///         EventKind::Throw => "throws at",
    ///     };
    ///     format!("{:?} {verb} {:?}", event.from, event.to)
    /// }
    /// ```
    #[derive(Debug)]
    #[non_exhaustive]
    pub struct Event<'a> {
        /// What was delivered.
        pub kind: EventKind,
        /// The greenlet that switched away.
        pub from: AnyGreenlet<'a>,
        /// The greenlet that was switched to, which is the running one.
        pub to: AnyGreenlet<'a>,
    }

    /// What a switch delivered.
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc};
    /// use greenlet::{Greenlet, GreenletExit, enter, trace::{self, EventKind, Tracer}};
    ///
    /// let errors = Rc::new(Cell::new(0));
    /// let count = Rc::clone(&errors);
    /// trace::set(Some(Tracer::new(move |event| {
    ///     if event.kind == EventKind::Throw {
    ///         count.set(count.get() + 1);
    ///     }
    /// })));
    /// enter(|me| {
    ///     let child = Greenlet::new(me, |me, ()| me.switch_to_parent(()));
    ///     me.switch(&child, ()).unwrap();
    ///     me.throw(&child, GreenletExit).unwrap_err(); // there, and what came of it here
    /// });
    /// assert_eq!(errors.get(), 2);
    /// # trace::set(None);
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum EventKind {
        /// A value, or nothing.
        Switch,
        /// An error or a panic.
        Throw,
    }

    /// A callback for every switch of its thread.
    ///
    /// ```
    /// use greenlet::trace::{self, Tracer};
    ///
    /// let outer = trace::set(Some(Tracer::new(|event| println!("{event:?}"))));
    /// // …
    /// trace::set(outer);
    /// ```
    #[derive(Clone)]
    pub struct Tracer(Rc<dyn Fn(&Event<'_>)>);

    impl Tracer {
        /// Makes a tracer that calls `callback` after each arrival: also at the start and the death of a
        /// greenlet, and when a greenlet switches to itself. The callback may [`enter`](crate::enter) and switch.
        /// If it panics, the tracer is removed and the panic continues in the running greenlet; in a kill the
        /// killer does not notice the panic.
        pub fn new(callback: impl Fn(&Event<'_>) + 'static) -> Self {
            Self(Rc::new(callback))
        }
    }

    impl fmt::Debug for Tracer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_tuple("Tracer").finish_non_exhaustive()
        }
    }

    host::per_thread! {
        static TRACER: RefCell<Option<Tracer>> = RefCell::new(None);
    }

    /// Sets or removes this thread's tracer and returns the previous one. If the thread is ending and has dropped
    /// its tracer, `tracer` is dropped as well.
    ///
    /// ```
    /// use std::{cell::RefCell, rc::Rc};
    /// use greenlet::{Builder, enter, trace};
    ///
    /// let seen = Rc::new(RefCell::new(Vec::new()));
    /// enter(|me| {
    ///     let child = Builder::new().name("child").build(me, |_, ()| Ok(()))?;
    ///     let log = Rc::clone(&seen);
    ///     trace::set(Some(trace::Tracer::new(move |event| {
    ///         log.borrow_mut().push(event.to.name().unwrap_or("main").to_string());
    ///     })));
    ///     me.switch(&child, ()).unwrap();
    ///     trace::set(None);
    ///     Ok::<(), greenlet::BuildError>(())
    /// })
    /// # .unwrap();
    /// assert_eq!(*seen.borrow(), ["child", "main"]);
    /// ```
    pub fn set(tracer: Option<Tracer>) -> Option<Tracer> {
        let before = TRACER
            .try_with(|current| current.replace(tracer))
            .unwrap_or(None);
        // SAFETY: null, or the running greenlet's block, which stays while it runs.
        if let Some(current) = unsafe { thread::current().as_ref() } {
            thread::set_current(Some(current));
        }
        before
    }

    pub(crate) fn is_on() -> bool {
        // A thread that is ending may have lost its tracer.
        TRACER
            .try_with(|tracer| tracer.borrow().is_some())
            .unwrap_or(false)
    }

    /// Tells the tracer of an arrival. `Err` is the panic of a tracer, which is removed. It never unwinds: callers
    /// have more to do before a panic may continue.
    pub(crate) fn announce(thrown: bool, from: &Block, to: &Block) -> Result<(), host::Panic> {
        let tracer = TRACER.try_with(|tracer| tracer.borrow().clone());
        let Ok(Some(tracer)) = tracer else {
            return Ok(());
        };
        let event = Event {
            kind: if thrown {
                EventKind::Throw
            } else {
                EventKind::Switch
            },
            from: AnyGreenlet::of(from),
            to: AnyGreenlet::of(to),
        };
        host::catch(move || {
            // This may be all that is left of it by the time it returns, and its destructor may
            // panic like the callback.
            let tracer = tracer;
            (tracer.0)(&event);
        })
        .inspect_err(|_| host::contain(|| drop(set(None))))
    }
}
