//! `OrThrow`: `?` for errors that do not implement `Error`.

use alloc::boxed::Box;
use core::error::Error;

use crate::Thrown;

/// Adds [`or_throw`](Self::or_throw) to results whose error type is not an [`Error`]: boxed errors,
/// `anyhow::Error`, strings.
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
    /// Returns the value, or converts the error into a [`Thrown`] for `?`.
    ///
    /// # Errors
    /// The error of the result.
    fn or_throw(self) -> Result<T, Thrown>;
}

/// Marks the [`OrThrow`] of errors that convert into a `Box<dyn Error>`.
#[derive(Debug)]
pub enum ByBox {}

/// Marks the [`OrThrow`] of `Box<dyn Error + Send + Sync>`.
#[derive(Debug)]
pub enum BySendBox {}

impl<T, E: Into<Box<dyn Error>>> OrThrow<T, ByBox> for Result<T, E> {
    fn or_throw(self) -> Result<T, Thrown> {
        self.map_err(|error| Thrown::from_boxed(error.into()))
    }
}

impl<T> OrThrow<T, BySendBox> for Result<T, Box<dyn Error + Send + Sync>> {
    fn or_throw(self) -> Result<T, Thrown> {
        self.map_err(Thrown::from_send_box)
    }
}
