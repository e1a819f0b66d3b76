//! Thrown errors as errors that other threads may have.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
};
use core::{error::Error, fmt};

/// An error of any type that other threads may have.
pub(super) type SendBox = Box<dyn Error + Send + Sync>;

/// A [`Thrown`](crate::Thrown) as an error that other threads may have: see
/// [`Thrown::into_send`](crate::Thrown::into_send).
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
pub struct SendError(pub(super) SendBox);

impl SendError {
    /// Returns the error in its box.
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

/// The text of an error and of its sources, in place of an error that must not leave its thread.
pub(super) struct ErrorText {
    text: String,
    debug: String,
    source: Option<Box<ErrorText>>,
}

impl ErrorText {
    pub(super) fn of(error: &dyn Error) -> Self {
        Self {
            text: error.to_string(),
            debug: format!("{error:?}"),
            source: error.source().map(|source| Box::new(Self::of(source))),
        }
    }
}

impl fmt::Display for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.debug)
    }
}

impl Error for ErrorText {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &dyn Error)
    }
}
