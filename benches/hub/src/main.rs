//! Measures the HTTP server of `examples/hub` beside the same one on tokio's current-thread
//! runtime, under connections that all have a request under way all the time.
//!
//! Each server is a process of its own, started anew for each round; the load comes from one
//! thread of this process, over `polling` and neither of the two. Every response is compared,
//! byte for byte. `ci/hub-bench.sh` builds and runs it.

#[path = "../../../examples/hub/http.rs"]
mod http;
mod load;
mod server;
mod tokio_server;

use std::{env, error::Error, path::PathBuf, process::ExitCode, time::Duration};

use load::Load;
use server::Server;

const USAGE: &str = "\
Usage: greenlet-hub-bench --hub PROGRAM [--connections COUNT] [--seconds SECONDS] [--rounds COUNT]
";

/// Every server gives up after so long without input. Timers are part of what is measured.
const TIMEOUT: Duration = Duration::from_secs(60);

struct Options {
    hub: PathBuf,
    connections: usize,
    seconds: Duration,
    rounds: usize,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self {
            hub: PathBuf::new(),
            connections: 10_000,
            seconds: Duration::from_secs(5),
            rounds: 3,
        };
        while let Some(option) = arguments.next() {
            let value = arguments.next()?;
            match option.as_str() {
                "--hub" => options.hub = value.into(),
                "--connections" => options.connections = value.parse().ok().filter(|&n| n > 0)?,
                "--seconds" => {
                    options.seconds = Duration::from_secs(value.parse().ok().filter(|&n| n < 600)?);
                }
                "--rounds" => {
                    options.rounds = value.parse().ok().filter(|n| (1..100).contains(n))?
                }
                _ => return None,
            }
        }
        (!options.hub.as_os_str().is_empty()).then_some(options)
    }
}

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some("serve") {
        return match tokio_server::run(TIMEOUT) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("tokio: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let Some(options) = Options::parse(env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match compare(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("greenlet-hub-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What one round of one server has shown.
#[derive(Clone, Copy)]
struct Measured {
    /// Requests a second.
    rate: f64,
    /// Processor time of the server for each request, microseconds.
    cost: f64,
    /// Resident memory of the server with all connections open, bytes: after a request on each,
    /// and the most up to the end.
    resident: [f64; 2],
}

fn compare(mut options: Options) -> Result<(), Box<dyn Error>> {
    let files = server::raise_file_limit()?;
    // Beside the connections there are the standard streams, the poller's and the child's.
    let most = files.saturating_sub(64);
    if options.connections > most {
        println!("{files} open files are allowed: {most} connections");
        options.connections = most;
    }
    println!(
        "{} connections, {} rounds of {} s each",
        options.connections,
        options.rounds,
        options.seconds.as_secs()
    );

    println!("\n        requests/s  server CPU us/request  resident MiB  at most");
    let mut rounds = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for (which, name) in ["hub", "tokio"].into_iter().enumerate() {
            let server = match name {
                "hub" => Server::start_hub(&options.hub, TIMEOUT)?,
                _ => Server::start_tokio()?,
            };
            let measured = measure(server, &options)?;
            print(name, measured);
            rounds[which].push(measured);
        }
    }

    let [hub, tokio] = rounds.map(|rounds| Measured {
        rate: median(&rounds, |round| round.rate),
        cost: median(&rounds, |round| round.cost),
        resident: [0, 1].map(|at| median(&rounds, |round| round.resident[at])),
    });
    println!("medians");
    print("hub", hub);
    print("tokio", tokio);
    println!(
        "hub / tokio: {:.2} of the requests/s, {:.2} of the CPU time, {:.2} of the memory",
        hub.rate / tokio.rate,
        hub.cost / tokio.cost,
        hub.resident[0] / tokio.resident[0],
    );
    println!(
        "memory a connection: hub {:.1} KiB, tokio {:.1} KiB",
        hub.resident[0] / 1024.0 / options.connections as f64,
        tokio.resident[0] / 1024.0 / options.connections as f64,
    );
    Ok(())
}

fn measure(server: Server, options: &Options) -> Result<Measured, Box<dyn Error>> {
    let mut load = Load::connect(server.address, options.connections)?;
    // One on each, so that every connection has all that it needs.
    let first = load.run_once()?;
    let resident = server.memory("VmRSS")?;
    let cpu_before = server.cpu_time()?;
    let (requests, time) = load.run_for(options.seconds)?;
    let cpu = server.cpu_time()? - cpu_before;
    let peak = server.memory("VmHWM")?;
    server.drain(options.connections, first + requests, || load.expect_ends())?;
    Ok(Measured {
        rate: requests as f64 / time.as_secs_f64(),
        cost: cpu.as_secs_f64() * 1e6 / requests as f64,
        resident: [resident as f64, peak as f64],
    })
}

fn print(name: &str, measured: Measured) {
    const MIB: f64 = 1024.0 * 1024.0;
    println!(
        "{name:6}  {:10.0}  {:21.2}  {:12.1}  {:7.1}",
        measured.rate,
        measured.cost,
        measured.resident[0] / MIB,
        measured.resident[1] / MIB,
    );
}

fn median(rounds: &[Measured], value: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let [below, above] = [(values.len() - 1) / 2, values.len() / 2];
    f64::midpoint(values[below], values[above])
}
