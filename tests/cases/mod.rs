//! The 69 test cases of Python's greenlet that carry over: a module for each of its files, a test for each
//! case, under its name. `tests/README.md` lists them.

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
