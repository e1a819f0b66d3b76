//! The servers' processes.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// It ends when this is dropped.
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    can_drain: bool,
    pub address: SocketAddr,
}

impl Server {
    pub fn start_hub(program: &Path, timeout: Duration) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["--http", "0", "--echo", "0", "--for", "900", "--timeout"]);
        Self::start(command.arg(timeout.as_secs().to_string()), true)
    }

    pub fn start_tokio() -> io::Result<Self> {
        Self::start(Command::new(env::current_exe()?).arg("serve"), false)
    }

    fn start(command: &mut Command, can_drain: bool) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().strip_prefix("http on ").map(str::parse);
        let Some(Ok(address)) = address else {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("a server says \"{line}\"")));
        };
        Ok(Self {
            child,
            stdout,
            can_drain,
            address,
        })
    }

    /// Drains the hub, and compares what it has counted. The other one just ends.
    pub fn drain(
        mut self,
        connections: usize,
        requests: usize,
        meanwhile: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.can_drain {
            return Ok(());
        }
        let pid = self.child.id().try_into().expect("a process id");
        // SAFETY: our own child, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGINT) };
        meanwhile()?;
        let mut words = String::new();
        self.stdout.read_to_string(&mut words)?;
        let status = self.child.wait()?;
        let expected = format!("{connections} connections, {requests} requests, ");
        if status.success() && words.contains(&expected) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "expected \"{expected}\", but the hub ended with {status} and says \"{words}\""
        )))
    }

    fn read_proc(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
    }

    /// The field of /proc/PID/status, bytes.
    pub fn memory(&self, field: &str) -> io::Result<u64> {
        let status = self.read_proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u64>().ok());
        Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
    }

    /// Processor time so far, of the program and of the kernel for it.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let stat = self.read_proc("stat")?;
        // proc_pid_stat(5): fields 14 and 15; the second one, in parentheses, may have spaces.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        // SAFETY: no precondition.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Raises the number of open files, of this process and those it starts, to as many as are
/// allowed, and returns that.
pub fn raise_file_limit() -> io::Result<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is readable and writable.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}
