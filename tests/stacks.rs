//! Stacks, and what a process has too little of: tests that overflow, are refused memory or count
//! it, most of them in a forked child.

mod bad_input;
mod guard;
mod limits;
mod machine;
mod order;
mod overflow;
mod pool;
mod process;
mod soak;
mod support;
