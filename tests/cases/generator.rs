use std::{any::Any, cell::RefCell, rc::Rc};

use greenlet::{Current, Greenlet, Thrown, WeakGreenlet, local};

use crate::support::{Number, unscoped};

/// The message to a consumer: the next item, or the end. Generators receive no items, but have the same inbox
/// type, because they may consume as well.
pub type Next<T> = Option<T>;

/// A generator. Each `next` makes the consumer its parent.
pub struct Genlet<T: 'static> {
    greenlet: Greenlet<'static, Next<T>>,
    consumer: Consumer<T>,
}

type Consumer<T> = Rc<RefCell<Option<WeakGreenlet<'static, Next<T>>>>>;

local! {
    /// The `Consumer<T>` to which the running generator yields.
    static CONSUMER: RefCell<Option<Rc<dyn Any>>> = RefCell::new(None);
}

impl<T: 'static> Genlet<T> {
    pub fn new(
        me: &Current<'static, Next<T>>,
        body: impl FnOnce(&Current<'static, Next<T>>) -> Result<(), Thrown> + 'static,
    ) -> Self {
        let consumer = Consumer::<T>::default();
        let theirs = Rc::clone(&consumer);
        let greenlet = Greenlet::new(me, move |me, _: Next<T>| {
            CONSUMER.with(|mine| mine.replace(Some(theirs)));
            body(me)?;
            Ok(None)
        });
        Self { greenlet, consumer }
    }

    pub fn next(&self, me: &Current<'static, Next<T>>) -> Next<T> {
        self.greenlet.set_parent(&me.handle()).unwrap();
        self.consumer.replace(Some(me.handle().downgrade()));
        let next = me.switch(&self.greenlet, None).unwrap();
        assert_eq!(self.greenlet.is_dead(), next.is_none());
        next
    }

    /// Returns the remaining items.
    pub fn all(&self, me: &Current<'static, Next<T>>) -> Vec<T> {
        std::iter::from_fn(|| self.next(me)).collect()
    }

    /// Kills the generator. A drop is not enough if it consumes another one, whose parent it then is.
    pub fn abandon(self, me: &Current<'static, Next<T>>) {
        me.kill(&self.greenlet).unwrap();
    }
}

/// Yields an item, from the running generator or a function that it has called.
pub fn yield_<T: 'static>(me: &Current<'static, Next<T>>, item: T) -> Result<(), Thrown> {
    let mine = CONSUMER.with(|mine| mine.borrow().clone());
    let consumer = mine.and_then(|mine| {
        mine.downcast::<RefCell<Option<WeakGreenlet<'static, Next<T>>>>>()
            .ok()
    });
    let consumer = consumer.ok_or(Number(404))?;
    let consumer = consumer.borrow().as_ref().and_then(WeakGreenlet::upgrade);
    me.switch(&consumer.expect("it waits for this"), Some(item))
        .map(drop)
}

#[test]
fn generator() {
    unscoped().enter(|me| {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let numbers = Genlet::new(me, |me| (0..5).try_for_each(|n| yield_(me, n)));
            while let Some(n) = numbers.next(me) {
                seen.push(n);
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4].repeat(3));
    });
}
