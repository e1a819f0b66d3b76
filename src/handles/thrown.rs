//! `Thrown`: an error, a panic or an exit that one greenlet sends to another.

use alloc::boxed::Box;
use core::{
    any::{Any, TypeId},
    error::Error,
    fmt,
    marker::PhantomData,
    mem::{self, ManuallyDrop},
    ptr::{self, NonNull},
};

use super::{
    boxed_error::{Boxed, Operations},
    send_error::{ErrorText, SendBox, SendError},
};
use crate::tree::Refusal;

/// Asks the greenlet that receives it to finish (rule [s13](crate::guide::rules#s13); Python's greenlet has
/// an exception of the same name).
///
/// A greenlet receives it as the `Err` of its [`switch`](crate::Current::switch) when it is killed, or when
/// another greenlet throws it. The body should return it: `?` does that.
///
/// ```
/// use greenlet::{Greenlet, GreenletExit, enter};
///
/// enter(|me| {
///     let counter = Greenlet::new(me, |me, ()| {
///         for n in 0.. {
///             me.switch_to_parent(n)?;
///         }
///         Ok(0)
///     });
///     assert_eq!(me.switch(&counter, ()).unwrap(), 0);
///     assert_eq!(me.switch(&counter, ()).unwrap(), 1);
///     let notice = me.throw(&counter, GreenletExit).unwrap_err();
///     assert!(notice.is_child_exit() && counter.is_dead());
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

/// What a greenlet receives in place of a message: an error that another greenlet threw, the error of a
/// child, or why a switch was refused.
///
/// Any [`Error`] converts into it, so `?` works in a body. It does not implement `Error` itself (that would
/// forbid the blanket `From`), but converts into `Box<dyn Error>`, so `?` also works in a function that
/// returns that. It is one pointer wide; a [`GreenletExit`] and the notice that a child exited need no
/// allocation.
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
    /// `None` is a [`GreenletExit`]; the address of [`CHILD_EXIT`] is a [`ChildExit`]. Invariant: any other
    /// address is that of a [`Boxed`], which this owns.
    Option<NonNull<Operations>>,
    PhantomData<Box<dyn Error>>,
);

/// Its address stands for a [`ChildExit`]. No box lies there.
static CHILD_EXIT: usize = 0;

fn child_exit() -> NonNull<Operations> {
    NonNull::from(&CHILD_EXIT).cast()
}

/// The error in place of a returned value that no live ancestor could receive (rule s7).
struct Undeliverable {
    value: Option<Box<dyn Any>>,
    why: Refusal,
}

impl fmt::Display for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a greenlet returned a value that its parent could not take: ")?;
        match &self.why {
            Refusal::Stack(error) => error.fmt(f),
            Refusal::Busy => f.write_str("it waits for another to finish"),
            _ => f.write_str("it is dead, and no other ancestor takes this type"),
        }
    }
}

impl fmt::Debug for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `debug_struct` would take a kilobyte on boards.
        write!(f, "Undeliverable {{ why: {:?}, .. }}", self.why)
    }
}

impl Error for Undeliverable {}

/// The notice that a child has exited.
#[derive(Debug)]
struct ChildExit;

impl fmt::Display for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a child greenlet was asked to exit and has")
    }
}

impl Error for ChildExit {}

impl Thrown {
    fn of(kind: Option<NonNull<Operations>>) -> Self {
        Self(kind, PhantomData)
    }

    pub(crate) fn exit() -> Self {
        Self::of(None)
    }

    /// Makes the error for a returned value that no live ancestor could receive. `value` is `None` if the
    /// value had to be dropped.
    pub(crate) fn undeliverable(value: Option<Box<dyn Any>>, why: Refusal) -> Self {
        Self::carrying(Undeliverable { value, why })
    }

    /// Replaces a `GreenletExit`, which asks the greenlet that it was sent to, by the notice that the next
    /// greenlet receives (rule s13).
    pub(crate) fn exit_becomes_notice(&mut self) {
        self.0.get_or_insert_with(child_exit);
    }

