//! The contenders: a module each, the same functions in the same order.

mod bare;
mod boost;
mod corosensei;
mod generator;
mod greenlet;
mod python;
mod wasmtime;

use std::{fs, path::Path};

use crate::contender::{Contender, Skip};

/// The one that everybody's ratio refers to, and the one that stands in where it has no figure.
pub const REFERENCES: [&str; 2] = [corosensei::NAME, corosensei::NAME_ON_SLAB];

/// All of them, in the order of the table's columns. `python` is the interpreter to use.
pub fn all(python: &Path) -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(greenlet::Greenlets),
        Box::new(corosensei::Corosensei::<corosensei::Mapped>::new()),
        Box::new(corosensei::Corosensei::<corosensei::OnSlab>::new()),
        Box::new(generator::Generators),
        Box::new(wasmtime::Fibers),
        Box::new(boost::JUMP),
        Box::new(boost::FIBER),
        #[cfg(target_arch = "x86_64")]
        Box::new(bare::Bare),
        Box::new(python::Python::new(python)),
    ]
}

/// Refuses before the system does if every stack takes two mappings: a process that cannot map
/// memory any more may not be able to report that.
fn check_mappings(stacks: usize) -> Result<(), Skip> {
    const LIMIT: &str = "/proc/sys/vm/max_map_count";
    let limit = fs::read_to_string(LIMIT)?
        .trim()
        .parse::<usize>()
        .map_err(Skip::because)?;
    // The rest is for the program itself.
    if stacks * 2 + 1000 > limit {
        return Err(Skip::because(format_args!(
            "{stacks} stacks of two mappings each, but vm.max_map_count is {limit}"
        )));
    }
    Ok(())
}
