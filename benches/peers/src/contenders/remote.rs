//! Python's greenlet, in a process of its own that waits for work. It runs `python.py`, whose
//! functions are these, and inherits the core that this program is pinned to.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{
    contender::{Contender, Outcome, Skip},
    mxcsr::Status,
    population::{Answer, Watch},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/contenders/python.py");

pub struct Python {
    interpreter: PathBuf,
    process: RefCell<Option<Process>>,
}

struct Process {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    pub fn new(interpreter: &Path) -> Self {
        Self {
            interpreter: interpreter.into(),
            process: RefCell::new(None),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(SCRIPT);
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
        Ok(Answer::read(&answer)?.elapsed())
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
        // It only waits for requests, or is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Contender for Python {
    fn name(&self) -> &'static str {
        "Python greenlet"
    }

    /// Nothing in the interpreter's own loop would set a flag, and none is set here.
    fn flat(&self, ops: u64, status: Status) -> Outcome {
        if status != Status::Clear {
            return Err(Skip::NotOffered);
        }
        self.ask(format!("flat {ops}"))
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

    fn round_robin(&self, order: &[usize], passes: u64) -> Outcome {
        self.ask(format!("round_robin {} {passes}", order.len()))
    }

    fn pooled(&self, ops: u64) -> Outcome {
        self.ask(format!("pooled {ops}"))
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

    fn populate(&self, _count: usize, _watch: &Watch) -> Skip {
        unreachable!("a process of its own does that")
    }

    fn population_command(&self, count: usize) -> Option<Command> {
        let mut command = self.command();
        command.args(["populate", &count.to_string()]);
        Some(command)
    }
}
