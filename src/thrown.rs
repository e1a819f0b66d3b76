//! Errors as they travel between greenlets.

use alloc::boxed::Box;
use core::{
    any::Any,
    error::Error,
    fmt,
    mem::ManuallyDrop,
    ptr::{self, NonNull},
};

use crate::tree::Refusal;

/// Asks a greenlet to finish (greenlet's exception of the same name, rule s13).
///
/// It reaches a greenlet as the `Err` of its [`switch`](crate::Current::switch) when it is
/// killed or when somebody throws this. The answer is to return it: `?` does that.
///
/// ```
/// use greenlet::{Greenlet, GreenletExit, enter};
///
/// enter(|me| {
///     let main = me.handle();
///     let counter = Greenlet::new(me, move |me, ()| {
///         for n in 0.. {
///             me.switch(&main, n)?;
///         }
///         Ok(0)
///     });
///     assert_eq!(me.switch(&counter, ()).unwrap(), 0);
///     assert_eq!(me.switch(&counter, ()).unwrap(), 1);
///     let news = me.throw(&counter, GreenletExit).unwrap_err();
///     assert!(news.is_child_exit() && counter.is_dead());
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GreenletExit;

impl fmt::Display for GreenletExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this greenlet is asked to exit")
    }
}

impl Error for GreenletExit {}

/// What a greenlet receives in place of a message: an error that somebody threw, that a child
/// ended with, or that a refused switch came to.
///
/// One pointer wide. Any [`Error`] converts into it, so `?` works in a body; a
/// [`GreenletExit`], and the news of a child's, needs no memory. For that it is not an [`Error`]
/// itself; it converts into a boxed one, so `?` works as well where that is what is returned.
///
/// ```
/// use greenlet::Thrown;
///
/// let thrown = Thrown::from("7x".parse::<u8>().unwrap_err());
/// assert_eq!(thrown.to_string(), "invalid digit found in string");
/// assert!(thrown.downcast::<std::num::ParseIntError>().is_ok());
/// ```
///
/// ```
/// use greenlet::{Greenlet, enter};
///
/// fn parsed(number: &'static str) -> Result<u8, Box<dyn std::error::Error>> {
///     enter(|me| {
///         let parser = Greenlet::new(me, |_, text: &str| Ok(text.parse()?));
///         Ok(me.switch(&parser, number)?)
///     })
/// }
/// assert_eq!(parsed("7").unwrap(), 7);
/// assert!(parsed("7x").unwrap_err().is::<std::num::ParseIntError>());
/// ```
pub struct Thrown(
    /// `None` is the exit, the address of [`CHILD_EXIT`] the news of a child's. Invariant: another
    /// address is that of a box, which this owns.
    Option<NonNull<Payload>>,
);

/// Its address stands for the news that a child has exited: no box lies there.
static CHILD_EXIT: usize = 0;

fn child_exit() -> NonNull<Payload> {
    NonNull::from(&CHILD_EXIT).cast()
}

enum Payload {
    Error(Box<dyn Error>),
    /// A value that no live ancestor of the dead greenlet took.
    Stray {
        value: Option<Box<dyn Any>>,
        why: Refusal,
    },
}

impl Thrown {
    pub(crate) fn exit() -> Self {
        Self(None)
    }

    /// A value that no live ancestor took; it is gone if it could not be kept.
    pub(crate) fn stray(value: Option<Box<dyn Any>>, why: Refusal) -> Self {
        Self::carrying(Payload::Stray { value, why })
    }

    /// An exit that leaves the greenlet it was meant for is news, not a request, to the next.
    pub(crate) fn exit_becomes_news(&mut self) {
        self.0.get_or_insert_with(child_exit);
    }

    fn carrying(payload: Payload) -> Self {
        Self(Some(NonNull::from(Box::leak(Box::new(payload)))))
    }

    /// What it owns, if anything.
    fn owned(&self) -> Option<NonNull<Payload>> {
        self.0.filter(|&payload| payload != child_exit())
    }

    fn payload(&self) -> Option<&Payload> {
        // SAFETY: a box that this owns (invariant).
        self.owned().map(|payload| unsafe { payload.as_ref() })
    }

    fn into_payload(self) -> Option<Payload> {
        // SAFETY: a box that nobody else owns; given up by `self`, once.
        let boxed = ManuallyDrop::new(self)
            .owned()
            .map(|payload| unsafe { Box::from_raw(payload.as_ptr()) })?;
        Some(*boxed)
    }

