//! The example `hub`, as its clients see it.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdout, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use crate::{example, machine::emulated};

/// A test fails after waiting this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections at the same time.
fn many() -> usize {
    if emulated() { 20 } else { 200 }
}

struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    http: SocketAddr,
    echo: SocketAddr,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        let mut child = example::command("hub")
            // The server ends even if the test fails.
            .args(["--http", "0", "--echo", "0", "--for", "120"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let [http, echo] = ["http on ", "echo on "].map(|what| {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line.trim().strip_prefix(what).unwrap().parse().unwrap()
        });
        Self {
            child,
            stdout,
            http,
            echo,
        }
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = self.child.id().try_into().unwrap();
        // SAFETY: our own child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Waits until the server ends. Returns its status, its last output and its errors.
    fn end(mut self) -> (ExitStatus, String, String) {
        let (mut summary, mut complaints) = (String::new(), String::new());
        self.stdout.read_to_string(&mut summary).unwrap();
        let stderr = self.child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut complaints).unwrap();
        (self.child.wait().unwrap(), summary, complaints)
    }

    /// Ends the server and checks that it reported no error.
    fn drain(self) -> String {
        self.signal(libc::SIGINT);
        let (status, summary, complaints) = self.end();
        assert!(status.success(), "{status} {complaints}");
        assert_eq!(complaints, "");
        summary
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Still running only if the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn read_to_end(mut stream: &TcpStream) -> String {
    let mut all = String::new();
    if let Err(error) = stream.read_to_string(&mut all) {
        panic!("{error} after {all:?}");
    }
    all
}

/// Reads one response. Returns its status line, whether the connection stays, and its body.
#[track_caller]
fn response(stream: &TcpStream) -> (String, bool, String) {
    // One byte at a time, so that the next response stays unread.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        (&*stream).read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let value = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
    };
    let mut body = vec![0; value("Content-Length: ").parse().unwrap()];
    (&*stream).read_exact(&mut body).unwrap();
    (
        head.lines().next().unwrap().to_owned(),
        value("Connection: ") == "keep-alive",
        String::from_utf8(body).unwrap(),
    )
}

fn ok(body: &str) -> (String, bool, String) {
    ("HTTP/1.1 200 OK".into(), true, body.into())
}

const HELLO: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

/// Sends a request that takes a minute, and returns when the server has read it.
fn fall_asleep(sleeper: &mut TcpStream) {
    // In one write with another request, which is answered first.
    let requests = [HELLO, &get("/sleep/60000")].concat();
    sleeper.write_all(&requests).unwrap();
    assert_eq!(response(sleeper), ok("hello, world\n"));
}

#[test]
fn many_connections_at_once_get_back_what_they_send() {
    let server = Server::start(&[]);
    let streams: Vec<_> = (0..many()).map(|_| connect(server.echo)).collect();
    let text = |number: usize| format!("{number} ").repeat(1 + number * 10);
    let mut sent = 0;
    for (number, mut stream) in streams.iter().enumerate() {
        stream.write_all(text(number).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        sent += text(number).len();
    }
    for (number, stream) in streams.iter().enumerate().rev() {
        assert_eq!(read_to_end(stream), text(number));
    }
    let expected = format!(
        "{} connections, 0 requests, {sent} bytes echoed, 0 timed out, 0 panicked, 0 killed\n",
        streams.len()
    );
    assert_eq!(server.drain(), expected);
}

#[test]
fn echoes_more_than_any_buffer_holds_to_a_client_that_is_slow_to_read() {
    let server = Server::start(&[]);
    let stream = connect(server.echo);
    let sent: Vec<u8> = (0..4_000_000u32).map(|n| (n / 7) as u8).collect();
    // Fills both directions before it reads anything.
    let (mut writer, data) = (stream.try_clone().unwrap(), sent.clone());
    let writing = thread::spawn(move || {
        writer.write_all(&data).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // Other clients are served meanwhile.
    let other = connect(server.http);
    (&other).write_all(HELLO).unwrap();
    assert_eq!(response(&other), ok("hello, world\n"));

    let mut received = Vec::new();
    (&stream).read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent);
    server.drain();
}

#[test]
fn a_connection_is_kept_for_further_requests_however_they_arrive() {
    let server = Server::start(&[]);
    let mut stream = connect(server.http);
    for _ in 0..3 {
        stream.write_all(HELLO).unwrap();
        assert_eq!(response(&stream), ok("hello, world\n"));
    }
    // A request in several writes.
    stream.set_nodelay(true).unwrap();
    for byte in b"POST /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(response(&stream), ok("body"));
    // Several requests in one write, with the beginning of one that is longer than the server's buffer.
    let long = "x".repeat(5000);
    let head = format!(
        "POST /echo HTTP/1.1\r\ncontent-length: {}\r\n\r\n",
        long.len()
    );
    let bytes = [
        HELLO,
        &get("/sleep/1"),
        head.as_bytes(),
        &long.as_bytes()[..1],
    ]
    .concat();
    stream.write_all(&bytes).unwrap();
    assert_eq!(response(&stream), ok("hello, world\n"));
    assert_eq!(response(&stream), ok("slept\n"));
    stream.write_all(&long.as_bytes()[1..]).unwrap();
    assert_eq!(response(&stream), ok(&long));
    // The client closes the connection.
    stream
        .write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    let (status, stays, _) = response(&stream);
    assert_eq!((status.as_str(), stays), ("HTTP/1.1 200 OK", false));
    assert_eq!(read_to_end(&stream), "");
    assert!(server.drain().starts_with("1 connections, 8 requests, "));
}

#[test]
fn what_it_does_not_serve_is_refused() {
    let server = Server::start(&[]);
    let cases: &[(&[u8], &str, bool)] = &[
        (b"GET /nothing HTTP/1.1\r\n\r\n", "404 Not Found", true),
        (b"GET /sleep/long HTTP/1.1\r\n\r\n", "404 Not Found", true),
        (b"DELETE / HTTP/1.1\r\n\r\n", "405 Method Not Allowed", true),
        (b"GET / HTTP/1.0\r\n\r\n", "200 OK", false),
        (b"nonsense\r\n\r\n", "400 Bad Request", false),
        (
            b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "400 Bad Request",
            false,
        ),
        (
            b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "400 Bad Request",
            false,
        ),
        (
            b"POST /echo HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
            "413 Content Too Large",
            false,
        ),
        (
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "501 Not Implemented",
            false,
        ),
    ];
    for (request, expected, expected_to_stay) in cases {
        let mut stream = connect(server.http);
        stream.write_all(request).unwrap();
        let (status, stays, _) = response(&stream);
        assert_eq!(status, format!("HTTP/1.1 {expected}"));
        assert_eq!(stays, *expected_to_stay, "{expected}");
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&stream), "");
    }
    let mut stream = connect(server.http);
    let endless = [&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; 100_000]].concat();
    stream.write_all(&endless).unwrap();
    let (status, ..) = response(&stream);
    assert_eq!(status, "HTTP/1.1 431 Request Header Fields Too Large");
    drop(stream);
    server.drain();
}

