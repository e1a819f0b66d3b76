//! What greenlet's own test cases pin, for the 69 of them that carry over: a module for each of
//! its files, a test for each case and by its name. `tests/README.md` has the whole list.

mod cpp;
mod extension_interface;
mod gc;
mod generator;
mod generator_nested;
mod greenlet;
mod interpreter_shutdown;
mod leaks;
#[cfg(feature = "trace")]
mod reentrant_switch;
mod stack_saved;
mod throw;
#[cfg(feature = "trace")]
mod tracing;
mod weakref;
