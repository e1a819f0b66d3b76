//! Greenlets that end with their `enter` (rule s20), in the shape of [`std::thread::scope`].
//!
//! # Why it is sound
//! A greenlet made under an `enter` may hold references that live for `'e`, which lasts until the
//! `enter` ends, in its body, its locals and its messages. It may also be suspended in a closure that
//! lends a thread-local's value. So none may run, be dropped or hold a value after that `enter`, and
//! no code may get out of an `enter` while it runs, but by a handle. Step by step:
//!
//! 1. A greenlet is a *member* of the `enter` of its parent: each block names a registry, its `home`,
//!    and takes it from its parent (`Block::new`). It is in the registry from its making until it
//!    dies (`tree::new_greenlet`, `Block::set_dead`), whatever becomes of its handles. One that dies
//!    new leaves the registry while its body still exists; step 3 sees to those.
//! 2. The registry is in the frame of [`enter`], and so is an `EndOfEnter` that the closure cannot
//!    reach; made last, it is dropped first. It is dropped when the closure returns and when it
//!    unwinds, for whatever reason: a panic, or the unwinding of a greenlet that is itself killed.
//!    There is no third way out: a closure whose greenlet is never resumed leaves its stack, the
//!    registry and everything borrowed in place for ever.
//! 3. That drop kills members until none is left. It runs in the root that [`enter`] has made. A kill
//!    has five outcomes.
//!    * `Dead`: one member less.
//!    * `Itself`, `Beneath`: the member runs, or waits for a root on its own stack that runs. It
//!      does not: what runs is the root of this `enter`, on a stack that has the frame of [`enter`].
//!      That frame is older than every member, and so is on no member's stack.
//!    * `InProgress`: another greenlet waits in a kill of the member. The drop takes that kill over
//!      (`kill::end`). Were this or the above wrong, the process would abort.
//!    * `Interrupted`: the member, while it was dying, killed the root's stack; it now waits for its
//!      death, and the next kill interrupts that wait in turn, so the member gets on with its own.
//!
//!    The body of a member that died new is dropped at once, by the greenlet that ran then
//!    (`kill::drop_unstarted`). Which greenlet can that be? One whose code has a handle of the member,
//!    which is typed with `'e`: the root; a member; a root on the stack of either; or a member of an
//!    inner `enter` on such a stack. A destructor of the body may switch away, but its frame is gone
//!    before the stack that it is on; and all but the root's own are gone when this drop returns:
//!    members are killed here; roots end before the stack that they are on, and with an inner
//!    `enter` its members. The root's own stack is where this drop runs, so no such frame is on it.
//! 4. A dead greenlet has dropped its body and all its locals and has given up its stack. Its
//!    value has been taken by its receiver, which was handed it as it died. What remains is
//!    the block, with no field whose type mentions `I`, `P` or the body.
//! 5. `'e` is invariant and chosen by [`enter`] (`for<'e>`). So nothing that lives shorter than the
//!    whole `enter` can be borrowed, and nothing that mentions `'e` can be put where it outlives it:
//!    not in the result, not in a thread-local, a static or an older collection, not in an error or
//!    a panic, which are `'static`. `'env: 'e`, which [`Root`] brings, is what lets bodies borrow.
//! 6. Members of an inner `enter` may borrow from an outer one; the inner one ends first, because
//!    its `EndOfEnter` lies further down on the same stack.
//! 7. Control leaves the innermost `enter` only by a handle from outside. What code does without
//!    one stays in: it finishes, throws or sends to its parent, which is a member or the root
//!    ([`Greenlet::set_parent`](crate::Greenlet::set_parent) takes one of the same `'e`); to an
//!    ancestor of a dead one, which is one as well (`route::ancestor`); or it enters further in. A
//!    generator's or future's function also goes back to the greenlet that has resumed it
//!    (`coroutine/resumer.rs`), which waits in a frame that has the generator, and so its handle.
//!
//! # Thread-locals
//! `LocalKey::with` lends a reference for as long as a closure runs, and takes it for granted that
//! the closure has returned when the thread ends, as plain Rust code has no way to leave it. A greenlet
//! has: it is suspended inside. Then there must be nobody to resume it once the value is gone.
//!
//! * A value's destructor runs when its thread ends, or in `process::exit`. Thread-locals and statics
//!   have no handle of a member (5), and what a destructor enters by itself it does not leave but
//!   downwards (7). When a thread ends, no `enter` is left on its stack, so all members have been killed
//!   (2, 3): no frame has a reference, and nothing that was started in `with`, such as
//!   `std::thread::scope`, goes on. In `process::exit` members are still suspended, and stay so for
//!   ever: nobody is resumed who could look at the value, as nobody is in the frames of other
//!   functions on the stack that called `exit`.
//! * An initializer is code without captures. It has no handle (5), so it returns before anything
//!   outside it goes on (7), and no greenlet of another `enter` initializes the same key meanwhile.
//!   Members of an `enter` within it end before it returns.
//!
//! What remains is what plain code does to itself without greenlets, and thread-locals that trust
//! in the order of frames on a stack: see [`Unscoped`](crate::Unscoped) and the guide.

use core::{fmt, marker::PhantomData, ops::Deref, ptr};

use crate::{
    Current, Invariant,
    tree::{self, Block},
};

