//! A tracer that runs scripts (feature `trace`).

use std::cell::Cell;

use greenlet::trace::{self, Tracer};

use crate::{
    payloads::{Payload, bang_if_allowed, call_back},
    program::Trace,
};

/// Sets or removes the tracer and returns the one before.
pub fn set(trace: Option<Trace>) -> Option<Tracer> {
    trace::set(trace.map(tracer))
}

fn tracer(trace: Trace) -> Tracer {
    let owned = Payload::new("what a tracer owns", trace.dropped);
    let calls = Cell::new(trace.calls);
    Tracer::new(move |event| {
        let _ = format!("{event:?}");
        let Some(left) = calls.get().checked_sub(1) else {
            return;
        };
        calls.set(left);
        if trace.removes {
            drop(trace::set(None));
        }
        call_back("a tracer", trace.script);
        if trace.panics {
            bang_if_allowed();
        }
        owned.check();
    })
}
