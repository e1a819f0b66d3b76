//! A server with one thread and thousands of connections, whose code reads and writes as if it blocked, as with
//! gevent:
//!
//! ```text
//! cargo run --release --example hub -- --http 8080 --echo 7007
//! curl http://127.0.0.1:8080/
//! ```
//!
//! Each connection has a greenlet of its own. Its handler is plain code over `io::Read` and `io::Write`; the
//! waiting is in `hub.rs`. An error or panic of a handler ends only its connection. SIGUSR1 prints a snapshot of
//! all greenlets. SIGINT (Ctrl-C) and SIGTERM drain: the server accepts no connection and answers open requests.
//! A second one kills all tasks.

mod http;

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::{fd::AsRawFd, unix::net::UnixStream},
    process::ExitCode,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use greenlet::{Snapshot, Thrown};
use http::Parsed;
use hub::{Condition, JoinHandle, Socket, Task};
use lexopt::{Arg, Parser};
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
    flag,
    low_level::pipe,
};

const USAGE: &str = "\
Usage: hub [OPTION...]

Serves on 127.0.0.1 until SIGINT or SIGTERM.

  --http PORT          HTTP/1.1: GET /, GET /sleep/MILLISECONDS, GET /panic,
                       POST /echo (default: 8080; 0: any)
  --echo PORT          sends back what it gets (default: 7007; 0: any)
  --connections COUNT  so many at a time (default: 20000)
  --timeout SECONDS    how long a client may be silent (default: 60)
  --grace SECONDS      how long to drain before killing (default: 10)
  --for SECONDS        drain after so long
  -h, --help           prints this
";

/// The size of a read from a connection, bytes.
const CHUNK: usize = 1024;
/// The longest sleep that a client can request.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long a client has to take what is sent before its connection is closed.
const LINGER: Duration = Duration::from_secs(1);
/// How much it may still send meanwhile, bytes.
const MOST_REST: u64 = 1 << 20;

struct Options {
    http: u16,
    echo: u16,
    connections: usize,
    timeout: Duration,
    grace: Duration,
    lifetime: Option<Duration>,
}

