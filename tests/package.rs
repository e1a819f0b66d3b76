//! What is in the package and in the object code that is built of it, and that what describes it
//! agrees with it.

mod audit;
mod cargo;
mod directory;
mod guide;
mod layers;
mod link;
mod mach_o;
mod machine;
mod process;