#[test]
fn tasks_sleep_at_the_same_time() {
    let server = Server::start(&["--grace", "0"]);
    // The timeout is shorter than a task's sleep: a server that slept itself would not answer in time.
    let connections = || {
        (0..many()).map(|_| {
            let stream = connect(server.http);
            stream.set_read_timeout(Some(PATIENCE / 4)).unwrap();
            stream
        })
    };
    let mut sleepers: Vec<_> = connections().collect();
    sleepers.iter_mut().for_each(fall_asleep);

    let others: Vec<_> = connections().collect();
    for (number, mut stream) in others.iter().enumerate() {
        stream.write_all(&get(&format!("/sleep/{number}"))).unwrap();
    }
    for stream in others.iter().rev() {
        assert_eq!(response(stream), ok("slept\n"));
        // Until the server has closed it, too, its task could be killed as well.
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(stream), "");
    }

    server.signal(libc::SIGINT);
    for sleeper in &sleepers {
        assert_eq!(read_to_end(sleeper), "");
    }
    let (status, summary, complaints) = server.end();
    assert!(status.success(), "{complaints}");
    let expected = format!(" 0 panicked, {} killed\n", sleepers.len());
    assert!(summary.ends_with(&expected), "{summary}");
}

#[test]
fn a_panic_ends_its_connection_and_no_other() {
    let server = Server::start(&[]);
    let (mut witness, mut victim) = (connect(server.http), connect(server.http));
    witness.write_all(HELLO).unwrap();
    assert_eq!(response(&witness), ok("hello, world\n"));
    victim.write_all(&get("/panic")).unwrap();
    assert_eq!(read_to_end(&victim), "");
    witness.write_all(HELLO).unwrap();
    assert_eq!(response(&witness), ok("hello, world\n"));
    drop(witness);

    server.signal(libc::SIGTERM);
    let (status, summary, complaints) = server.end();
    assert!(status.success(), "{status}");
    assert!(summary.ends_with(" 1 panicked, 0 killed\n"), "{summary}");
    assert!(
        complaints.contains("a client has asked for it"),
        "{complaints}"
    );
}

