//! `Thrown`: an error, a panic or an exit that one greenlet sends to another.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
};
use core::{
    any::{Any, TypeId},
    error::Error,
    fmt,
    marker::PhantomData,
    mem::{self, ManuallyDrop},
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

/// What a greenlet receives in place of a message: an error that somebody threw, that a child
/// ended with, or that a refused switch came to.
///
/// One pointer wide. Any [`Error`] converts into it, so `?` works in a body; a
/// [`GreenletExit`], and the notice of a child's, needs no memory. For that it is not an [`Error`]
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
    /// `None` is the exit, the address of [`CHILD_EXIT`] the notice of a child's. Invariant: another
    /// address is that of a [`Boxed`] in a box, which this owns.
    Option<NonNull<Table>>,
    PhantomData<Box<dyn Error>>,
);

/// An error in its box, behind what says which it is: so one pointer leads to both.
#[repr(C)]
struct Boxed<E> {
    table: Table,
    error: E,
}

/// Begins a [`Boxed`] of one type of error.
type Table = &'static Operations;

/// What can be done with a [`Boxed`] by those who do not know its type. The functions are for the
/// address of one of that type.
struct Operations {
    type_id: fn() -> TypeId,
    as_error: unsafe fn(NonNull<Table>) -> NonNull<dyn Error>,
    /// Takes the error out and frees the box.
    into_error: unsafe fn(NonNull<Table>) -> Box<dyn Error>,
    /// The same, if it is known that the error may go to other threads; else tells what it says.
    into_send: unsafe fn(NonNull<Table>) -> SendBox,
    drop: unsafe fn(NonNull<Table>),
}

impl<E: Error + 'static> Boxed<E> {
    const OPERATIONS: Operations = Operations {
        type_id: TypeId::of::<E>,
        as_error: |boxed| {
            // SAFETY: the address of a `Boxed<E>` (contract), and so of its field.
            let error = unsafe { &raw mut (*boxed.cast::<Self>().as_ptr()).error };
            // SAFETY: in a box, so not null.
            unsafe { NonNull::new_unchecked(error as *mut dyn Error) }
        },
        // SAFETY: the address of a `Boxed<E>` (contract), which the caller owns.
        into_error: |boxed| Box::new(unsafe { Self::take(boxed.cast()) }),
        // SAFETY: as above.
        into_send: |boxed| Box::new(Told::of(&unsafe { Self::take(boxed.cast()) })),
        drop: Self::drop,
    };
}

type SendBox = Box<dyn Error + Send + Sync>;

/// One that came boxed already.
impl Boxed<Box<dyn Error>> {
    const OF_BOX: Operations = Operations {
        type_id: TypeId::of::<Box<dyn Error>>,
        as_error: |boxed| {
            // SAFETY: the address of a `Boxed` of this type (contract).
            NonNull::from(unsafe { &*boxed.cast::<Self>().as_ref().error })
        },
        // SAFETY: the address of a `Boxed` of this type (contract), which the caller owns.
        into_error: |boxed| unsafe { Self::take(boxed.cast()) },
        // SAFETY: as above.
        into_send: |boxed| Box::new(Told::of(&*unsafe { Self::take(boxed.cast()) })),
        drop: Self::drop,
    };
}

/// The same, of one that may go to other threads.
impl Boxed<SendBox> {
    const OF_SEND_BOX: Operations = Operations {
        type_id: TypeId::of::<SendBox>,
        as_error: |boxed| {
            // SAFETY: the address of a `Boxed` of this type (contract).
            let error: &(dyn Error + 'static) = unsafe { &*boxed.cast::<Self>().as_ref().error };
            NonNull::from(error)
        },
        // SAFETY: the address of a `Boxed` of this type (contract), which the caller owns.
        into_error: |boxed| unsafe { Self::take(boxed.cast()) },
        // SAFETY: as above.
        into_send: |boxed| unsafe { Self::take(boxed.cast()) },
        drop: Self::drop,
    };
}

impl<E> Boxed<E> {
    /// # Safety
    /// The box is the caller's, who does not use it any more.
    unsafe fn take(boxed: NonNull<Self>) -> E {
        // SAFETY: the caller's word.
        let boxed = unsafe { Box::from_raw(boxed.as_ptr()) };
        boxed.error
    }

