//! Rust's own `async`, without a stack: what a future on a stack is compared with.

use std::{
    future::{self, Future},
    pin::Pin,
};

use crate::{
    contender::{Contender, Outcome},
    work,
};

pub struct BoxedAsync;

impl Contender for BoxedAsync {
    fn name(&self) -> &'static str {
        "boxed async"
    }

    /// Each poll goes through all of the frames: a call that is not inlined each.
    fn poll(&self, frames: usize, ops: u64) -> Outcome {
        Ok(work::time_polls(ops, deep(frames, future::pending())))
    }
}

/// `future` that many frames further down, at least one. A function whose depth is not known when it is
/// compiled boxes each of them.
fn deep(frames: usize, future: future::Pending<()>) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        if frames <= 1 {
            future.await;
        } else {
            deep(frames - 1, future).await;
        }
    })
}
