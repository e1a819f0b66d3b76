//! Stacks and memory: tests that overflow a stack, exhaust memory or count it, most of them in a forked
//! child.

mod bad_input;
mod guard;
mod limits;
mod machine;
#[cfg(unix)]
mod order;
mod overflow;
mod pool;
mod process;
mod soak;
mod support;
mod windows;