    /// # Safety
    /// The address of a `Boxed<E>`, which is the caller's, who does not use it any more.
    unsafe fn drop(boxed: NonNull<Table>) {
        // SAFETY: the caller's word.
        drop(unsafe { Box::from_raw(boxed.cast::<Self>().as_ptr()) });
    }
}

/// Its address stands for the notice that a child has exited: no box lies there.
static CHILD_EXIT: usize = 0;

fn child_exit() -> NonNull<Table> {
    NonNull::from(&CHILD_EXIT).cast()
}

/// A value that no live ancestor of the dead greenlet took.
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
        f.debug_struct("Undeliverable")
            .field("why", &self.why)
            .finish_non_exhaustive()
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
    fn of(kind: Option<NonNull<Table>>) -> Self {
        Self(kind, PhantomData)
    }

    pub(crate) fn exit() -> Self {
        Self::of(None)
    }

    /// A value that no live ancestor took; it is gone if it could not be kept.
    pub(crate) fn undeliverable(value: Option<Box<dyn Any>>, why: Refusal) -> Self {
        Self::carrying(Undeliverable { value, why })
    }

    /// An exit that leaves the greenlet it was meant for becomes a notice, not a request, to the next.
    pub(crate) fn exit_becomes_notice(&mut self) {
        self.0.get_or_insert_with(child_exit);
    }

