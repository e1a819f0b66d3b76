//! Pieces of workloads that are the same for all contenders written in Rust.

use std::{
    arch::asm,
    error::Error,
    fmt,
    future::Future,
    hint::black_box,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use crate::clock::Stopwatch;

/// A message that does not fit into registers.
pub type Message = [u64; 32];

/// How many are killed in a row: enough to hide the clock, few enough for any pool of stacks.
pub const BATCH: u64 = 64;

#[inline(always)]
pub fn time(ops: u64, mut op: impl FnMut()) -> Duration {
    let start = Stopwatch::start();
    for _ in 0..ops {
        op();
    }
    start.elapsed()
}

/// The same after a number of operations that are not measured, with which caches fill.
#[inline(always)]
pub fn time_warm(before: u64, ops: u64, mut op: impl FnMut()) -> Duration {
    let mut elapsed = Duration::ZERO;
    // One loop, so that `op` is used once and inlined.
    for ops in black_box([before, ops]) {
        elapsed = time(ops, &mut op);
    }
    elapsed
}

/// `ops` in batches of `most` at most.
pub fn batches(ops: u64, most: u64) -> impl Iterator<Item = u64> {
    (0..ops.div_ceil(most)).map(move |batch| most.min(ops - batch * most))
}

/// Calls `f` that many frames further down, at least one, none of which is inlined. Each use has
/// an `f` of its own, which is therefore inlined into the last of them.
#[inline(never)]
pub fn deep<T>(frames: usize, f: &mut impl FnMut() -> T) -> T {
    let result = if frames <= 1 {
        f()
    } else {
        deep(frames - 1, f)
    };
    // SAFETY: empty. It keeps the call above from becoming a jump.
    unsafe { asm!("", options(nomem, nostack, preserves_flags)) };
    result
}

/// Polls of a future that is never ready, after the first one.
#[inline(always)]
pub fn time_polls(ops: u64, mut future: impl Future + Unpin) -> Duration {
    let mut context = Context::from_waker(Waker::noop());
    let mut pending = 0;
    let elapsed = time_warm(1, ops, || {
        let poll = Pin::new(&mut future).poll(&mut context);
        pending += u64::from(poll.is_pending());
    });
    assert_eq!(pending, 1 + ops);
    elapsed
}

/// Calls `f` below that many frames that own something to be dropped.
#[inline(never)]
pub fn owning<T>(frames: usize, f: &mut impl FnMut() -> T) -> T {
    if frames == 0 {
        return f();
    }
    let _owned = Owned(frames);
    owning(frames - 1, f)
}

struct Owned(usize);

impl Drop for Owned {
    fn drop(&mut self) {
        black_box(self.0);
    }
}

/// What is thrown.
#[derive(Debug)]
pub struct SmallError(pub u64);

impl fmt::Display for SmallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}", self.0)
    }
}

impl Error for SmallError {}

/// What is sent where nothing can be thrown. `Send`, as one of them wants it.
pub type Sent = Result<u64, Box<dyn Error + Send>>;

/// Catches what was sent, and makes the answer of it.
#[inline(always)]
pub fn caught(sent: Sent) -> u64 {
    match sent {
        Ok(x) => x,
        Err(error) => error.downcast::<SmallError>().expect("nothing else").0 + 1,
    }
}
