//! The switch core as a processor, an unwinder, a signal handler and a debugger see it.

mod gdb;
mod machine;
mod order;
mod registers;
mod signals;
mod unwind;