    #[inline]
    fn carrying<E: Error + 'static>(error: E) -> Self {
        Self::boxed(const { &Boxed::<E>::OPERATIONS }, error)
    }

    #[inline]
    fn boxed<E>(table: Table, error: E) -> Self {
        let boxed = Box::leak(Box::new(Boxed { table, error }));
        Self::of(Some(NonNull::from(boxed).cast()))
    }

    /// Of an error in a box. One that was a [`Thrown`] is what it was.
    ///
    /// For all that is no [`Error`] itself, [`or_throw`](OrThrow::or_throw) is shorter.
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
            Err(error) => Self::boxed(const { &Boxed::<Box<dyn Error>>::OF_BOX }, error),
        }
    }

    /// The error inside, as one that other threads may have: with `?` it converts into
    /// `anyhow::Error` and the like.
    ///
    /// It is the error itself if it was thrown as a `Box<dyn Error + Send + Sync>`. Of any other it is not
    /// known whether it may leave the thread; then this is an error that says the same, and so do its
    /// sources.
    #[must_use]
    pub fn into_send(self) -> SendError {
        SendError(match self.owned() {
            Some(boxed) => {
                mem::forget(self);
                // SAFETY: it was this one's (invariant), which is gone.
                unsafe { (boxed.as_ref().into_send)(boxed) }
            }
            None => self.unboxed(),
        })
    }

    /// The error that it stands for, if it owns no box.
    fn unboxed(&self) -> SendBox {
        if self.is_exit() {
            Box::new(GreenletExit)
        } else {
            Box::new(ChildExit)
        }
    }

    /// The box that it owns, if any.
    #[inline]
    fn owned(&self) -> Option<NonNull<Table>> {
        self.0.filter(|&boxed| boxed != child_exit())
    }

    /// The box that it owns, if there is an `E` in it.
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

    /// What it says, whatever it is.
    fn error(&self) -> &(dyn Error + 'static) {
        match self.owned() {
            // SAFETY: a box that this owns (invariant), and for as long as this is borrowed.
            Some(boxed) => unsafe { (boxed.as_ref().as_error)(boxed).as_ref() },
            None if self.is_exit() => &GreenletExit,
            None => &ChildExit,
        }
    }

    /// As one pointer, which owns what this has owned.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut () {
        let boxed = ManuallyDrop::new(self).0;
        boxed.map_or(ptr::null_mut(), NonNull::as_ptr).cast()
    }

    /// # Safety
    /// `raw` comes from [`into_raw`](Self::into_raw) and is used once.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: *mut ()) -> Self {
        // The invariant held there, and nobody else owns what it owned (contract).
        Self::of(NonNull::new(raw.cast()))
    }

    /// Returns `true` if the receiver is asked to exit. Its body should then return, with this or
    /// anything else.
    #[must_use]
    pub fn is_exit(&self) -> bool {
        self.0.is_none()
    }

    /// Returns `true` if a child has exited because it was asked to. This is a notice about the
    /// child; returned from a body it goes on to the parent like any error (rule
    /// [s13](crate::guide::rules#s13)).
    #[must_use]
    pub fn is_child_exit(&self) -> bool {
        self.0 == Some(child_exit())
    }

    /// The error inside, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error().downcast_ref()
    }

    /// Takes the error out, if it is an `E`.
    ///
    /// # Errors
    /// Gives `self` back if it is something else.
    #[inline]
    pub fn downcast<E: Error + 'static>(self) -> Result<E, Self> {
        if let Some(boxed) = self.owned_with::<E>() {
            mem::forget(self);
            // SAFETY: it was this one's (invariant), which is gone.
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

    /// Takes out the value that a dead greenlet left and no live ancestor took (rule
    /// [s7](crate::guide::rules#s7)), if it is a `V`.
    ///
    /// # Errors
    /// Gives `self` back if it is something else.
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

/// The error inside, as it is, with its sources; what is none becomes one that says the same. That
/// keeps a value which no ancestor took until it is dropped: who wants it asks
/// [`into_value`](Thrown::into_value) first.
impl From<Thrown> for Box<dyn Error> {
    fn from(thrown: Thrown) -> Self {
        match thrown.owned() {
            Some(boxed) => {
                mem::forget(thrown);
                // SAFETY: it was this one's (invariant), which is gone.
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

/// A [`Thrown`] as an error that other threads may have: see [`Thrown::into_send`].
///
/// ```
/// use greenlet::{Greenlet, enter};
///
/// let worker = std::thread::spawn(|| {
///     enter(|me| {
///         let parser = Greenlet::new(me, |_, text: &str| Ok(text.parse::<u8>()?));
///         me.switch(&parser, "x").map_err(|thrown| thrown.into_send())
///     })
/// });
/// let error = worker.join().unwrap().unwrap_err();
/// assert_eq!(error.to_string(), "invalid digit found in string");
/// ```
pub struct SendError(SendBox);

impl SendError {
    /// The error in its box.
    #[must_use]
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// What an error said, and its sources.
struct Told {
    text: String,
    debug: String,
    source: Option<Box<Told>>,
}

impl Told {
    fn of(error: &dyn Error) -> Self {
        Self {
            text: error.to_string(),
            debug: format!("{error:?}"),
            source: error.source().map(|source| Box::new(Self::of(source))),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.debug)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &dyn Error)
    }
}

/// [`or_throw`](Self::or_throw), for results whose errors are no [`Error`]s: boxed ones, those of
/// `anyhow`, texts.
///
/// ```
/// use std::error::Error;
/// use greenlet::{Greenlet, OrThrow, enter};
///
/// fn parsed(text: &str) -> Result<u32, Box<dyn Error + Send + Sync>> {
///     text.parse().map_err(|error| format!("{text:?}: {error}").into())
/// }
///
/// fn sum(texts: &[&'static str]) -> Result<u32, Box<dyn Error + Send + Sync>> {
///     enter(|me| {
///         let adder = Greenlet::new(me, |me, mut text: &str| {
///             let mut sum = 0;
///             loop {
///                 sum += parsed(text).or_throw()?; // in
///                 text = me.switch_to_parent(sum)?;
///             }
///         });
///         let mut sum = 0;
///         for text in texts {
///             sum = me.switch(&adder, text)?; // out
///         }
///         Ok(sum)
///     })
/// }
/// assert_eq!(sum(&["1", "2"]).unwrap(), 3);
/// assert_eq!(sum(&["x"]).unwrap_err().to_string(), "\"x\": invalid digit found in string");
/// ```
///
/// `By` says how the error is boxed; it is inferred.
pub trait OrThrow<T, By> {
    /// The value; or the error as a [`Thrown`], which `?` hands on.
    ///
    /// # Errors
    /// That of the result.
    fn or_throw(self) -> Result<T, Thrown>;
}

/// The error of an [`OrThrow`] converts into a box.
#[derive(Debug)]
pub enum ByBox {}

/// The error of an [`OrThrow`] is a box, for any thread.
#[derive(Debug)]
pub enum BySendBox {}

impl<T, E: Into<Box<dyn Error>>> OrThrow<T, ByBox> for Result<T, E> {
    fn or_throw(self) -> Result<T, Thrown> {
        self.map_err(|error| Thrown::from_boxed(error.into()))
    }
}

impl<T> OrThrow<T, BySendBox> for Result<T, Box<dyn Error + Send + Sync>> {
    fn or_throw(self) -> Result<T, Thrown> {
        self.map_err(|error| Thrown::boxed(const { &Boxed::<SendBox>::OF_SEND_BOX }, error))
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