#[test]
fn a_client_that_is_silent_too_long_is_disconnected() {
    // Long enough for a client to say something after it has connected, on a busy machine.
    let server = Server::start(&["--timeout", if emulated() { "4" } else { "1" }]);
    let (idle, echo) = (connect(server.http), connect(server.echo));
    let mut halting = connect(server.http);
    halting.write_all(b"GET / HT").unwrap();
    assert_eq!(read_to_end(&idle), "");
    assert_eq!(read_to_end(&echo), "");
    let (status, stays, _) = response(&halting);
    assert_eq!(
        (status.as_str(), stays),
        ("HTTP/1.1 408 Request Timeout", false)
    );
    assert_eq!(read_to_end(&halting), "");
    assert!(server.drain().contains(" 3 timed out, "));
}

#[test]
fn connections_above_the_limit_wait_until_others_close() {
    let server = Server::start(&["--connections", "2"]);
    let mut streams: Vec<_> = (0..6).map(|_| connect(server.http)).collect();
    for stream in &mut streams {
        stream.write_all(HELLO).unwrap();
    }
    for stream in streams {
        assert_eq!(response(&stream), ok("hello, world\n"));
    }
    assert!(server.drain().starts_with("6 connections, 6 requests, "));
}

#[test]
fn drains_what_has_come_before_it_ends() {
    let server = Server::start(&[]);
    let (idle, mut echo, mut sleeper) = (
        connect(server.http),
        connect(server.echo),
        connect(server.http),
    );
    let late: Vec<_> = (0..many()).map(|_| connect(server.http)).collect();
    sleeper.write_all(&get("/sleep/100")).unwrap();
    for mut stream in &late {
        stream.write_all(HELLO).unwrap();
    }
    echo.write_all(b"the last words").unwrap();
    server.signal(libc::SIGINT);

    assert_eq!(read_to_end(&idle), "");
    assert_eq!(read_to_end(&echo), "the last words");
    let (status, _, body) = response(&sleeper);
    assert_eq!(
        (status.as_str(), body.as_str()),
        ("HTTP/1.1 200 OK", "slept\n")
    );
    assert_eq!(read_to_end(&sleeper), "");
    for stream in &late {
        let (status, _, body) = response(stream);
        assert_eq!(
            (status.as_str(), body.as_str()),
            ("HTTP/1.1 200 OK", "hello, world\n")
        );
    }
    let refused = TcpStream::connect(server.http).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    drop(late);
    let (status, summary, complaints) = server.end();
    assert!(status.success(), "{complaints}");
    assert_eq!(complaints, "");
    let expected = format!("{} connections, {} requests, ", many() + 3, many() + 1);
    assert!(summary.starts_with(&expected), "{summary}");
    assert!(summary.ends_with(" 0 killed\n"), "{summary}");
}