impl Options {
    /// Returns `None` if help was asked for.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self {
            http: 8080,
            echo: 7007,
            connections: 20_000,
            timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            lifetime: None,
        };
        let mut arguments = Parser::from_env();
        let port = |arguments: &mut Parser, option| {
            value(arguments, option, "a port", |text| text.parse().ok())
        };
        let seconds = |arguments: &mut Parser, option| {
            value(arguments, option, "seconds", |text| {
                Duration::try_from_secs_f64(text.parse().ok()?).ok()
            })
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("http") => options.http = port(&mut arguments, "--http")?,
                Arg::Long("echo") => options.echo = port(&mut arguments, "--echo")?,
                Arg::Long("connections") => {
                    let count = |text: &str| text.parse().ok();
                    options.connections =
                        value(&mut arguments, "--connections", "a number", count)?;
                }
                Arg::Long("timeout") => options.timeout = seconds(&mut arguments, "--timeout")?,
                Arg::Long("grace") => options.grace = seconds(&mut arguments, "--grace")?,
                Arg::Long("for") => options.lifetime = Some(seconds(&mut arguments, "--for")?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

/// Returns the value of `option`; `takes` describes it in the error.
fn value<T>(
    arguments: &mut Parser,
    option: &str,
    takes: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, lexopt::Error> {
    let value = arguments.value()?;
    let parsed = value.to_str().and_then(parse);
    parsed.ok_or_else(|| format!("{option} takes {takes}, not {value:?}").into())
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("hub: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    raise_file_limit();
    match hub::run(|task| serve(task, options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(thrown) => {
            eprintln!("hub: {thrown}");
            ExitCode::FAILURE
        }
    }
}

/// Raises the limit of open files to this user's maximum.
fn raise_file_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is readable and writable. A failure shows later, when files run out.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

struct Server<'e> {
    options: Options,
    connections: RefCell<HashMap<u64, Connection<'e>>>,
    accepted: Cell<u64>,
    ended: Condition<'e>,
    is_draining: Cell<bool>,
    /// Wakes the main greenlet, as signals do.
    waker: UnixStream,
    counts: Counts,
}

struct Connection<'e> {
    socket: Rc<TcpStream>,
    task: JoinHandle<'e, ()>,
}

#[derive(Default)]
struct Counts {
    requests: Cell<u64>,
    echoed: Cell<u64>,
    timed_out: Cell<u64>,
    panicked: Cell<u64>,
    killed: Cell<u64>,
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}

type Handler =
    for<'e> fn(Task<'_, 'e>, &mut Socket<'_, 'e, TcpStream>, &Server<'e>) -> io::Result<()>;

/// Runs in the main greenlet: starts the others and waits for signals.
fn serve(task: Task, options: Options) -> Result<(), Thrown> {
    let (signals, waker) = UnixStream::pair()?;
    signals.set_nonblocking(true)?;
    waker.set_nonblocking(true)?;
    let catch = |signal| -> io::Result<_> {
        let caught = Arc::new(AtomicBool::new(false));
        flag::register(signal, Arc::clone(&caught))?;
        pipe::register(signal, waker.try_clone()?)?;
        Ok(move || caught.swap(false, Ordering::Relaxed))
    };
    let (interrupted, terminated, asked) = (catch(SIGINT)?, catch(SIGTERM)?, catch(SIGUSR1)?);

    let (http, echo) = (listen(options.http)?, listen(options.echo)?);
    let addresses = [http.local_addr()?, echo.local_addr()?];
    writeln!(
        io::stdout(),
        "http on {}\necho on {}",
        addresses[0],
        addresses[1]
    )?;
    let server = Rc::new(Server {
        options,
        connections: RefCell::default(),
        accepted: Cell::new(0),
        ended: Condition::new(task),
        is_draining: Cell::new(false),
        waker,
        counts: Counts::default(),
    });
    let acceptors = [
        start_accepting(task, "http", http, &server, handle_http)?,
        start_accepting(task, "echo", echo, &server, handle_echo)?,
    ];

    // They must start before a signal arrives, to accept clients that have connected: a greenlet that is killed
    // before its start does not run.
    task.pass()?;

    let mut signals = Socket::new(task, Rc::new(signals))?;
    signals.set_deadline(
        server
            .options
            .lifetime
            .map(|lifetime| Instant::now() + lifetime),
    );
    while !(server.is_draining.get() && server.connections.borrow().is_empty()) {
        let is_late = match signals.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::TimedOut => true,
            other => other.map(|_| false)?,
        };
        if asked() {
            eprintln!("{}", Snapshot::take());
        }
        if !(interrupted() | terminated() | is_late) {
            continue;
        }
        if server.is_draining.replace(true) {
            server.kill_connections(task);
        } else {
            for acceptor in &acceptors {
                task.kill(acceptor);
            }
            server.hang_up();
            signals.set_deadline(Some(Instant::now() + server.options.grace));
        }
    }
    writeln!(io::stdout(), "{}", server.summary())?;
    Ok(())
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| io::Error::new(error.kind(), format!("port {port}: {error}")))?;
    listener.set_nonblocking(true)?;
    // The longest queue that the system allows.
    // SAFETY: `listen` may be called again for a listening socket.
    unsafe { libc::listen(listener.as_raw_fd(), 16 * 1024) };
    Ok(listener)
}

