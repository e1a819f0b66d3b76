//! The examples, as their users see them.

#![cfg(unix)] // not on Windows: they start Cargo and look at permissions, links and signals

mod callback;
mod cargo;
mod directory;
mod example;
mod generators;
mod hub;
mod machine;
mod process;
#[cfg(target_os = "linux")]
mod stdio;
mod tasklets;
mod walk;