/// The root greenlet, as the closure of [`enter`](crate::enter) receives it: a [`Current`] whose greenlets may
/// borrow what lives outside the closure (`'env`).
///
/// ```
/// use greenlet::{Generator, Root, enter};
///
/// let text = String::from("to be");
/// let lengths: Vec<_> = enter(|me: &Root<()>| {
///     // `text` outlives the closure, so what is made under the root may borrow it.
///     let lengths = Generator::new(me, |yielder, ()| {
///         text.split(' ').try_for_each(|word| yielder.give(word.len()))
///     });
///     lengths.collect()
/// });
/// assert_eq!(lengths, [2, 2]);
/// ```
#[repr(transparent)]
pub struct Root<'e, 'env: 'e, I> {
    current: Current<'e, I>,
    env: PhantomData<Invariant<&'env ()>>,
}

impl<'e, 'env: 'e, I> Root<'e, 'env, I> {
    /// Views a block as the `Root` of its greenlet.
    ///
    /// # Safety
    /// As for [`Current::of`]; and `'env` outlives the `enter`.
    pub(crate) unsafe fn of(block: &Block) -> &Self {
        // SAFETY: `Root` is a transparent wrapper of a `Current`, which is one of a block.
        unsafe { &*ptr::from_ref(block).cast::<Self>() }
    }
}

impl<'e, 'env: 'e, I> Deref for Root<'e, 'env, I> {
    type Target = Current<'e, I>;

    #[inline(always)]
    fn deref(&self) -> &Current<'e, I> {
        &self.current
    }
}

impl<I> fmt::Debug for Root<'_, '_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current.fmt(f)
    }
}

/// Runs `body` in a new root greenlet and returns what it returns (rules
/// [s1](crate::guide::rules#s1), [s2](crate::guide::rules#s2)).
///
/// The root of a thread's first `enter` is the thread's main greenlet. Called inside a greenlet, `enter`
/// nests: until `body` returns, this stack has a second inbox, and no greenlet can switch to the caller.
///
/// As with [`std::thread::scope`], bodies may borrow what lives outside the closure, and no handle leaves it.
/// When `body` returns or panics, every greenlet made under the root that still lives is killed, even if its
/// handles were forgotten (rule [s20](crate::guide::rules#s20)). For handles that outlive the call, use an
/// [`Unscoped`](crate::Unscoped).
///
/// `I` is the inbox type of the root: what the bodies of its children return. If nothing determines it, write
/// `enter(|me: &Root<()>| …)`. It is `'static`; [`with_inbox`] makes an inbox for handles or references.
///
/// The calls of a thread must end in the reverse of the order in which they began. They always do, unless
/// another library switches stacks inside them. The process aborts with a message if one ends before another
/// that began later.
///
/// ```
/// use greenlet::{Greenlet, enter};
///
/// let answer = enter(|me| {
///     let twice = Greenlet::new(me, |_, n: u32| Ok(n * 2));
///     me.switch(&twice, 21)
/// });
/// assert_eq!(answer.unwrap(), 42);
/// ```
///
/// ```
/// # use greenlet::{Greenlet, enter};
/// let text = String::from("to be or not to be");
/// let mut lengths = Vec::new();
/// enter(|me| {
///     let words = Greenlet::new(me, |me, ()| {
///         for word in text.split(' ') {
///             me.switch_to_parent(Some(word.len()))?;
///         }
///         Ok(None)
///     });
///     while let Ok(Some(length)) = me.switch(&words, ()) {
///         lengths.push(length);
///     }
/// });
/// assert_eq!(lengths, [2, 2, 2, 3, 2, 2]);
/// ```
///
/// A handle cannot leave:
///
/// ```compile_fail
/// # use greenlet::{Greenlet, Root, enter};
/// let escaped = enter(|me: &Root<()>| Greenlet::new(me, |_, ()| Ok(())));
/// ```
///
/// Nor can what a greenlet borrows end before the `enter`:
///
/// ```compile_fail,E0597
/// # use greenlet::{Greenlet, Root, enter};
/// enter(|me: &Root<()>| {
///     let short = String::new();
///     let borrowed = &short;
///     Greenlet::new(me, move |_, ()| { println!("{borrowed}"); Ok(()) });
/// });
/// ```
///
/// [`with_inbox`]: crate::Current::with_inbox
#[cfg(feature = "std")]
pub fn enter<'env, I, R, F>(body: F) -> R
where
    I: 'static,
    F: for<'e> FnOnce(&Root<'e, 'env, I>) -> R,
{
    tree::enter(body)
}

/// Runs `body` in a new root greenlet and returns what it returns (rules
/// [s1](crate::guide::rules#s1), [s2](crate::guide::rules#s2)).
///
/// The root of the first `enter` is the main greenlet. Bodies may borrow what lives outside the closure, and no
/// handle leaves it. At its end every greenlet made under the root that still lives is killed, even if its
/// handles were forgotten (rule [s20](crate::guide::rules#s20)). For handles that outlive the call, use an
/// [`Unscoped`](crate::Unscoped).
///
/// Calls must end in the reverse of the order in which they began. They always do, unless another library
/// switches stacks inside them. The program panics if one ends before another that began later.
///
/// # Safety
/// Without `std` the crate keeps its state in plain statics. From the first call until the program ends, at most
/// one thread of execution uses this crate, even to read a [`LocalKey`](crate::LocalKey): one thread, or one core
/// of the board. Interrupt and signal handlers count as other threads: they must not use it.
#[cfg(not(feature = "std"))]
pub unsafe fn enter<'env, I, R, F>(body: F) -> R
where
    I: 'static,
    F: for<'e> FnOnce(&Root<'e, 'env, I>) -> R,
{
    tree::enter(body)
}
