//! A contender in a process of its own that waits for work and inherits the core that this program
//! is pinned to: Python's greenlet, which runs `python.py`, and this program as it is built with
//! other features.
//!
//! Each line that the process reads is a workload and its arguments, each line that it prints what
//! came of it, as [`Answer`] has it. If it is started with arguments, they are the one line.

use std::{
    cell::RefCell,
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{
    contender::{Contender, Outcome, Skip},
    mxcsr::Status,
    population::{self, Answer, Watch},
    workload,
};

pub struct Remote {
    name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
    process: RefCell<Option<Process>>,
}

struct Process {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Remote {
    pub fn new(
        name: &'static str,
        program: impl Into<PathBuf>,
        arguments: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            program: program.into(),
            arguments,
            process: RefCell::new(None),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments);
        command
    }

    fn ask(&self, request: String) -> Outcome {
        let mut process = self.process.borrow_mut();
        let process = match &mut *process {
            Some(process) => process,
            none => none.insert(Process::start(self.command())?),
        };
        writeln!(process.requests, "{request}")?;
        let mut answer = String::new();
        process.answers.read_line(&mut answer)?;
        Answer::read(&answer)?.outcome()
    }
}

impl Process {
    fn start(mut command: Command) -> Result<Self, Skip> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Skip::because(format_args!("{command:?}: {error}")))?;
        Ok(Self {
            requests: child.stdin.take().expect("it is piped"),
            answers: BufReader::new(child.stdout.take().expect("it is piped")),
            child,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It only waits for requests, or has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Contender for Remote {
    fn name(&self) -> &'static str {
        self.name
    }

    fn flat(&self, ops: u64, status: Status) -> Outcome {
        self.ask(match status {
            Status::Clear => format!("flat {ops}"),
            Status::Inexact => format!("flat_inexact {ops}"),
        })
    }

    fn message(&self, ops: u64) -> Outcome {
        self.ask(format!("message {ops}"))
    }

    fn deep(&self, frames: usize, ops: u64) -> Outcome {
        self.ask(format!("deep {frames} {ops}"))
    }

    fn deep_on_both(&self, frames: usize, ops: u64) -> Outcome {
        self.ask(format!("deep_on_both {frames} {ops}"))
    }

    fn ring(&self, size: usize, ops: u64) -> Outcome {
        self.ask(format!("ring {size} {ops}"))
    }

    /// It makes the order itself.
    fn round_robin(&self, order: &[usize], frames: usize, passes: u64) -> Outcome {
        self.ask(format!("round_robin {} {frames} {passes}", order.len()))
    }

    fn pooled(&self, ops: u64) -> Outcome {
        self.ask(format!("pooled {ops}"))
    }

    fn fresh(&self, ops: u64) -> Outcome {
        self.ask(format!("fresh {ops}"))
    }

    fn kill(&self, frames: usize, ops: u64) -> Outcome {
        self.ask(format!("kill {frames} {ops}"))
    }

    fn throw(&self, ops: u64) -> Outcome {
        self.ask(format!("throw {ops}"))
    }

    fn panic(&self, ops: u64) -> Outcome {
        self.ask(format!("panic {ops}"))
    }

    fn enter(&self, ops: u64) -> Outcome {
        self.ask(format!("enter {ops}"))
    }

    fn item(&self, ops: u64) -> Outcome {
        self.ask(format!("item {ops}"))
    }

    fn poll(&self, frames: usize, ops: u64) -> Outcome {
        self.ask(format!("poll {frames} {ops}"))
    }

    fn populate(&self, _count: usize, _watch: &Watch) -> Skip {
        unreachable!("a process of its own does that")
    }

    fn population_command(&self, count: usize) -> Option<Command> {
        let mut command = self.command();
        command.args(["populate", &count.to_string()]);
        Some(command)
    }
}

/// The other side: answers requests with what `contender` comes to, the one in `words` if there are
/// any, else those that it reads.
pub fn serve(contender: &dyn Contender, words: &[String]) -> io::Result<()> {
    if let [name, count] = words
        && name == "populate"
    {
        let count = count.parse().map_err(io::Error::other)?;
        population::measure(contender, count);
    }
    for request in io::stdin().lines() {
        Answer::from(answer(contender, &request?)).print();
    }
    Ok(())
}

/// To one request, which is as [`Remote`] writes them.
fn answer(contender: &dyn Contender, request: &str) -> Outcome {
    let mut words = request.split_whitespace();
    let name = words.next().unwrap_or_default();
    let numbers = words
        .map(str::parse)
        .collect::<Result<Vec<u64>, _>>()
        .map_err(Skip::because)?;
    match (name, &numbers[..]) {
        ("flat", &[ops]) => contender.flat(ops, Status::Clear),
        ("flat_inexact", &[ops]) => contender.flat(ops, Status::Inexact),
        ("message", &[ops]) => contender.message(ops),
        ("deep", &[frames, ops]) => contender.deep(frames as usize, ops),
        ("deep_on_both", &[frames, ops]) => contender.deep_on_both(frames as usize, ops),
        ("ring", &[size, ops]) => contender.ring(size as usize, ops),
        ("round_robin", &[count, frames, passes]) => {
            let order = workload::order(count as usize);
            contender.round_robin(&order, frames as usize, passes)
        }
        ("pooled", &[ops]) => contender.pooled(ops),
        ("fresh", &[ops]) => contender.fresh(ops),
        ("kill", &[frames, ops]) => contender.kill(frames as usize, ops),
        ("throw", &[ops]) => contender.throw(ops),
        ("panic", &[ops]) => contender.panic(ops),
        ("enter", &[ops]) => contender.enter(ops),
        ("item", &[ops]) => contender.item(ops),
        ("poll", &[frames, ops]) => contender.poll(frames as usize, ops),
        _ => Err(Skip::because(format_args!("no workload is {request:?}"))),
    }
}
