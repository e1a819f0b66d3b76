//! `Generator`: an iterator whose function yields items from any depth of calls.

use core::{fmt, iter::FusedIterator, ops::Deref};

use crate::{
    BuildError, Builder, Current, Thrown,
    coroutine::{Coroutine, Resumed, Side},
    tree::{OutOfMemory, Settings},
};

/// An iterator over what a function yields, from any depth of its calls.
///
/// The function runs on a stack of its own, and only while an item is asked for. It may borrow what outlives
/// the [`enter`](crate::enter) (`'e`). Dropping the generator early kills the function and drops its locals. No
/// [`Current`] is needed to use it: it can be returned, boxed, zipped and consumed in any greenlet.
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
/// [`resume`](Self::resume) passes a value in at each step:
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
/// The generator has finished when the function returns. An error or a panic of the function comes out of
/// [`resume`](Self::resume). [`next`](Iterator::next) panics with the text of an error, and returns `None` for a
/// [`GreenletExit`](crate::GreenletExit).
pub struct Generator<'e, T, I = ()> {
    coroutine: Coroutine<'e, I, T, (), ()>,
}

/// Yields the items of a [`Generator`]; its function receives this.
///
/// It derefs to the function's [`Current`], under which the function can make further generators. Only the
/// function's own greenlet can yield. If another greenlet than the consumer kills the function, by its
/// [`handle`](Current::handle), while the consumer waits for an item, the consumer is not resumed: it stays busy
/// until it is killed or receives an error.
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
    /// Makes a generator of what `function` yields, in the `enter` of `me`. The function starts, with the first
    /// input, when the first item is asked for.
    ///
    /// If there is no memory for it, the process aborts, as for a `Box`.
    #[cfg(feature = "std")]
    pub fn new<P>(
        me: &Current<'e, P>,
        function: impl FnOnce(&Yielder<'_, 'e, T, I>, I) -> Result<(), Thrown> + 'e,
    ) -> Self {
        Self::make(Settings::default, me, function).unwrap_or_else(|error| error.abort())
    }

    /// Makes a generator as `new` does, with the stack and name of `builder`.
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

    /// Resumes the function with `input` until it yields, and returns the item; returns `None` when the function
    /// has returned, and always after that.
    ///
    /// # Errors
    /// Returns the error of the function. Returns a [`SwitchError<()>`](crate::SwitchError) if the function cannot
    /// run: see [`Current::switch`]. The generator has finished in both cases.
    ///
    /// # Panics
    /// Resumes a panic of the function.
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
            // The greenlet that asks is being killed: its own next switch says so.
            Err(thrown) if thrown.is_exit() => None,
            Err(thrown) => panic!("a generator failed: {thrown}"),
        }
    }
}

impl<'e, T: 'e> FusedIterator for Generator<'e, T> {}

impl<T, I> Yielder<'_, '_, T, I> {
    /// Yields `item` to the consumer, and returns the input with which the consumer asks for the next item.
    ///
    /// # Errors
    /// Returns a [`GreenletExit`](crate::GreenletExit) if the generator is dropped: return it. Otherwise as
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
