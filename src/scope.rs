//! Greenlets that borrow (rule s20), in the shape of [`std::thread::scope`].
//!
//! # Why it is sound
//! A scoped greenlet's body and messages may hold references that live for `'scope`, which
//! ends no sooner than [`Current::scope`] returns. So no such greenlet may run, be dropped or
//! hold a value after that. Step by step:
//!
//! 1. Every greenlet made through a [`Scope`], a *member*, is in the scope's roster from its making
//!    until it dies (`new_scoped_greenlet`, `Block::set_dead`), whatever becomes of its handles.
//!    One that dies new leaves the roster while its body still exists; step 3 sees to those.
//! 2. Roster and `Scope` are in the frame of [`Current::scope`], and so is an `EndOfScope` that
//!    the closure cannot reach; made last, it is dropped before either goes. It is dropped when
//!    the closure returns and when it unwinds, for whatever reason: a panic, or the unwinding of
//!    a greenlet that is itself killed. There is no third way out: a closure whose greenlet is
//!    never resumed leaves its stack, the roster and everything borrowed in place for ever.
//!    The *host* is the greenlet that runs when `Current::scope` is called, and so when
//!    `EndOfScope` is dropped. It need not be the owner: a greenlet that borrows the owner's
//!    `Current` can open a scope on its own stack. The owner lives as long either way, because
//!    its `Current` is lent.
//! 3. That drop kills members until none is left. A kill has five outcomes.
//!    * `Dead`: one member less.
//!    * `Itself`, `Beneath`: the member runs, or waits for a root on its own stack that runs. It
//!      does not: what runs is the host, on a stack that has the frame of `Current::scope`. That
//!      frame is older than every member, and so is on no member's stack.
//!    * `UnderWay`: another greenlet waits in a kill of the member. The drop takes that kill over
//!      (`tree::end`). Were this or the above wrong, the process would abort.
//!    * `Interrupted`: the member, while it was dying, killed the host; it now waits for the
//!      host's death, and the next kill interrupts that wait in turn, so the member gets on with
//!      its own.
//!
//!    The body of a member that died new is dropped by the greenlet that ran then, at once or, if
//!    that greenlet was dropping another such body, when it has done so (`kill::bury`). Which
//!    greenlet can that be? One whose code has a handle of the member, which is typed with
//!    `'scope`: the host; a member; a root on the stack of either; or one of an inner scope that
//!    is open on such a stack. Bodies that wait on the host's own list are dropped here
//!    (`tree::finish_burials`). All others return from the frame that has the list, which drops
//!    what is on it, before they die; and they are dead when this drop returns: members are
//!    killed here; roots and inner scopes end before the stack that they are on.
//! 4. A dead greenlet has dropped its body and all its locals and has given up its stack. Its
//!    value has been taken by its receiver, which was handed it as it died. What remains is
//!    the block, with no field whose type mentions `I`, `P` or the body.
//! 5. So a handle that outlives the scope, by [`Current::handle`] or by force, names a dead
//!    greenlet. Sending to it goes on to an ancestor only under an identity of the message
//!    type, and a scoped inbox has none; throwing carries `'static` errors only.
//! 6. `'scope` is invariant and chosen by [`Current::scope`] (`for<'scope>`), so nothing that
//!    lives shorter than the whole scope can be borrowed, nothing that mentions `'scope` can
//!    be put in a place that outlives it, and a `Scope` cannot be used after its end.
//! 7. Members of an inner scope may borrow from an outer one; the inner one ends first,
//!    because its `EndOfScope` lies further down on the same stack.

use core::{fmt, marker::PhantomData};

use crate::{
    BuildError, Builder, Current, Greenlet, Thrown, host, thread,
    tree::{self, Block, Killed, OutOfMemory, Roster, Settings},
};

/// Where greenlets are made that may borrow from outside; see [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    roster: &'scope Roster,
    /// The greenlet whose `Current` has opened the scope.
    owner: *const Block,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    /// A new greenlet under `parent`, as [`Greenlet::new`] makes it, that may borrow what
    /// outlives the scope. The handle cannot leave the scope. Without `std`,
    /// [`Builder::build_scoped`] is the way.
    #[cfg(feature = "std")]
    pub fn greenlet<I, P>(
        &'scope self,
        parent: &Current<P>,
        body: impl FnOnce(&Current<I>, I) -> Result<P, Thrown> + 'scope,
    ) -> Greenlet<I, &'scope ()>
    where
        I: 'scope,
        P: 'scope,
    {
        self.make(Settings::default, parent, body)
            .unwrap_or_else(|error| error.abort())
    }

    fn make<I, P>(
        &'scope self,
        settings: impl FnOnce() -> Settings,
        parent: &Current<P>,
        body: impl FnOnce(&Current<I>, I) -> Result<P, Thrown> + 'scope,
    ) -> Result<Greenlet<I, &'scope ()>, OutOfMemory>
    where
        I: 'scope,
        P: 'scope,
    {
        // SAFETY: what is borrowed outlives 'scope, which outlives the roster, and the end of
        // the scope kills all members (see the argument above).
        let own =
            unsafe { tree::new_scoped_greenlet(self.roster, self.owner, parent, settings, body) }?;
        Ok(Greenlet::of(own))
    }
}