fn start_accepting<'e>(
    task: Task<'_, 'e>,
    name: &'static str,
    listener: TcpListener,
    server: &Rc<Server<'e>>,
    handler: Handler,
) -> Result<JoinHandle<'e, ()>, Thrown> {
    let server = Rc::clone(server);
    task.spawn(name, move |task| {
        let listener = Rc::new(listener);
        let outcome = server.accept(
            task,
            name,
            &Socket::new(task, Rc::clone(&listener))?,
            handler,
        );
        // Killed after the existing connections.
        while let Ok((stream, _)) = listener.accept() {
            server.start(task, name, stream, handler);
        }
        Ok(outcome?)
    })
}

impl<'e> Server<'e> {
    fn accept(
        self: &Rc<Self>,
        task: Task<'_, 'e>,
        name: &str,
        listener: &Socket<'_, 'e, TcpListener>,
        handler: Handler,
    ) -> io::Result<()> {
        loop {
            while self.connections.borrow().len() >= self.options.connections {
                self.ended.wait(task)?;
            }
            match listener.accept() {
                Ok((stream, _)) => self.start(task, name, stream, handler),
                Err(error) if hub::is_exit(&error) => return Err(error),
                // Usually no file descriptor is left, or the client has disconnected.
                Err(error) => {
                    eprintln!("{name}: {error}");
                    task.sleep(Duration::from_millis(100))?;
                }
            }
        }
    }

    fn start(self: &Rc<Self>, task: Task<'_, 'e>, name: &str, stream: TcpStream, handler: Handler) {
        if let Err(thrown) = self.try_start(task, name, stream, handler) {
            eprintln!("{name}: {thrown}");
        }
    }

    fn try_start(
        self: &Rc<Self>,
        task: Task<'_, 'e>,
        name: &str,
        stream: TcpStream,
        handler: Handler,
    ) -> Result<(), Thrown> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let id = self.accepted.replace(self.accepted.get() + 1);
        let name = format!("{name} {}", stream.peer_addr()?);
        let socket = Rc::new(stream);
        let end = EndOfConnection {
            server: Rc::clone(self),
            id,
        };
        let handle = task.spawn(name, {
            let socket = Rc::clone(&socket);
            move |task| {
                let end = end;
                end.server.handle(task, socket, handler)
            }
        })?;
        let connection = Connection {
            socket,
            task: handle,
        };
        self.connections.borrow_mut().insert(id, connection);
        Ok(())
    }

    fn handle(
        &self,
        task: Task<'_, 'e>,
        socket: Rc<TcpStream>,
        handler: Handler,
    ) -> Result<(), Thrown> {
        if self.is_draining.get() {
            let _ = socket.shutdown(Shutdown::Read);
        }
        let mut socket = Socket::new(task, socket)?;
        match handler(task, &mut socket, self) {
            Err(error) if error.kind() == ErrorKind::TimedOut => add(&self.counts.timed_out, 1),
            // The client has disconnected.
            Err(error) if is_gone(&error) => {}
            outcome => outcome?,
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        Some(Instant::now() + self.options.timeout)
    }

    /// Closes the input of all connections, which read what has arrived and then the end.
    fn hang_up(&self) {
        for connection in self.connections.borrow().values() {
            let _ = connection.socket.shutdown(Shutdown::Read);
        }
    }

    fn kill_connections(&self, task: Task<'_, 'e>) {
        let mut left: Vec<_> = self.connections.borrow_mut().drain().collect();
        left.sort_by_key(|(id, _)| *id);
        for (_, connection) in left {
            task.kill(&connection.task);
            add(&self.counts.killed, 1);
        }
    }

    fn summary(&self) -> String {
        let counts = &self.counts;
        format!(
            "{} connections, {} requests, {} bytes echoed, {} timed out, {} panicked, {} killed",
            self.accepted.get(),
            counts.requests.get(),
            counts.echoed.get(),
            counts.timed_out.get(),
            counts.panicked.get(),
            counts.killed.get(),
        )
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::NotConnected
    )
}

/// Removes a connection from the list when it is dropped, also if its greenlet never ran.
struct EndOfConnection<'e> {
    server: Rc<Server<'e>>,
    id: u64,
}

