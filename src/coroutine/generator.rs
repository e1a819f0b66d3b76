//! `Generator`: an iterator whose function yields items from any depth of calls.

use core::{fmt, iter::FusedIterator, ops::Deref};

use crate::{
    BuildError, Builder, Current, Thrown,
    coroutine::{Coroutine, Resumed, Side},
    tree::{OutOfMemory, Settings},
};

/// An iterator over what a function yields, from wherever it is in its calls.
///
/// The function runs on a stack of its own, and only while an item is asked for. It may borrow what
/// outlives the [`enter`](crate::enter) (`'e`). When the generator is dropped early, the function's
/// locals are dropped first. It needs no [`Current`] to be used: it can be returned, boxed, zipped and
/// consumed in any greenlet, whatever that receives.
///
/// ```
/// use greenlet::{Generator, Root, Thrown, Yielder, enter};
///
/// enum Tree {
///     Leaf(u32),
///     Node(Box<Tree>, Box<Tree>),
/// }
///
/// impl Tree {
///     fn leaves(&self, yielder: &Yielder<u32>) -> Result<(), Thrown> {
///         match self {
///             Self::Leaf(number) => yielder.give(*number),
///             Self::Node(left, right) => {
///                 left.leaves(yielder)?;
///                 right.leaves(yielder)
///             }
///         }
///     }
/// }
///
/// let pair = Tree::Node(Box::new(Tree::Leaf(1)), Box::new(Tree::Leaf(2)));
/// let tree = Tree::Node(Box::new(pair), Box::new(Tree::Leaf(3)));
/// enter(|me: &Root<()>| {
///     let leaves = Generator::new(me, |yielder, ()| tree.leaves(yielder));
///     assert!(leaves.eq([1, 2, 3]));
/// });
/// ```
///
/// One that takes a value at each step is [resumed](Self::resume) with it:
///
/// ```
/// use greenlet::{Generator, Root, enter};
///
/// enter(|me: &Root<()>| {
///     let mut sums = Generator::new(me, |yielder, mut sum: u32| {
///         loop {
///             sum += yielder.give(sum)?;
///         }
///     });
///     assert_eq!(sums.resume(1).unwrap(), Some(1));
///     assert_eq!(sums.resume(10).unwrap(), Some(11));
/// });
/// ```
///
/// The function ends its generator by returning. An error that it returns, and a panic, come out of
/// [`resume`](Self::resume); [`next`](Iterator::next) panics with the text of an error, and returns
/// `None` for an exit. It has finished then in each case.
pub struct Generator<'e, T, I = ()> {
    coroutine: Coroutine<'e, I, T, (), ()>,
}

/// What a generator's function is lent: it yields with this.
///
/// It derefs to the function's [`Current`], under which further generators can be made. A generator
/// yields only in its own greenlet.
///
/// ```
/// use greenlet::{Generator, Root, Thrown, Yielder, enter};
///
/// /// Yields from inside a callback that knows nothing of generators.
/// fn each(yielder: &Yielder<char>, text: &str) -> Result<(), Thrown> {
///     text.chars().try_for_each(|letter| yielder.give(letter))
/// }
///
/// enter(|me: &Root<()>| {
///     let letters = Generator::new(me, |yielder, ()| {
///         each(yielder, "ab")?;
///         // A second generator under the first.
///         let numbers = Generator::new(yielder, |yielder, ()| yielder.give('1'));
///         numbers.map(|number| yielder.give(number)).collect()
///     });
///     assert_eq!(letters.collect::<String>(), "ab1");
/// });
/// ```
pub struct Yielder<'a, 'e, T, I = ()> {
    side: &'a Side<'a, 'e, I, T, ()>,
}

impl<'e, T: 'e, I: 'e> Generator<'e, T, I> {
    /// A generator of what `function` yields, in the `enter` of `me`. It runs with the first input
    /// when the first item is asked for.
    ///
    /// Without memory for it the process aborts, as it does when a `Box` is made.
    #[cfg(feature = "std")]
    pub fn new<P>(
        me: &Current<'e, P>,
        function: impl FnOnce(&Yielder<'_, 'e, T, I>, I) -> Result<(), Thrown> + 'e,
    ) -> Self {
        Self::make(Settings::default, me, function).unwrap_or_else(|error| error.abort())
    }

    /// As `new`, with the stack and name of `builder`.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn build<P>(
        builder: Builder,
        me: &Current<'e, P>,
        function: impl FnOnce(&Yielder<'_, 'e, T, I>, I) -> Result<(), Thrown> + 'e,
    ) -> Result<Self, BuildError> {
        let settings = builder.checked_settings()?;
        Ok(Self::make(|| settings, me, function)?)
    }

    fn make<P>(
        settings: impl FnOnce() -> Settings,
        me: &Current<'e, P>,
        function: impl FnOnce(&Yielder<'_, 'e, T, I>, I) -> Result<(), Thrown> + 'e,
    ) -> Result<Self, OutOfMemory> {
        let coroutine = Coroutine::new(settings, me.block(), (), move |side, first| {
            function(&Yielder { side }, first)
        })?;
        Ok(Self { coroutine })
    }

    /// Runs the function with `input` until it yields, and returns the item; `None` when it has
    /// returned, from then on for ever.
    ///
    /// # Errors
    /// What the function returns; and, as a [`SwitchError<()>`](crate::SwitchError), that it cannot
    /// run: see [`Current::switch`].
    ///
    /// # Panics
    /// With the panic of the function.
    #[inline]
    pub fn resume(&mut self, input: I) -> Result<Option<T>, Thrown> {
        Ok(match self.coroutine.resume(input)? {
            Resumed::Yielded(item) => Some(item),
            Resumed::Returned(()) | Resumed::Finished => None,
        })
    }
}

impl<'e, T: 'e> Iterator for Generator<'e, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match self.resume(()) {
            Ok(item) => item,
            // The greenlet that asks is being killed, and soon hears of it itself.
            Err(thrown) if thrown.is_exit() => None,
            Err(thrown) => panic!("a generator failed: {thrown}"),
        }
    }
}

impl<'e, T: 'e> FusedIterator for Generator<'e, T> {}

impl<T, I> Yielder<'_, '_, T, I> {
    /// Hands `item` to the consumer, and returns the input with which it asks for the next one.
    ///
    /// # Errors
    /// [`GreenletExit`](crate::GreenletExit) if none is ever asked for: return it. Otherwise as
    /// [`Current::switch`].
    #[cfg_attr(switch_in_line, inline(always))]
    pub fn give(&self, item: T) -> Result<I, Thrown> {
        self.side.suspend(item)
    }
}

impl<'e, T, I> Deref for Yielder<'_, 'e, T, I> {
    type Target = Current<'e, I>;

    fn deref(&self) -> &Current<'e, I> {
        self.side.me
    }
}

impl<T, I> fmt::Debug for Generator<'_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("has_finished", &self.coroutine.has_finished())
            .finish()
    }
}

impl<T, I> fmt::Debug for Yielder<'_, '_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Yielder").field(self.side.me).finish()
    }
}
