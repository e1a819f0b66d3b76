//! Tasks that seem to block, over readiness events, as in gevent.
//!
//! A task is a greenlet. To wait, it registers for an event and switches to its parent, the hub. The hub asks
//! the system which events have happened and switches to the tasks that wait for them. A wake-up is the message
//! `()`; the task itself checks whether it can continue.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeMap, HashMap, VecDeque},
    io::{self, ErrorKind, Read, Write},
    mem,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd},
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    time::{Duration, Instant},
};

use greenlet::{Builder, Current, Greenlet, GreenletExit, Thrown, WeakGreenlet, enter};
use polling::{Event, Events, PollMode, Poller};
use socket2::{Domain, Type};

/// The number of events that are read from the system at a time.
const EVENTS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How often in a row a task may use ready sockets before other tasks run.
const TURN: u32 = 64;

/// A waiting task. The handle is weak: queues do not keep a killed task.
type Waiter<'e> = WeakGreenlet<'e, ()>;

pub struct Hub<'e> {
    /// The greenlet that runs the loop.
    greenlet: OnceCell<Greenlet<'e, ()>>,
    poller: Poller,
    sources: RefCell<Sources<'e>>,
    /// By due time, and a number for timers that are due at the same time.
    timers: RefCell<BTreeMap<(Instant, u64), Waiter<'e>>>,
    runnable: RefCell<VecDeque<Waiter<'e>>>,
    /// Keeps the tasks alive.
    tasks: RefCell<HashMap<u64, Greenlet<'e, ()>>>,
    numbers: Cell<u64>,
    /// How often the running task may still use ready sockets in this turn.
    turn: Cell<u32>,
}

/// Runs `body` as a task in the main greenlet, and then kills the remaining tasks.
pub fn run<R>(body: impl FnOnce(Task) -> Result<R, Thrown>) -> Result<R, Thrown> {
    enter(|me| {
        let hub = Rc::new(Hub {
            greenlet: OnceCell::new(),
            poller: Poller::new()?,
            sources: RefCell::default(),
            timers: RefCell::default(),
            runnable: RefCell::default(),
            tasks: RefCell::default(),
            numbers: Cell::new(0),
            turn: Cell::new(TURN),
        });
        if !hub.poller.supports_edge() {
            return Err(io::Error::from(ErrorKind::Unsupported).into());
        }
        let greenlet = Builder::new().name("hub").build(me, {
            let hub = Rc::clone(&hub);
            move |me, ()| hub.run(me)
        })?;
        hub.greenlet.get_or_init(|| greenlet);
        body(Task { me, hub: &hub })
    })
}

impl<'e> Hub<'e> {
    fn run(&self, me: &Current<'e, ()>) -> Result<(), Thrown> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            for waiter in self.runnable.take() {
                self.resume(me, &waiter)?;
            }
            let now = Instant::now();
            while let Some(waiter) = self.take_due(now) {
                self.resume(me, &waiter)?;
            }
            events.clear();
            self.poller.wait(&mut events, self.time_to_wait())?;
            for event in events.iter() {
                let waiters = self.sources.borrow_mut().take_waiters(event);
                for waiter in waiters {
                    self.resume(me, &waiter)?;
                }
            }
        }
    }

    /// Runs a task until it waits again or finishes. Its error or panic arrives here, in its parent, and ends no
    /// other task.
    fn resume(&self, me: &Current<'e, ()>, waiter: &Waiter<'e>) -> Result<(), Thrown> {
        let Some(task) = waiter.upgrade() else {
            return Ok(());
        };
        self.turn.set(TURN);
        match panic::catch_unwind(AssertUnwindSafe(|| me.switch(&task, ()))) {
            Ok(Err(thrown)) if thrown.is_exit() => return Err(thrown),
            Ok(Err(thrown)) => {
                eprintln!("{}: {thrown}", task.name().unwrap_or("main"));
                // There is no stack for it, or it is dead.
                if !task.is_active() {
                    me.kill(&task)?;
                }
            }
            // The panic hook has reported the panic.
            Ok(Ok(())) | Err(_) => {}
        }
        Ok(())
    }

    fn take_due(&self, now: Instant) -> Option<Waiter<'e>> {
        let mut timers = self.timers.borrow_mut();
        let first = timers.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Returns `None` to wait until an event happens.
    fn time_to_wait(&self) -> Option<Duration> {
        if !self.runnable.borrow().is_empty() {
            return Some(Duration::ZERO);
        }
        let timers = self.timers.borrow();
        let ((due, _), _) = timers.first_key_value()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn next_number(&self) -> u64 {
        self.numbers.replace(self.numbers.get() + 1)
    }
}

/// The running task. Code that may wait receives it.
#[derive(Clone, Copy)]
pub struct Task<'a, 'e> {
    me: &'a Current<'e, ()>,
    hub: &'a Rc<Hub<'e>>,
}

