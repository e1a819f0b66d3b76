//! Measures this crate beside its peers, all in one process on one core, everybody in random
//! order in every repetition.
//!
//! The figures are medians of processor time. A ratio is taken within each repetition, where both
//! sides have met the same weather, before the median is.

mod clock;
mod contender;
mod contenders;
mod measure;
mod mxcsr;
mod population;
mod report;
mod slab;
mod work;
mod workload;

use std::{error::Error, io, mem, path::PathBuf, process::ExitCode, time::Duration};

use lexopt::{Arg, Parser, ValueExt};

use crate::{
    measure::{Effort, Row},
    report::Table,
};

const USAGE: &str = "\
usage: greenlet-peers [--quick] [--only WORDS] [--json FILE] [--python INTERPRETER]
                      [--fp-control PROGRAM]

  --quick      a smoke run of some seconds
  --only       the workloads whose names contain these words
  --json       writes the figures into that file, too
  --python     one that has Python's greenlet (default: python3)
  --fp-control this program, built with that feature, to be measured beside";

struct Arguments {
    quick: bool,
    only: String,
    json: Option<PathBuf>,
    python: PathBuf,
    fp_control: Option<PathBuf>,
    /// For this program itself: contender and number of a population.
    populate: Option<(String, usize)>,
    /// For this program where it is a contender of another: the words of the request, if it is given
    /// with the command.
    serve: Option<Vec<String>>,
}

impl Arguments {
    /// Nothing if it is help that is asked for.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut arguments = Self {
            quick: false,
            only: String::new(),
            json: None,
            python: "python3".into(),
            fp_control: None,
            populate: None,
            serve: None,
        };
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("quick") => arguments.quick = true,
                Arg::Long("only") => arguments.only = parser.value()?.string()?,
                Arg::Long("json") => arguments.json = Some(parser.value()?.into()),
                Arg::Long("python") => arguments.python = parser.value()?.into(),
                Arg::Long("fp-control") => arguments.fp_control = Some(parser.value()?.into()),
                Arg::Long("serve") => arguments.serve = Some(Vec::new()),
                Arg::Value(word) if arguments.serve.is_some() => {
                    let words = arguments.serve.get_or_insert_default();
                    words.push(word.string()?);
                }
                Arg::Long("populate") => {
                    let name = parser.value()?.string()?;
                    arguments.populate = Some((name, parser.value()?.parse()?));
                }
                Arg::Long("help") => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(arguments))
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse() {
        Ok(Some(arguments)) => run(&arguments),
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => Err(format!("{error}\n{USAGE}").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("greenlet-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if let Some(words) = &arguments.serve {
        return Ok(contenders::serve(&contenders::Greenlets, words)?);
    }
    let contenders = contenders::all(&arguments.python, arguments.fp_control.as_deref());
    if let Some((name, count)) = &arguments.populate {
        let mut contenders = contenders.iter().map(AsRef::as_ref);
        let contender = contenders
            .find(|contender| contender.name() == name)
            .ok_or("no such contender")?;
        population::measure(contender, *count);
    }
    pin()?;

    let effort = Effort(Duration::from_micros(if arguments.quick {
        200
    } else {
        1000
    }));
    let asked_for = |name: &String| name.contains(&arguments.only);
    let table = Table::begin(&contenders);
    let mut rows = Vec::new();
    let mut add = |row: Row| {
        table.add(&row);
        rows.push(row);
    };
    for workload in workload::all(arguments.quick) {
        if asked_for(&workload.name) {
            add(effort.measure(&workload, &contenders));
        }
    }
    for crowd in workload::crowds(arguments.quick) {
        if asked_for(&crowd.name) {
            add(measure::crowd(&crowd, &contenders));
        }
    }
    if rows.is_empty() {
        return Err(format!("no workload has \"{}\" in its name", arguments.only).into());
    }
    if let Some(path) = &arguments.json {
        report::write_json(path, &rows)?;
    }
    Ok(())
}

/// Stays on one core, the last that this process may use; so do the processes that it starts.
fn pin() -> io::Result<()> {
    let check = |result| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: plain sets of bits, zero is an empty one; the sizes are theirs.
    unsafe {
        let mut allowed = mem::zeroed::<libc::cpu_set_t>();
        check(libc::sched_getaffinity(
            0,
            size_of_val(&allowed),
            &mut allowed,
        ))?;
        let last = (0..libc::CPU_SETSIZE as usize)
            .rev()
            .find(|&core| libc::CPU_ISSET(core, &allowed))
            .expect("a running process has a core");
        let mut one = mem::zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(last, &mut one);
        check(libc::sched_setaffinity(0, size_of_val(&one), &one))
    }
}
