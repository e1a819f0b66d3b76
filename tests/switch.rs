//! The switch core: registers, unwinding, signal handlers, debuggers.

mod gdb;
mod machine;
mod order;
mod registers;
mod signals;
mod unwind;
