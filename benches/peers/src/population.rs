//! Many suspended at once: what each of them takes, measured in a process of its own.

use std::{
    fs,
    process::{self, Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::contender::{Contender, Outcome, Skip};

/// Of the system's free memory, each may need this much. The measured ones take 4 to 9 KiB.
const NEEDED: u64 = 10 * 1024;

/// What a process that measures says, in one line of JSON.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Answer {
    ns: Option<u64>,
    #[serde(flatten)]
    memory: Option<Memory>,
    skip: Option<String>,
}

/// Bytes that the process has taken.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Memory {
    pub resident: u64,
    pub page_tables: u64,
}

/// A population, and what it took as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Population {
    pub elapsed: Duration,
    pub memory: Memory,
}

impl Answer {
    /// # Errors
    /// If it says why there is no figure.
    pub fn read(line: &str) -> Result<Self, Skip> {
        let answer: Self = serde_json::from_str(line)
            .map_err(|error| Skip::because(format_args!("{error}, in {line:?}")))?;
        match answer {
            Self {
                skip: Some(reason), ..
            } => Err(Skip::Because(reason)),
            answer => Ok(answer),
        }
    }

    /// # Errors
    /// If there is no figure, or the contender has no such operation.
    pub fn outcome(&self) -> Outcome {
        self.ns.map(Duration::from_nanos).ok_or(Skip::NotOffered)
    }

    pub fn print(&self) {
        println!("{}", serde_json::to_string(self).expect("it is plain"));
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(elapsed) => Self {
                ns: Some(elapsed.as_nanos() as u64),
                ..Self::default()
            },
            Err(Skip::NotOffered) => Self::default(),
            Err(Skip::Because(reason)) => Self {
                skip: Some(reason),
                ..Self::default()
            },
        }
    }
}

impl Memory {
    fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            resident: field(&status, "VmRSS:"),
            page_tables: field(&status, "VmPTE:"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            resident: self.resident.saturating_sub(before.resident),
            page_tables: self.page_tables.saturating_sub(before.page_tables),
        }
    }
}

/// Bytes that a line of a file in `/proc` says in kilobytes; 0 if it is not there.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes * 1024)
}

/// Looks at the process before and after.
pub struct Watch {
    before: Memory,
}

impl Watch {
    /// Prints the answer, and ends the process without taking anything down.
    pub fn report(&self, elapsed: Duration) -> ! {
        let memory = Memory::of_this_process().since(self.before);
        Answer {
            ns: Some(elapsed.as_nanos() as u64),
            memory: Some(memory),
            skip: None,
        }
        .print();
        // SAFETY: no exit handler of this program matters; the answer's line is written.
        unsafe { libc::_exit(0) }
    }
}

/// What the process does.
pub fn measure(contender: &dyn Contender, count: usize) -> ! {
    let watch = Watch {
        before: Memory::of_this_process(),
    };
    Answer::from(Err(contender.populate(count, &watch))).print();
    process::exit(0)
}

/// Has a process measure it.
pub fn of(contender: &dyn Contender, count: usize) -> Result<Population, Skip> {
    let free = field(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:");
    if count as u64 * NEEDED > free {
        return Err(Skip::because(format_args!(
            "{} MiB of memory are free, and {count} may need {}",
            free >> 20,
            (count as u64 * NEEDED) >> 20,
        )));
    }
    let mut command = match contender.population_command(count) {
        Some(command) => command,
        None => {
            let mut again = Command::new(std::env::current_exe()?);
            again.args(["--populate", contender.name(), &count.to_string()]);
            again
        }
    };
    let output = command.stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().last().unwrap_or_default();
        return Err(Skip::because(format_args!("{}: {last}", output.status)));
    }
    let answer = Answer::read(&String::from_utf8_lossy(&output.stdout))?;
    Ok(Population {
        elapsed: answer.outcome()?,
        memory: answer
            .memory
            .ok_or_else(|| Skip::because("no word about memory"))?,
    })
}
