//! The contents of the package and of its object code, and that documentation agrees with them.

#![cfg(unix)] // not on Windows: they look at ELF objects, and read the repository

mod audit;
mod cargo;
mod directory;
mod guide;
mod layers;
mod link;
mod mach_o;
mod machine;
mod process;
