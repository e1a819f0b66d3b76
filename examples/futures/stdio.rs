//! C's standard I/O over asynchronous sockets: a synchronous library whose callbacks wait for futures of tokio.
//!
//! ```text
//! cargo run --example stdio -- --port 7008
//! printf '1 2 3\n0.5 0.25\n' | nc -N 127.0.0.1 7008
//! ```
//!
//! Answers each line of numbers with their sum. libc's `getline` and `strtod` read them from a `FILE` with
//! callbacks of this program (`fopencookie`). If `getline` needs more input, its callback suspends the greenlet,
//! C frames included, until the socket is readable. One thread serves all clients.

use std::{process::ExitCode, str::FromStr};

use lexopt::{Arg, Parser};

const USAGE: &str = "\
Usage: stdio [OPTION...]

Sends back the sum of each line of numbers, on 127.0.0.1.

  --port PORT    where it listens (default: 7008; 0: any)
  --clients N    ends after so many (default: never)
  -h, --help     prints this
";

#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "nothing is served")
)]
struct Options {
    port: u16,
    clients: Option<u32>,
}

impl Options {
    /// Returns `None` if help was asked for.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self {
            port: 7008,
            clients: None,
        };
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("port") => options.port = number(&mut arguments, "--port")?,
                Arg::Long("clients") => {
                    options.clients = Some(number(&mut arguments, "--clients")?)
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

fn number<N: FromStr>(arguments: &mut Parser, option: &str) -> Result<N, lexopt::Error> {
    let value = arguments.value()?;
    let number = value.to_str().and_then(|value| value.parse().ok());
    number.ok_or_else(|| format!("{option} takes a number, not {value:?}").into())
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("stdio: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match server::serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stdio: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
mod server {
    use std::{
        io::{self, ErrorKind},
        net::Ipv4Addr,
    };

    use greenlet::{Awaiter, Current, Stackful, Unscoped};
    use tokio::{
        net::{TcpListener, TcpStream},
        runtime, select,
        task::{JoinSet, LocalSet},
    };

    use super::{Options, stdio};

    pub fn serve(options: &Options) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // SAFETY: no thread-local's value is lent to what the greenlets run; tokio lends its own while it
        // polls, and no greenlet is suspended in a poll of what it waits for.
        let unscoped = unsafe { Unscoped::new() };
        unscoped
            .enter(|me: &Current<()>| LocalSet::new().block_on(&runtime, accept_all(me, options)))
    }

    async fn accept_all(me: &Current<'static, ()>, options: &Options) -> io::Result<()> {
        let port = options.port;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("port {port}: {error}")))?;
        println!("listening on {}", listener.local_addr()?);
        let mut clients = JoinSet::new();
        let mut left = options.clients;
        loop {
            let (socket, from) = select! {
                accepted = listener.accept(), if left != Some(0) => accepted?,
                Some(_) = clients.join_next() => continue,
                else => break,
            };
            left = left.map(|left| left - 1);
            clients.spawn_local(Stackful::new(me, move |awaiter| {
                if let Err(error) = answer(awaiter, socket) {
                    eprintln!("stdio: {from}: {error}");
                }
            }));
        }
        Ok(())
    }

    /// Plain code over C's files, which waits without knowing it.
    fn answer(awaiter: &Awaiter<'_, '_>, socket: TcpStream) -> io::Result<()> {
        let socket = Socket { awaiter, socket };
        let input = stdio::File::reader(&socket)?;
        let output = stdio::File::writer(&socket)?;
        while let Some(line) = input.line()? {
            let sum = stdio::numbers(&line).fold(0.0, |sum, number| sum + number);
            output.put(&format!("{sum}\n"))?;
        }
        Ok(())
    }

    /// The argument of C's callbacks.
    struct Socket<'a, 'e> {
        awaiter: &'a Awaiter<'a, 'e>,
        socket: TcpStream,
    }

    impl stdio::Source for Socket<'_, '_> {
        fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
            self.wait(async {
                loop {
                    self.socket.readable().await?;
                    match self.socket.try_read(buffer) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        done => return done,
                    }
                }
            })
        }

        fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
            self.wait(async {
                while !bytes.is_empty() {
                    self.socket.writable().await?;
                    match self.socket.try_write(bytes) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        done => bytes = &bytes[done?..],
                    }
                }
                Ok(())
            })
        }
    }

    impl Socket<'_, '_> {
        /// Frames of C must not be unwound: if the task is dropped, the call fails and returns.
        fn wait<T>(&self, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
            self.awaiter
                .try_wait(future)
                .unwrap_or_else(|cancelled| Err(io::Error::other(cancelled)))
        }
    }
}

/// The part of C's `stdio.h` that is needed.
#[cfg(target_os = "linux")]
mod stdio {
    use std::{
        ffi::{CString, c_char, c_int, c_void},
        io,
        marker::PhantomData,
        ptr::{self, NonNull},
        slice,
    };

    use libc::FILE;

    type Read = unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize;
    type Write = unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize;

    /// `cookie_io_functions_t` of fopencookie(3).
    #[repr(C)]
    struct Callbacks {
        read: Option<Read>,
        write: Option<Write>,
        seek: Option<unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
        close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    }