    #[inline]
    fn carrying<E: Error + 'static>(error: E) -> Self {
        Self::of(Some(Boxed::leak(const { &Boxed::<E>::VTABLE }, error)))
    }

    /// Makes a `Thrown` of an error in a box. A box that was made of a `Thrown` becomes what it was.
    ///
    /// For any error type that is not an [`Error`], [`or_throw`](crate::OrThrow::or_throw) is shorter.
    #[must_use]
    pub fn from_boxed(error: Box<dyn Error>) -> Self {
        if error.is::<GreenletExit>() {
            return Self::exit();
        }
        if error.is::<ChildExit>() {
            return Self::of(Some(child_exit()));
        }
        match error.downcast::<Undeliverable>() {
            Ok(undeliverable) => Self::carrying(*undeliverable),
            Err(error) => {
                let vtable = const { &Boxed::<Box<dyn Error>>::VTABLE_OF_BOX };
                Self::of(Some(Boxed::leak(vtable, error)))
            }
        }
    }

    /// As [`from_boxed`](Self::from_boxed), for an error that other threads may have.
    pub(super) fn from_send_box(error: SendBox) -> Self {
        let vtable = const { &Boxed::<SendBox>::VTABLE_OF_SEND_BOX };
        Self::of(Some(Boxed::leak(vtable, error)))
    }

    /// Converts into an error that other threads may have, and that `?` converts into `anyhow::Error` and
    /// the like.
    ///
    /// An error that was thrown as a `Box<dyn Error + Send + Sync>` is returned itself. Any other may not be
    /// `Send`: then the result has its texts and those of its sources.
    #[must_use]
    pub fn into_send(self) -> SendError {
        if let Some(boxed) = self.owned_with::<SendBox>() {
            mem::forget(self);
            // SAFETY: this owned the box (invariant) and is forgotten.
            return SendError(unsafe { Boxed::take(boxed) });
        }
        SendError(match self.owned() {
            Some(_) => Box::new(ErrorText::of(self.error())),
            None => self.unboxed(),
        })
    }

    /// Returns the error that it stands for. It owns no box.
    fn unboxed(&self) -> SendBox {
        if self.is_exit() {
            Box::new(GreenletExit)
        } else {
            Box::new(ChildExit)
        }
    }

    /// Returns the box that it owns, if any.
    #[inline]
    fn owned(&self) -> Option<NonNull<Operations>> {
        self.0.filter(|&boxed| boxed != child_exit())
    }

    /// Returns the box that it owns, if that holds an `E`.
    #[inline]
    fn owned_with<E: 'static>(&self) -> Option<NonNull<Boxed<E>>> {
        let boxed = self.owned()?;
        // SAFETY: a box that this owns (invariant).
        let type_id = unsafe { boxed.as_ref() }.type_id;
        // One function has one result, also where the compiler has merged two. Usually it is the
        // same one, and need not be called.
        (ptr::fn_addr_eq(type_id, TypeId::of::<E> as fn() -> _) || type_id() == TypeId::of::<E>())
            .then(|| boxed.cast())
    }

    /// Returns the error that it owns or stands for.
    fn error(&self) -> &(dyn Error + 'static) {
        match self.owned() {
            // SAFETY: a box that this owns (invariant), and for as long as this is borrowed.
            Some(boxed) => unsafe { (boxed.as_ref().as_error)(boxed).as_ref() },
            None if self.is_exit() => &GreenletExit,
            None => &ChildExit,
        }
    }

    /// Converts into a pointer, which owns what this owned.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut () {
        let boxed = ManuallyDrop::new(self).0;
        boxed.map_or(ptr::null_mut(), NonNull::as_ptr).cast()
    }

    /// Converts back from [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    /// `raw` comes from [`into_raw`](Self::into_raw) and is used once.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: *mut ()) -> Self {
        // The invariant held in `into_raw`, and `raw` is the only owner (contract).
        Self::of(NonNull::new(raw.cast()))
    }

    /// Returns `true` if this asks the receiver to exit. The body should then return, with this or any other
    /// result.
    #[must_use]
    pub fn is_exit(&self) -> bool {
        self.0.is_none()
    }

    /// Returns `true` if this is the notice that a child has exited because it was asked to. It does not ask
    /// the receiver to exit: a body that returns it returns an error (rule
    /// [s13](crate::guide::rules#s13)).
    #[must_use]
    pub fn is_child_exit(&self) -> bool {
        self.0 == Some(child_exit())
    }

    /// Returns a reference to the error, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error().downcast_ref()
    }

    /// Returns the error, if it is an `E`.
    ///
    /// # Errors
    /// Returns `self` if it is another error.
    #[inline]
    pub fn downcast<E: Error + 'static>(self) -> Result<E, Self> {
        if let Some(boxed) = self.owned_with::<E>() {
            mem::forget(self);
            // SAFETY: this owned the box (invariant) and is forgotten.
            return Ok(unsafe { Boxed::take(boxed) });
        }
        if self.downcast_ref::<E>().is_none() {
            return Err(self);
        }
        match Box::<dyn Error>::from(self).downcast() {
            Ok(error) => Ok(*error),
            Err(error) => Err(Self::from_boxed(error)),
        }
    }

    /// Returns the value of a finished greenlet that no live ancestor could receive (rule
    /// [s7](crate::guide::rules#s7)), if it is a `V`.
    ///
    /// # Errors
    /// Returns `self` if it holds no such value, or one of another type.
    pub fn into_value<V: 'static>(self) -> Result<V, Self> {
        if let Some(mut boxed) = self.owned_with::<Undeliverable>() {
            // SAFETY: a box that this owns (invariant).
            let value = unsafe { &mut boxed.as_mut().error.value };
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
    #[inline]
    fn from(error: E) -> Self {
        if (&error as &(dyn Error + 'static)).is::<GreenletExit>() {
            Self::exit()
        } else {
            Self::carrying(error)
        }
    }
}

/// Returns the error itself, with its sources. A value that no ancestor could receive stays in the error:
/// call [`into_value`](Thrown::into_value) first to get it out.
impl From<Thrown> for Box<dyn Error> {
    fn from(thrown: Thrown) -> Self {
        match thrown.owned() {
            Some(boxed) => {
                mem::forget(thrown);
                // SAFETY: this owned the box (invariant) and is forgotten.
                unsafe { (boxed.as_ref().into_error)(boxed) }
            }
            None => thrown.unboxed(),
        }
    }
}

/// As [`into_send`](Thrown::into_send).
impl From<Thrown> for Box<dyn Error + Send + Sync> {
    fn from(thrown: Thrown) -> Self {
        thrown.into_send().0
    }
}

impl Drop for Thrown {
    fn drop(&mut self) {
        if let Some(boxed) = self.owned() {
            // SAFETY: a box that this owns (invariant).
            unsafe { (boxed.as_ref().drop)(boxed) };
        }
    }
}

impl fmt::Display for Thrown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.error(), f)
    }
}

impl fmt::Debug for Thrown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.error(), f)
    }
}
