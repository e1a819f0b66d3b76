//! The contenders: a module each, the same functions in the same order.

mod bare;
mod boost;
mod boxed_async;
mod corosensei;
mod generator;
mod greenlet;
mod remote;
mod wasmtime;

use std::{fs, path::Path};

use crate::contender::{Contender, Skip};

pub use greenlet::Greenlets;
pub use remote::serve;

/// The one that everybody's ratio refers to, and the one that stands in where it has no figure.
pub const REFERENCES: [&str; 2] = [corosensei::NAME, corosensei::NAME_ON_SLAB];

const PYTHON: &[&str] = &[concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/contenders/python.py"
)];

/// All of them, in the order of the table's columns. `python` is the interpreter to use, and
/// `fp_control` this program, built with that feature, if there is one.
pub fn all(python: &Path, fp_control: Option<&Path>) -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = vec![Box::new(Greenlets)];
    if let Some(program) = fp_control {
        let name = greenlet::NAME_WITH_FP_CONTROL;
        all.push(Box::new(remote::Remote::new(name, program, &["--serve"])));
    }
    all.extend([
        Box::new(corosensei::Corosensei::<corosensei::Mapped>::new()) as Box<dyn Contender>,
        Box::new(corosensei::Corosensei::<corosensei::OnSlab>::new()),
        Box::new(generator::Generators),
        Box::new(wasmtime::Fibers),
        Box::new(boxed_async::BoxedAsync),
        Box::new(boost::JUMP),
        Box::new(boost::FIBER),
        #[cfg(target_arch = "x86_64")]
        Box::new(bare::Bare),
        Box::new(remote::Remote::new("Python greenlet", python, PYTHON)),
    ]);
    all
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