#[test]
fn kills_remaining_tasks_at_a_second_signal() {
    let server = Server::start(&[]);
    let (idle, mut sleeper) = (connect(server.http), connect(server.http));
    fall_asleep(&mut sleeper);
    server.signal(libc::SIGINT);
    // The server finishes open requests.
    assert_eq!(read_to_end(&idle), "");
    server.signal(libc::SIGINT);
    assert_eq!(read_to_end(&sleeper), "");
    let (status, summary, complaints) = server.end();
    assert!(status.success(), "{complaints}");
    assert!(summary.ends_with(" 0 panicked, 1 killed\n"), "{summary}");
    assert_eq!(complaints, "");
}

#[test]
fn kills_tasks_that_do_not_end_within_the_grace_period() {
    let server = Server::start(&["--grace", "0.1"]);
    let mut sleeper = connect(server.http);
    fall_asleep(&mut sleeper);
    server.signal(libc::SIGINT);
    assert_eq!(read_to_end(&sleeper), "");
    let (_, summary, _) = server.end();
    assert!(summary.ends_with(" 1 killed\n"), "{summary}");
}

#[test]
fn ends_by_itself_after_its_time() {
    let server = Server::start(&["--for", "0.1"]);
    assert_eq!(read_to_end(&connect_if_there(server.http)), "");
    let (status, summary, _) = server.end();
    assert!(status.success(), "{summary}");
}

/// Connects. If the server has ended, returns a closed connection instead.
fn connect_if_there(to: SocketAddr) -> TcpStream {
    TcpStream::connect(to).unwrap_or_else(|_| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = connect(listener.local_addr().unwrap());
        drop(listener.accept().unwrap());
        stream
    })
}

#[test]
fn prints_a_snapshot_of_its_tasks_at_sigusr1() {
    let mut server = Server::start(&[]);
    let stream = connect(server.http);
    (&stream).write_all(HELLO).unwrap();
    assert_eq!(response(&stream), ok("hello, world\n"));
    server.signal(libc::SIGUSR1);

    let expected = format!(
        " \"http {}\" suspended active started",
        stream.local_addr().unwrap()
    );
    let stderr = server.child.stderr.take().unwrap();
    let mut lines = BufReader::new(stderr).lines().map(Result::unwrap);
    let mut seen: Vec<String> = Vec::new();
    while !seen.last().is_some_and(|line| line.contains(&expected)) {
        seen.push(lines.next().expect("it is there before the end"));
    }
    let names: Vec<_> = seen
        .iter()
        .filter_map(|line| line.trim_start().strip_prefix('#')?.split_once(' '))
        .map(|(_, name)| name)
        .collect();
    let starts = [
        "main current",
        "\"hub\" suspended",
        "\"http\" s",
        "\"echo\" s",
        "\"http 127.",
    ];
    assert_eq!(names.len(), starts.len(), "{seen:#?}");
    for (name, start) in names.iter().zip(starts) {
        assert!(name.starts_with(start), "{seen:#?}");
    }
    server.signal(libc::SIGINT);
    assert!(server.child.wait().unwrap().success());
}