impl Drop for EndOfConnection<'_> {
    fn drop(&mut self) {
        let server = &self.server;
        if thread::panicking() {
            add(&server.counts.panicked, 1);
        }
        let connection = server.connections.borrow_mut().remove(&self.id);
        drop(connection);
        server.ended.wake_all();
        if server.is_draining.get() && server.connections.borrow().is_empty() {
            // A full pipe wakes the main greenlet as well.
            let _ = (&server.waker).write(&[0]);
        }
    }
}

// ---- the handlers: plain code

fn handle_echo(_: Task, socket: &mut Socket<TcpStream>, server: &Server) -> io::Result<()> {
    let mut buffer = vec![0; 4 * 1024];
    loop {
        socket.set_deadline(server.deadline());
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        socket.write_all(&buffer[..length])?;
        add(&server.counts.echoed, length as u64);
    }
}

fn handle_http(task: Task, socket: &mut Socket<TcpStream>, server: &Server) -> io::Result<()> {
    let mut input = Vec::with_capacity(CHUNK);
    let mut output = Vec::new();
    loop {
        socket.set_deadline(server.deadline());
        let request = loop {
            match http::parse(&input) {
                Parsed::Request(request) => break request,
                Parsed::Refused(status) => return refuse(socket, status),
                Parsed::Incomplete => {}
            }
            match read_more(socket, &mut input) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::TimedOut && !input.is_empty() => {
                    refuse(socket, 408)?;
                    return Err(error);
                }
                other => other?,
            };
        };
        let (status, body) = answer(task, &request)?;
        let keep_alive = request.keep_alive && !server.is_draining.get();
        output.clear();
        http::respond(&mut output, status, keep_alive, &body);
        socket.set_deadline(server.deadline());
        socket.write_all(&output)?;
        add(&server.counts.requests, 1);
        if !keep_alive {
            return close(socket);
        }
        let done = request.length;
        input.drain(..done);
    }
}

fn read_more(socket: &mut impl Read, input: &mut Vec<u8>) -> io::Result<usize> {
    let there = input.len();
    input.resize(there + CHUNK, 0);
    let outcome = socket.read(&mut input[there..]);
    input.truncate(there + outcome.as_ref().map_or(0, |&length| length));
    outcome
}

fn answer<'a>(task: Task, request: &http::Request<'a>) -> io::Result<(u16, Cow<'a, [u8]>)> {
    let text = |text: &'static str| Cow::Borrowed(text.as_bytes());
    Ok(match (request.method, request.path) {
        ("GET", "/") => (200, text("hello, world\n")),
        ("GET", "/panic") => panic!("a client has asked for it"),
        ("POST", "/echo") => (200, Cow::Borrowed(request.body)),
        ("GET", path) => {
            let time = path.strip_prefix("/sleep/").map(str::parse);
            let Some(Ok(milliseconds)) = time else {
                return Ok((404, text("there is nothing\n")));
            };
            task.sleep(Duration::from_millis(milliseconds).min(LONGEST_SLEEP))?;
            (200, text("slept\n"))
        }
        _ => (405, text("what?\n")),
    })
}

fn refuse(socket: &mut Socket<TcpStream>, status: u16) -> io::Result<()> {
    let mut output = Vec::new();
    http::respond(&mut output, status, false, b"");
    socket.set_deadline(Some(Instant::now() + LINGER));
    socket.write_all(&output)?;
    close(socket)
}

/// Closes a connection so that the client receives everything that was sent: the system would discard it if
/// there were unread input.
fn close(socket: &mut Socket<TcpStream>) -> io::Result<()> {
    socket.shut_down_writing()?;
    socket.set_deadline(Some(Instant::now() + LINGER));
    let mut rest = socket.take(MOST_REST);
    match io::copy(&mut rest, &mut io::sink()) {
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(()),
        other => other.map(drop),
    }
}
