//! The examples, as their users see them.

mod callback;
mod cargo;
mod directory;
mod example;
mod generators;
mod hub;
mod machine;
mod process;
mod tasklets;
mod walk;
