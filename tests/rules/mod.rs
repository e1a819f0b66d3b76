//! The rules of a greenlet, s1 to s23 and s28, each by tests that name it: one for each of its
//! clauses. s27, what does not compile, is in `tests/compile_fail.md`.

mod drops;
mod enter;
mod errors;
mod exiting;
#[cfg(unix)] // not on Windows: it loads a library that a C++ compiler has made
mod foreign;
mod kill;
mod life;
mod locals;
mod own_stack;
mod parents;
mod roots;
mod thread_exit;
#[cfg(feature = "trace")]
mod trace;
mod unwinding;
mod values;
mod weak;
