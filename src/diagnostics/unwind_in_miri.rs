//! The addresses of the frames of the current stack, under Miri. It has no unwinder that could be called,
//! but functions of its own, which see the frames of one thread.

use core::ptr;
use std::{vec, vec::Vec};

unsafe extern "Rust" {
    fn miri_backtrace_size(flags: u64) -> usize;
    fn miri_get_backtrace(flags: u64, frames: *mut *mut ());
}

/// Calls `look` with the address at which each frame resumes, from the innermost outwards.
pub(crate) fn for_each_frame<F: FnMut(usize)>(mut look: F) {
    // SAFETY: Miri's documentation: so many pointers are written.
    let frames: Vec<*mut ()> = unsafe {
        let mut frames = vec![ptr::null_mut(); miri_backtrace_size(0)];
        miri_get_backtrace(1, frames.as_mut_ptr());
        frames
    };
    frames.iter().for_each(|frame| look(frame.addr()));
}
