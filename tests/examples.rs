//! The examples: what they print and answer, as their documentation says.

#![cfg(unix)] // not on Windows: they start Cargo and look at permissions, links and signals

mod cargo;
mod directory;
mod example;
mod machine;
mod process;

#[path = "examples/callback.rs"]
mod callback;
#[path = "examples/generators.rs"]
mod generators;
#[path = "examples/hub.rs"]
mod hub;
#[cfg(target_os = "linux")]
#[path = "examples/stdio.rs"]
mod stdio;
#[path = "examples/tasklets.rs"]
mod tasklets;
#[path = "examples/walk.rs"]
mod walk;
