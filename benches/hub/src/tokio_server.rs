//! The HTTP server of `examples/hub`, as one writes it for tokio: the same parsing, the same
//! buffers, the same timeouts.

use std::{
    io::{self, ErrorKind},
    net::Ipv4Addr,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime, task, time,
};

use crate::http::{self, Parsed};

/// As in the example.
const CHUNK: usize = 1024;

pub fn run(timeout: Duration) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(16 * 1024)?;
        println!("http on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            task::spawn(async move {
                match serve(stream, timeout).await {
                    Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                        eprintln!("tokio: {error}");
                    }
                    _ => {}
                }
            });
        }
    })
}

async fn serve(mut stream: TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(CHUNK);
    let mut output = Vec::new();
    loop {
        let deadline = time::Instant::now() + timeout;
        let request = loop {
            match http::parse(&input) {
                Parsed::Request(request) => break request,
                Parsed::Refused(status) => return refuse(&mut stream, status).await,
                Parsed::Incomplete => {}
            }
            let there = input.len();
            input.resize(there + CHUNK, 0);
            let read = stream.read(&mut input[there..]);
            let length = time::timeout_at(deadline, read).await??;
            input.truncate(there + length);
            if length == 0 {
                return Ok(());
            }
        };
        let (status, body) = match (request.method, request.path) {
            ("GET", "/") => (200, &b"hello, world\n"[..]),
            ("POST", "/echo") => (200, request.body),
            _ => (404, &b"there is nothing\n"[..]),
        };
        output.clear();
        http::respond(&mut output, status, request.keep_alive, body);
        let deadline = time::Instant::now() + timeout;
        time::timeout_at(deadline, stream.write_all(&output)).await??;
        if !request.keep_alive {
            return stream.shutdown().await;
        }
        let done = request.length;
        input.drain(..done);
    }
}

async fn refuse(stream: &mut TcpStream, status: u16) -> io::Result<()> {
    let mut output = Vec::new();
    http::respond(&mut output, status, false, b"");
    stream.write_all(&output).await?;
    stream.shutdown().await
}
