//! A client for the server of `main.rs`. It requests several pages at once, each in a task of its own, and joins
//! the tasks in the order of the arguments. `Jobs` limits how many tasks work at a time, as gevent's `Pool`.
//!
//! ```text
//! cargo run --release --example fetch -- 127.0.0.1:8080 / /sleep/100 /sleep/200
//! ```

use std::{
    cell::Cell,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    num::NonZeroUsize,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use greenlet::Thrown;
use hub::{Condition, Socket, Task};
use lexopt::{Arg, Parser, ValueExt};

const USAGE: &str = "\
Usage: fetch [--jobs NUMBER] [--timeout SECONDS] ADDRESS PATH...

Asks the HTTP/1.1 server at ADDRESS for all PATHs at once. Prints for each, in
this order, its status and the length of its body in bytes.

  --jobs NUMBER      how many pages are fetched at a time (default: all)
  --timeout SECONDS  how long each page may take (default: 10)
  -h, --help         prints this
";

/// The maximum length of a response, bytes.
const LONGEST: u64 = 1 << 20;

struct Options {
    server: SocketAddr,
    paths: Vec<String>,
    jobs: NonZeroUsize,
    timeout: Duration,
}

impl Options {
    /// Returns `None` if help was asked for.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut server = None;
        let mut paths = Vec::new();
        let mut jobs = NonZeroUsize::MAX;
        let mut timeout = Duration::from_secs(10);
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("jobs") => jobs = arguments.value()?.parse()?,
                Arg::Long("timeout") => timeout = Duration::from_secs(arguments.value()?.parse()?),
                Arg::Value(address) if server.is_none() => server = Some(address.parse()?),
                Arg::Value(path) => paths.push(path.string()?),
                other => return Err(other.unexpected()),
            }
        }
        match server {
            Some(server) if !paths.is_empty() => Ok(Some(Self {
                server,
                paths,
                jobs,
                timeout,
            })),
            _ => Err("an address and a path are needed".into()),
        }
    }
}

/// Limits how many tasks work at a time.
struct Jobs<'e> {
    free: Cell<usize>,
    ended: Condition<'e>,
}

/// The right to work, until it is dropped: also when the task fails or is killed.
struct Job<'a, 'e>(&'a Jobs<'e>);

impl<'e> Jobs<'e> {
    /// Waits until fewer tasks work than may.
    fn begin(&self, task: Task<'_, 'e>) -> io::Result<Job<'_, 'e>> {
        loop {
            if let Some(fewer) = self.free.get().checked_sub(1) {
                self.free.set(fewer);
                return Ok(Job(self));
            }
            self.ended.wait(task)?;
        }
    }
}

impl Drop for Job<'_, '_> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.ended.wake_all();
    }
}

struct Page {
    status: u16,
    length: usize,
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("fetch: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match hub::run(|task| fetch_all(task, &options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(thrown) => {
            eprintln!("fetch: {thrown}");
            ExitCode::FAILURE
        }
    }
}

/// Returns `true` if all pages arrived.
fn fetch_all(task: Task, options: &Options) -> Result<bool, Thrown> {
    let (server, timeout) = (options.server, options.timeout);
    let jobs = Rc::new(Jobs {
        free: Cell::new(options.jobs.get()),
        ended: Condition::new(task),
    });
    let mut pages = Vec::new();
    for path in &options.paths {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
        let jobs = Rc::clone(&jobs);
        let page = task.spawn(path.as_str(), move |task| {
            let _job = jobs.begin(task)?;
            Ok(fetch(task, server, Instant::now() + timeout, &request)?)
        })?;
        pages.push(page);
    }
    let mut have_all_come = true;
    for (page, path) in pages.into_iter().zip(&options.paths) {
        match page.join(task) {
            Ok(Page { status, length }) => writeln!(io::stdout(), "{status} {length:7} {path}")?,
            Err(thrown) => {
                eprintln!("fetch: {path}: {thrown}");
                have_all_come = false;
            }
        }
    }
    Ok(have_all_come)
}

fn fetch(task: Task, server: SocketAddr, deadline: Instant, request: &str) -> io::Result<Page> {
    let mut socket = Socket::connect(task, server, Some(deadline))?;
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.take(LONGEST).read_to_end(&mut answer)?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match (response.parse(&answer), response.code) {
        (Ok(httparse::Status::Complete(head)), Some(status)) => Ok(Page {
            status,
            length: answer.len() - head,
        }),
        _ => Err(io::Error::new(
            ErrorKind::InvalidData,
            "this is not HTTP/1.1",
        )),
    }
}