    unsafe extern "C" {
        fn fopencookie(cookie: *mut c_void, mode: *const c_char, callbacks: Callbacks)
        -> *mut FILE;
    }

    pub trait Source {
        fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
        /// Writes all bytes, because musl requires that of the callback.
        fn write(&self, bytes: &[u8]) -> io::Result<()>;
    }

    pub struct File<'a>(NonNull<FILE>, PhantomData<&'a ()>);

    impl<'a> File<'a> {
        pub fn reader<S: Source>(source: &'a S) -> io::Result<Self> {
            Self::open(source, c"r")
        }

        pub fn writer<S: Source>(source: &'a S) -> io::Result<Self> {
            Self::open(source, c"w")
        }

        fn open<S: Source>(source: &'a S, mode: &std::ffi::CStr) -> io::Result<Self> {
            let callbacks = Callbacks {
                read: Some(read::<S>),
                write: Some(write::<S>),
                seek: None,
                close: None,
            };
            let cookie = ptr::from_ref(source).cast_mut().cast();
            // SAFETY: the callbacks are for this cookie, which outlives the file.
            let file = unsafe { fopencookie(cookie, mode.as_ptr(), callbacks) };
            NonNull::new(file)
                .map(|file| Self(file, PhantomData))
                .ok_or_else(io::Error::last_os_error)
        }

        /// Returns the next line without its end; `None` at the end of the file.
        pub fn line(&self) -> io::Result<Option<CString>> {
            let (mut line, mut room) = (ptr::null_mut(), 0);
            // SAFETY: an open file; C allocates the line, which is freed here.
            unsafe {
                let length = libc::getline(&raw mut line, &raw mut room, self.0.as_ptr());
                let error = io::Error::last_os_error();
                let text = usize::try_from(length)
                    .map(|length| slice::from_raw_parts(line.cast::<u8>(), length).to_vec());
                libc::free(line.cast());
                match text {
                    Ok(mut text) => {
                        // Bytes behind a zero are no number.
                        text.retain(|&byte| byte != 0 && byte != b'\n');
                        Ok(CString::new(text).ok())
                    }
                    Err(_) if libc::ferror(self.0.as_ptr()) != 0 => Err(error),
                    Err(_) => Ok(None),
                }
            }
        }

        /// Writes `text` and flushes it.
        pub fn put(&self, text: &str) -> io::Result<()> {
            let file = self.0.as_ptr();
            // SAFETY: an open file, and so many bytes.
            let written = unsafe {
                libc::fwrite(text.as_ptr().cast(), 1, text.len(), file) == text.len()
                    && libc::fflush(file) == 0
            };
            written.then_some(()).ok_or_else(io::Error::last_os_error)
        }
    }

    impl Drop for File<'_> {
        fn drop(&mut self) {
            // SAFETY: open, and closed once.
            unsafe { libc::fclose(self.0.as_ptr()) };
        }
    }

    /// # Safety
    /// As fopencookie(3) calls it, with a cookie that is an `S`.
    unsafe extern "C" fn read<S: Source>(
        cookie: *mut c_void,
        buffer: *mut c_char,
        size: usize,
    ) -> isize {
        if size == 0 {
            return 0;
        }
        // SAFETY: the caller's word; the buffer is C's own, and initialised by zeros here.
        unsafe {
            buffer.write_bytes(0, size);
            let buffer = slice::from_raw_parts_mut(buffer.cast(), size);
            length((*cookie.cast::<S>()).read(buffer), -1)
        }
    }

    /// # Safety
    /// As fopencookie(3) calls it, with a cookie that is an `S`.
    unsafe extern "C" fn write<S: Source>(
        cookie: *mut c_void,
        bytes: *const c_char,
        size: usize,
    ) -> isize {
        // musl flushes by a write of zero bytes with a null pointer.
        if size == 0 {
            return 0;
        }
        // SAFETY: the caller's word.
        unsafe {
            let bytes = slice::from_raw_parts(bytes.cast(), size);
            length((*cookie.cast::<S>()).write(bytes).map(|()| size), 0)
        }
    }

    /// Converts a result to C's: `failed` for an error, which is then in `errno`.
    fn length(outcome: io::Result<usize>, failed: isize) -> isize {
        match outcome {
            Ok(length) => length.try_into().unwrap_or(failed),
            Err(error) => {
                // SAFETY: this thread's.
                unsafe {
                    *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::ECANCELED);
                }
                failed
            }
        }
    }

    /// Returns the numbers at the beginning of a text.
    pub fn numbers(text: &CString) -> impl Iterator<Item = f64> {
        let mut rest = text.as_ptr().cast_mut();
        std::iter::from_fn(move || {
            let from = rest;
            // SAFETY: within a text that ends with a zero.
            let number = unsafe { libc::strtod(from, &raw mut rest) };
            (rest != from).then_some(number)
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod server {
    pub fn serve(_: &super::Options) -> std::io::Result<()> {
        Err(std::io::Error::other("this system has no fopencookie(3)"))
    }
}
