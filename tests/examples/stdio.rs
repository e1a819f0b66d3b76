//! The example `stdio`, as its clients see it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::{Child, Stdio},
};

use crate::example;

/// The number of clients.
fn start(clients: &str) -> (Child, SocketAddr) {
    let mut child = example::command("stdio")
        .args(["--port", "0", "--clients", clients])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    (child, address.parse().unwrap())
}

fn ends_without_complaint(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(example::stderr(&output), "");
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn to(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).unwrap()))
    }

    fn send(&self, text: &str) {
        self.0.get_ref().write_all(text.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// Resets the connection, which is an error at the other side.
    fn reset(self) {
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let size = size_of_val(&now).try_into().unwrap();
        let socket = self.0.get_ref().as_raw_fd();
        // SAFETY: an open socket, and an option of that type.
        let set = unsafe {
            libc::setsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const now).cast(),
                size,
            )
        };
        assert_eq!(set, 0);
    }
}

#[test]
fn each_client_is_answered_while_others_are_in_the_middle_of_a_line() {
    let (child, address) = start("3");
    let mut clients = [1, 2, 3].map(|_| Client::to(address));
    for client in &clients {
        client.send("1 2");
    }
    for (client, rest) in clients.iter_mut().zip([" 3\n", "5\n", "\n"]).rev() {
        client.send(rest);
    }
    let answers = clients.each_mut().map(Client::answer);
    assert_eq!(answers, ["6\n", "26\n", "3\n"]);
    drop(clients);
    ends_without_complaint(child);
}

#[test]
fn a_last_line_needs_no_end_and_what_is_no_number_ends_the_sum() {
    let (child, address) = start("1");
    let mut client = Client::to(address);
    client.send("0.5 0.25\n\n1 two 3\n7");
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    client.0.read_to_string(&mut answers).unwrap();
    assert_eq!(answers, "0.75\n0\n1\n7\n");
    ends_without_complaint(child);
}

#[test]
fn a_client_that_breaks_off_is_reported_and_others_served() {
    let (child, address) = start("2");
    let rude = Client::to(address);
    rude.send("1");
    let its_address = rude.0.get_ref().local_addr().unwrap();
    rude.reset();
    let mut other = Client::to(address);
    other.send("2 2\n");
    assert_eq!(other.answer(), "4\n");
    drop(other);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let complaint = example::stderr(&output);
    let expected = format!("stdio: {its_address}: ");
    assert!(complaint.starts_with(&expected), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}

#[test]
fn says_how_it_is_used() {
    let help = example::run("stdio", &["--help"]);
    assert!(help.status.success());
    assert!(example::stdout(&help).starts_with("Usage: stdio"));
    for (wrong, error) in [
        (&["--port"][..], "missing argument for option '--port'"),
        (&["--port", "x"], "--port takes a number, not \"x\""),
        (&["more"], "unexpected argument \"more\""),
    ] {
        let refused = example::run("stdio", wrong);
        assert_eq!(refused.status.code(), Some(2));
        let expected = format!("stdio: {error}\n\n{}", example::stdout(&help));
        assert_eq!(example::stderr(&refused), expected);
    }
}

#[test]
fn names_a_port_that_is_taken() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = example::run("stdio", &["--port", &port.to_string()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = example::stderr(&output);
    assert!(
        error.starts_with(&format!("stdio: port {port}: ")),
        "{error}"
    );
}
