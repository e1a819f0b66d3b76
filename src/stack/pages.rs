//! Sizes in whole pages.

use super::{
    StackError,
    mapping::{LEAST_GUARD, page_size},
};

/// `bytes` rounded up to whole pages.
pub(super) fn round_up_to_page(bytes: usize) -> Result<usize, StackError> {
    bytes
        .checked_next_multiple_of(page_size())
        .ok_or(StackError::TooLarge { bytes })
}

/// The bytes of a guard of which at least so many are asked for; none if none are.
pub(super) fn whole_guard(asked: usize) -> Result<usize, StackError> {
    Ok(match round_up_to_page(asked)? {
        0 => 0,
        bytes => bytes.max(LEAST_GUARD),
    })
}