impl Builder {
    /// As [`build`](Self::build), for a greenlet that may borrow what outlives the scope. The
    /// handle cannot leave the scope.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_scoped<'scope, I, P>(
        self,
        scope: &'scope Scope<'scope, '_>,
        parent: &Current<P>,
        body: impl FnOnce(&Current<I>, I) -> Result<P, Thrown> + 'scope,
    ) -> Result<Greenlet<I, &'scope ()>, BuildError>
    where
        I: 'scope,
        P: 'scope,
    {
        let settings = self.checked_settings()?;
        Ok(scope.make(|| settings, parent, body)?)
    }
}

/// Enters, as [`enter`](crate::enter) does, with a scope whose greenlets may borrow.
///
/// Bodies and messages may borrow what lives outside the closure. At its end every greenlet of
/// the scope that still lives is killed, also when the closure panics and when handles were
/// forgotten.
///
/// ```
/// let text = &String::from("to be or not to be");
/// let mut lengths = Vec::new();
///
/// greenlet::scope(|s, me| {
///     let main = me.handle();
///     let words = s.greenlet(me, move |me, ()| {
///         for word in text.split(' ') {
///             me.switch(&main, Some(word))?;
///         }
///         Ok(None)
///     });
///     while let Ok(Some(word)) = me.switch(&words, ()) {
///         lengths.push(word.len());
///     }
/// });
/// assert_eq!(lengths, [2, 2, 2, 3, 2, 2]);
/// ```
///
/// A handle cannot leave:
///
/// ```compile_fail
/// let escaped = greenlet::scope(|s, me: &greenlet::Current<()>| s.greenlet(me, |_, ()| Ok(())));
/// ```
///
/// Nor can what a greenlet of the scope borrows end before it:
///
/// ```compile_fail,E0597
/// greenlet::scope(|s, me: &greenlet::Current<()>| {
///     let short = String::new();
///     let borrowed = &short;
///     s.greenlet(me, move |_, ()| { println!("{borrowed}"); Ok(()) });
/// });
/// ```
#[cfg(feature = "std")]
pub fn scope<'env, I, R, F>(body: F) -> R
where
    I: 'env,
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>, &Current<I>) -> R,
{
    tree::enter_scoped(|me| me.scope(|scope| body(scope, me)))
}

/// Enters, as [`enter`](crate::enter) does, with a scope whose greenlets may borrow.
///
/// Bodies and messages may borrow what lives outside the closure. At its end every greenlet of
/// the scope that still lives is killed, also when handles were forgotten.
///
/// # Safety
/// As [`enter`](crate::enter).
#[cfg(not(feature = "std"))]
pub unsafe fn scope<'env, I, R, F>(body: F) -> R
where
    I: 'env,
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>, &Current<I>) -> R,
{
    tree::enter_scoped(|me| me.scope(|scope| body(scope, me)))
}

impl<I> Current<I> {
    /// A scope within the running greenlet, which keeps its inbox: as [`scope`], without
    /// entering again.
    ///
    /// ```
    /// use greenlet::{Greenlet, enter};
    ///
    /// let numbers = [1, 2, 3];
    /// enter(|me| {
    ///     me.scope(|s| {
    ///         let sum = s.greenlet(me, |_, ()| Ok(numbers.iter().sum::<u32>()));
    ///         assert_eq!(me.switch(&sum, ()).unwrap(), 6);
    ///     });
    /// });
    /// ```
    pub fn scope<'env, R, F>(&self, body: F) -> R
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    {
        let roster = Roster::new();
        // SAFETY: it stays here until `_end` is dropped, and that unlists it.
        unsafe { thread::list(&roster) };
        let scope = Scope {
            roster: &roster,
            owner: self.block(),
            scope: PhantomData,
            env: PhantomData,
        };
        // Made last, so dropped first: members that are killed may use `scope` until the end.
        let _end = EndOfScope(&roster);
        body(&scope)
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// Kills what lives when the scope ends.
struct EndOfScope<'a>(&'a Roster);

impl Drop for EndOfScope<'_> {
    fn drop(&mut self) {
        self.kill_all();
        self.0.unlist();
    }
}

impl EndOfScope<'_> {
    fn kill_all(&self) {
        loop {
            // A member that has died new may have a body that waits to be dropped.
            tree::finish_burials();
            let Some(member) = self.0.first() else { break };
            match tree::end(member) {
                // Interrupted by the member, in a destructor, which goes on now: again.
                Killed::Dead | Killed::Interrupted => {}
                Killed::Itself | Killed::Beneath | Killed::UnderWay => {
                    // Step 3 of the argument says that this cannot be. To go on is unsound.
                    host::abort(format_args!("{member:?} lives at the end of its scope"));
                }
            }
        }
    }
}