/// Checks that `example` prints its help on request, and after each wrong argument.
#[track_caller]
fn explains_misuse(example: &str, misuse: &[(&[&str], &str)]) {
    let help = example::run(example, &["--help"]);
    assert!(help.status.success(), "{help:?}");
    assert!(example::stdout(&help).starts_with(&format!("Usage: {example} ")));
    for (arguments, error) in misuse {
        let output = example::run(example, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(example::stdout(&output), "");
        let expected = format!("{example}: {error}\n\n{}", example::stdout(&help));
        assert_eq!(example::stderr(&output), expected);
    }
}

#[test]
fn help_is_output_and_misuse_is_an_error_that_names_it() {
    explains_misuse(
        "hub",
        &[
            (&["--http"], "missing argument for option '--http'"),
            (&["--http", "x"], "--http takes a port, not \"x\""),
            (&["--timeout=-1"], "--timeout takes seconds, not \"-1\""),
            (&["--all"], "invalid option '--all'"),
        ],
    );
    explains_misuse(
        "fetch",
        &[
            (&["127.0.0.1:80"], "an address and a path are needed"),
            (
                &["localhost", "/"],
                "cannot parse argument \"localhost\": invalid socket address syntax",
            ),
            (&["--all"], "invalid option '--all'"),
        ],
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = example::run("hub", &["--echo=0", "--http", &port.to_string()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = example::stderr(&output);
    assert!(error.starts_with(&format!("hub: port {port}: ")), "{error}");
}

/// Returns the output, status and errors of `fetch` for these pages.
fn fetch(server: &str, paths: &[&str]) -> (String, Option<i32>, String) {
    let output = example::run("fetch", &[&["--timeout", "60", server], paths].concat());
    (
        example::stdout(&output).to_owned(),
        output.status.code(),
        example::stderr(&output).to_owned(),
    )
}

#[test]
fn fetch_joins_its_tasks_in_the_order_of_the_pages() {
    let server = Server::start(&[]);
    // The first page arrives last.
    let printed = fetch(&server.http.to_string(), &["/sleep/200", "/", "/nowhere"]);
    let pages = "200       6 /sleep/200\n200      13 /\n404      17 /nowhere\n";
    assert_eq!(printed, (pages.into(), Some(0), String::new()));
    let summary = server.drain();
    assert!(
        summary.starts_with("3 connections, 3 requests"),
        "{summary}"
    );
}

#[test]
fn fetch_names_the_page_that_failed_and_the_error() {
    let server = Server::start(&[]);
    let (pages, status, complaints) = fetch(&server.http.to_string(), &["/panic", "/"]);
    assert_eq!((&*pages, status), ("200      13 /\n", Some(1)));
    assert_eq!(complaints, "fetch: /panic: this is not HTTP/1.1\n");

    let address = server.http.to_string();
    server.signal(libc::SIGINT);
    assert!(server.end().0.success());
    let (pages, status, complaints) = fetch(&address, &["/"]);
    assert_eq!((&*pages, status), ("", Some(1)));
    assert!(
        complaints.starts_with("fetch: /: Connection refused"),
        "{complaints}"
    );
}

#[test]
fn fetch_asks_for_no_more_pages_at_a_time_than_it_may() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = thread::spawn(move || fetch(&address, &["--jobs", "2", "/1", "/2", "/3", "/4"]));
    let accept = |path: &str| {
        let connection = listener.accept().unwrap().0;
        let mut line = String::new();
        BufReader::new(&connection).read_line(&mut line).unwrap();
        assert_eq!(line, format!("GET {path} HTTP/1.1\r\n"));
        connection
    };
    let answer = |mut connection: TcpStream| {
        write!(connection, "HTTP/1.1 200 OK\r\n\r\nbody").unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        // Until the client has closed it.
        assert_eq!(connection.read(&mut [0]).unwrap(), 0);
    };
    let (first, second) = (accept("/1"), accept("/2"));
    answer(first);
    let third = accept("/3");
    // Tasks that need not wait have connected before the client received the first answer.
    listener.set_nonblocking(true).unwrap();
    let fourth = listener.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(fourth, Err(ErrorKind::WouldBlock));
    listener.set_nonblocking(false).unwrap();
    answer(second);
    let fourth = accept("/4");
    answer(third);
    answer(fourth);
    let (pages, status, complaints) = client.join().unwrap();
    let all = ["/1", "/2", "/3", "/4"].map(|path| format!("200       4 {path}\n"));
    assert_eq!((pages, status), (all.concat(), Some(0)), "{complaints}");
}
