//! As `error.rs`, without `std`: all stacks are there before their greenlets.

use core::fmt;

/// Why there is no stack. Without `std` the program brings every stack, so there is no such error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StackError {}

impl fmt::Display for StackError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl core::error::Error for StackError {}
