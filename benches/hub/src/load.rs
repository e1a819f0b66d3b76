//! The load: connections that send a request, wait for the response, and send the next.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use polling::{Event, Events, PollMode, Poller};

use crate::http;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// So long without any response, and something has been lost.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Load {
    poller: Poller,
    connections: Vec<Connection>,
    /// What every response is.
    response: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// How much of the response is there.
    received: usize,
}

impl Load {
    pub fn connect(to: SocketAddr, count: usize) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            let stream = TcpStream::connect(to)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            // SAFETY: deleted in `drop`.
            unsafe { poller.add_with_mode(&stream, Event::readable(number), PollMode::Edge)? };
            connections.push(Connection {
                stream,
                received: 0,
            });
        }
        let mut response = Vec::new();
        http::respond(&mut response, 200, true, b"hello, world\n");
        Ok(Self {
            poller,
            connections,
            response,
        })
    }

    /// One request on each connection, all at once.
    pub fn run_once(&mut self) -> io::Result<usize> {
        self.run(|| false)
    }

    /// Requests on all connections, one after another, for so long; and then the responses that
    /// are still missing. Returns how many there were, and in what time.
    pub fn run_for(&mut self, time: Duration) -> io::Result<(usize, Duration)> {
        let start = Instant::now();
        let requests = self.run(|| start.elapsed() < time)?;
        Ok((requests, start.elapsed()))
    }

    /// Waits until the server has closed every connection, and wants it to have sent nothing else.
    pub fn expect_ends(&self) -> io::Result<()> {
        for mut stream in self.connections.iter().map(|connection| &connection.stream) {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            if stream.read(&mut [0])? != 0 {
                return Err(io::Error::other("more has come than was asked for"));
            }
        }
        Ok(())
    }

    fn run(&mut self, may_go_on: impl Fn() -> bool) -> io::Result<usize> {
        for connection in &self.connections {
            connection.send()?;
        }
        let mut responses = 0;
        let mut under_way = self.connections.len();
        let mut events = Events::with_capacity(NonZeroUsize::new(1024).expect("not zero"));
        while under_way > 0 {
            events.clear();
            if self.poller.wait(&mut events, Some(PATIENCE))? == 0 {
                return Err(io::Error::other(format!("{under_way} responses are lost")));
            }
            let go_on = may_go_on();
            for event in events.iter() {
                let connection = &mut self.connections[event.key];
                while connection.receive(&self.response)? {
                    responses += 1;
                    if !go_on {
                        under_way -= 1;
                        break;
                    }
                    connection.send()?;
                }
            }
        }
        Ok(responses)
    }
}

impl Connection {
    fn send(&self) -> io::Result<()> {
        match (&self.stream).write(REQUEST)? {
            length if length == REQUEST.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// Reads what is there. Returns whether the response is complete.
    fn receive(&mut self, response: &[u8]) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        match (&self.stream).read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                let rest = &response[self.received..];
                if !rest.starts_with(&buffer[..length]) {
                    return Err(io::Error::other("a response is not what it should be"));
                }
                let is_complete = length == rest.len();
                self.received = if is_complete {
                    0
                } else {
                    self.received + length
                };
                Ok(is_complete)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for connection in &self.connections {
            let _ = self.poller.delete(&connection.stream);
        }
    }
}