impl<'e> Task<'_, 'e> {
    /// Makes a task, which runs when this one waits.
    pub fn spawn<T: 'e>(
        self,
        name: impl Into<Box<str>>,
        body: impl FnOnce(Task<'_, 'e>) -> Result<T, Thrown> + 'e,
    ) -> Result<JoinHandle<'e, T>, Thrown> {
        let listed = Listed {
            hub: Rc::clone(self.hub),
            number: self.hub.next_number(),
            ended: Rc::new(Condition::new(self)),
        };
        let (number, ended) = (listed.number, Rc::clone(&listed.ended));
        let outcome = Rc::new(Outcome {
            name: name.into(),
            result: RefCell::new(None),
        });
        let greenlet = Builder::new().name(&*outcome.name).build(self.me, {
            let outcome = Rc::clone(&outcome);
            move |me, ()| {
                let result = body(Task {
                    me,
                    hub: &listed.hub,
                });
                if !me.is_exiting() {
                    outcome.result.replace(Some(result));
                }
                Ok(())
            }
        })?;
        let hub = self.hub.greenlet.get().expect("set before tasks run");
        greenlet.set_parent(hub)?;
        self.hub
            .runnable
            .borrow_mut()
            .push_back(greenlet.downgrade());
        let mut tasks = self.hub.tasks.borrow_mut();
        tasks.insert(number, greenlet.clone());
        Ok(JoinHandle {
            greenlet,
            ended,
            outcome,
        })
    }

    /// Kills another task: its wait fails, its locals are dropped, its sockets closed.
    pub fn kill<T>(self, task: &JoinHandle<'e, T>) {
        if let Err(error) = self.me.kill(&task.greenlet) {
            eprintln!("{}: {error}", task.outcome.name);
        }
    }

    pub fn sleep(self, duration: Duration) -> io::Result<()> {
        self.wait_until(Some(Instant::now() + duration)).map(drop)
    }

    /// Waits until the task is woken, or until the deadline. Returns `true` at the deadline.
    fn wait_until(self, deadline: Option<Instant>) -> io::Result<bool> {
        let timer = deadline.map(|due| {
            let key = (due, self.hub.next_number());
            let mut timers = self.hub.timers.borrow_mut();
            timers.insert(key, self.me.downgrade());
            key
        });
        let hub = self.hub.greenlet.get().expect("set before tasks run");
        let woken = self.me.switch(hub, ());
        let is_due = timer.is_some_and(|key| self.hub.timers.borrow_mut().remove(&key).is_none());
        woken.map_err(into_io)?;
        Ok(is_due)
    }

    /// Lets the other tasks run.
    pub fn pass(self) -> io::Result<()> {
        let me = self.me.downgrade();
        self.hub.runnable.borrow_mut().push_back(me);
        self.wait_until(None).map(drop)
    }

    /// Lets the other tasks run if this task has used its turn.
    fn take_turns(self) -> io::Result<()> {
        match self.hub.turn.get() {
            0 => self.pass(),
            left => {
                self.hub.turn.set(left - 1);
                Ok(())
            }
        }
    }
}

/// Removes a task from the list when it ends in any way, and wakes the tasks that join it.
struct Listed<'e> {
    hub: Rc<Hub<'e>>,
    number: u64,
    ended: Rc<Condition<'e>>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let task = self.hub.tasks.borrow_mut().remove(&self.number);
        drop(task);
        self.ended.wake_all();
    }
}

/// The result of a task, until another one takes it.
struct Outcome<T> {
    name: Box<str>,
    result: RefCell<Option<Result<T, Thrown>>>,
}

impl<T> Drop for Outcome<T> {
    /// Prints an error that no task has taken.
    fn drop(&mut self) {
        if let Some(Err(thrown)) = self.result.take() {
            eprintln!("{}: {thrown}", self.name);
        }
    }
}

/// A task that was spawned. Dropping it neither ends the task nor waits for it.
pub struct JoinHandle<'e, T> {
    greenlet: Greenlet<'e, ()>,
    ended: Rc<Condition<'e>>,
    outcome: Rc<Outcome<T>>,
}

impl<'e, T> JoinHandle<'e, T> {
    /// Waits until the task has ended, and returns its result. Returns an error if it was killed or has panicked.
    pub fn join(self, task: Task<'_, 'e>) -> Result<T, Thrown> {
        while !self.greenlet.is_dead() {
            self.ended.wait(task)?;
        }
        self.outcome.result.take().unwrap_or_else(|| {
            let words = format!("{} was killed or has panicked", self.outcome.name);
            Err(io::Error::other(words).into())
        })
    }
}

/// Converts an error for code that returns `io::Error`. The error of a killed task contains a [`GreenletExit`].
fn into_io(thrown: Thrown) -> io::Error {
    if thrown.is_exit() {
        return io::Error::other(GreenletExit);
    }
    thrown
        .downcast()
        .unwrap_or_else(|other| io::Error::other(other.to_string()))
}