    /// As one pointer, which owns the payload.
    pub(crate) fn into_raw(self) -> *mut () {
        let payload = ManuallyDrop::new(self).0;
        payload.map_or(ptr::null_mut(), NonNull::as_ptr).cast()
    }

    /// # Safety
    /// `raw` comes from [`into_raw`](Self::into_raw) and is used once.
    pub(crate) unsafe fn from_raw(raw: *mut ()) -> Self {
        // The invariant held there, and nobody else owns what it owned (contract).
        Self(NonNull::new(raw.cast()))
    }

    /// Is the receiver asked to exit? Then its body should return, with this or anything else.
    #[must_use]
    pub fn is_exit(&self) -> bool {
        self.0.is_none()
    }

    /// Did a child exit because it was asked to? This is news about the child; returned from
    /// a body it goes on to the parent like any error (rule s13).
    #[must_use]
    pub fn is_child_exit(&self) -> bool {
        self.0 == Some(child_exit())
    }

    /// The error inside, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match self.payload() {
            Some(Payload::Error(error)) => error.downcast_ref(),
            None if self.is_exit() => (&GreenletExit as &(dyn Error + 'static)).downcast_ref(),
            _ => None,
        }
    }

    /// Takes the error out, if it is an `E`.
    ///
    /// # Errors
    /// Gives `self` back if it is something else.
    pub fn downcast<E: Error + 'static>(self) -> Result<E, Self> {
        if self.downcast_ref::<E>().is_none() {
            return Err(self);
        }
        let error = Box::<dyn Error>::from(self);
        Ok(*error.downcast().expect("just looked at"))
    }

    /// Takes out the value that a dead greenlet left and no live ancestor took (rule s7), if
    /// it is a `V`.
    ///
    /// # Errors
    /// Gives `self` back if it is something else.
    pub fn into_value<V: 'static>(self) -> Result<V, Self> {
        // SAFETY: a box that this owns (invariant).
        let payload = self.owned().map(|mut payload| unsafe { payload.as_mut() });
        if let Some(Payload::Stray { value, .. }) = payload {
            match value.take().map(Box::<dyn Any>::downcast) {
                Some(Ok(found)) => return Ok(*found),
                Some(Err(other)) => *value = Some(other),
                None => {}
            }
        }
        Err(self)
    }
}

impl<E: Error + 'static> From<E> for Thrown {
    fn from(error: E) -> Self {
        if (&error as &(dyn Error + 'static)).is::<GreenletExit>() {
            Self::exit()
        } else {
            Self::carrying(Payload::Error(Box::new(error)))
        }
    }
}

/// The error inside, as it is; what is none becomes one that says the same. That keeps a value
/// which no ancestor took until it is dropped: who wants it asks
/// [`into_value`](Thrown::into_value) first.
impl From<Thrown> for Box<dyn Error> {
    fn from(thrown: Thrown) -> Self {
        if thrown.is_exit() {
            return Box::new(GreenletExit);
        }
        match thrown.payload() {
            Some(Payload::Error(_)) => match thrown.into_payload() {
                Some(Payload::Error(error)) => error,
                _ => unreachable!("just looked at"),
            },
            _ => Box::new(News(thrown)),
        }
    }
}

/// As an [`Error`], what is thrown and none.
struct News(Thrown);

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for News {}

impl Drop for Thrown {
    fn drop(&mut self) {
        if let Some(payload) = self.owned() {
            // SAFETY: a box that this owns (invariant).
            drop(unsafe { Box::from_raw(payload.as_ptr()) });
        }
    }
}

impl fmt::Display for Thrown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload() {
            None if self.is_exit() => GreenletExit.fmt(f),
            None => f.write_str("a child greenlet was asked to exit and has"),
            Some(Payload::Error(error)) => error.fmt(f),
            Some(Payload::Stray { why, .. }) => {
                f.write_str("a greenlet returned a value that its parent could not take: ")?;
                match why {
                    Refusal::Stack(error) => error.fmt(f),
                    Refusal::Busy => f.write_str("it waits for another to be over"),
                    _ => f.write_str("it is dead, and no other ancestor takes this type"),
                }
            }
        }
    }
}

impl fmt::Debug for Thrown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload() {
            None if self.is_exit() => GreenletExit.fmt(f),
            None => f.write_str("ChildExit"),
            Some(Payload::Error(error)) => error.fmt(f),
            Some(Payload::Stray { why, .. }) => f
                .debug_struct("Stray")
                .field("why", why)
                .finish_non_exhaustive(),
        }
    }
}