pub fn is_exit(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<GreenletExit>())
}

/// A condition variable for tasks.
pub struct Condition<'e> {
    hub: Rc<Hub<'e>>,
    waiters: RefCell<Vec<Waiter<'e>>>,
}

impl<'e> Condition<'e> {
    pub fn new(task: Task<'_, 'e>) -> Self {
        Self {
            hub: Rc::clone(task.hub),
            waiters: RefCell::default(),
        }
    }

    pub fn wait(&self, task: Task<'_, 'e>) -> io::Result<()> {
        let me = task.me.downgrade();
        self.waiters.borrow_mut().push(me);
        task.wait_until(None).map(drop)
    }

    pub fn wake_all(&self) {
        let mut runnable = self.hub.runnable.borrow_mut();
        runnable.extend(self.waiters.take());
    }
}

/// The tasks that wait to read and to write, for each socket.
#[derive(Default)]
struct Sources<'e> {
    places: Vec<[Option<Waiter<'e>>; 2]>,
    /// Places of closed sockets.
    free: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

impl<'e> Sources<'e> {
    fn take_place(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.places.push([None, None]);
            self.places.len() - 1
        })
    }

    /// An event may be older than the socket that has the place now. A wake-up without a reason is harmless.
    fn take_waiters(&mut self, event: Event) -> impl Iterator<Item = Waiter<'e>> + use<'e> {
        let [reader, writer] = &mut self.places[event.key];
        let reader = event.readable.then(|| reader.take()).flatten();
        let writer = event.writable.then(|| writer.take()).flatten();
        reader.into_iter().chain(writer)
    }
}

/// A socket that blocks only the task that uses it.
pub struct Socket<'t, 'e, S: AsFd + AsRawFd> {
    socket: Rc<S>,
    task: Task<'t, 'e>,
    place: usize,
    deadline: Option<Instant>,
}

impl<'t, 'e, S: AsFd + AsRawFd> Socket<'t, 'e, S> {
    /// `socket` must be non-blocking.
    pub fn new(task: Task<'t, 'e>, socket: Rc<S>) -> io::Result<Self> {
        let place = task.hub.sources.borrow_mut().take_place();
        let made = Self {
            socket,
            task,
            place,
            deadline: None,
        };
        // Edge-triggered: each change is reported once, so a task uses the socket until it would block.
        // SAFETY: the drop removes it, and the file is open until then.
        unsafe {
            let poller = &task.hub.poller;
            poller.add_with_mode(&*made.socket, Event::all(place), PollMode::Edge)?;
        }
        Ok(made)
    }

    /// Operations that are not finished by then fail with `TimedOut`.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Runs `act` as soon as it does not block, and returns its result.
    fn when_ready<R>(
        &self,
        direction: Direction,
        mut act: impl FnMut(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        self.task.take_turns()?;
        loop {
            match act(&self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(direction)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn wait(&self, direction: Direction) -> io::Result<()> {
        let waiter = self.task.me.downgrade();
        let set = |waiter| {
            let mut sources = self.task.hub.sources.borrow_mut();
            mem::replace(&mut sources.places[self.place][direction as usize], waiter)
        };
        set(Some(waiter));
        let is_late = self.task.wait_until(self.deadline);
        set(None);
        if is_late? {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl<S: AsFd + AsRawFd> Drop for Socket<'_, '_, S> {
    fn drop(&mut self) {
        // Fails if it was never added.
        let _ = self.task.hub.poller.delete(&*self.socket);
        let mut sources = self.task.hub.sources.borrow_mut();
        sources.free.push(self.place);
    }
}

impl<S: AsFd + AsRawFd> Read for Socket<'_, '_, S>
where
    for<'a> &'a S: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.when_ready(Direction::Read, |mut socket| socket.read(buffer))
    }
}

impl<S: AsFd + AsRawFd> Write for Socket<'_, '_, S>
where
    for<'a> &'a S: Write,
{
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.when_ready(Direction::Write, |mut socket| socket.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket<'_, '_, TcpStream> {
    pub fn shut_down_writing(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

impl<'t, 'e> Socket<'t, 'e, TcpStream> {
    /// Connects to a server until `deadline`, which the socket keeps.
    pub fn connect(
        task: Task<'t, 'e>,
        server: SocketAddr,
        deadline: Option<Instant>,
    ) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&server.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other?,
        }
        let mut connected = Self::new(task, Rc::new(socket.into()))?;
        connected.set_deadline(deadline);
        connected.when_ready(Direction::Write, |stream| {
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            match stream.peer_addr() {
                Err(error) if error.kind() == ErrorKind::NotConnected => {
                    Err(ErrorKind::WouldBlock.into())
                }
                other => other.map(drop),
            }
        })?;
        Ok(connected)
    }
}

impl Socket<'_, '_, TcpListener> {
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.when_ready(Direction::Read, TcpListener::accept)
    }
}
