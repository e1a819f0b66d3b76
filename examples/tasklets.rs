//! Tasklets and channels, as Stackless Python has them, with a round-robin scheduler:
//!
//! ```text
//! cargo run --release --example tasklets -- [COUNT]
//! ```
//!
//! COUNT tasklets (default: 100,000) take turns. Then they pass a number along a chain of as many channels, and
//! each adds one.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    io::{self, Write},
    process::ExitCode,
    rc::Rc,
};

use greenlet::{Builder, Current, Greenlet, Thrown, WeakGreenlet, enter};
use lexopt::{Arg, Parser};

const USAGE: &str = "\
Usage: tasklets [COUNT]

COUNT tasklets (default: 100000) take turns, and then pass a number along a chain of as
many channels, each adding one.
";

/// The stack size of a tasklet, bytes. Tasklets call little, so the minimum suffices.
const STACK: usize = Builder::MIN_STACK_SIZE;

/// The tasklets of a thread. The main greenlet is their parent: it runs the next tasklet when one has finished,
/// or when all others wait.
struct Scheduler<'e> {
    main: Greenlet<'e, ()>,
    /// Keeps tasklets alive. Queues do not, so tasklets cannot keep themselves or each other alive.
    tasklets: RefCell<HashMap<u64, Greenlet<'e, ()>>>,
    started: Cell<u64>,
    runnable: Queue<'e, ()>,
}

/// A queue of tasklets, each with a value.
type Queue<'e, T> = RefCell<VecDeque<(WeakGreenlet<'e, ()>, T)>>;

fn put<'e, T>(queue: &Queue<'e, T>, tasklet: &Greenlet<'e, ()>, with: T) {
    queue.borrow_mut().push_back((tasklet.downgrade(), with));
}

/// Takes the first tasklet that was not killed.
fn take<'e, T>(queue: &Queue<'e, T>) -> Option<(Greenlet<'e, ()>, T)> {
    let mut queue = queue.borrow_mut();
    std::iter::from_fn(|| queue.pop_front())
        .find_map(|(tasklet, with)| Some((tasklet.upgrade()?, with)))
}

/// The running tasklet, as its body receives it.
struct Tasklet<'a, 'e> {
    me: &'a Current<'e, ()>,
    scheduler: &'a Scheduler<'e>,
}

impl<'e> Scheduler<'e> {
    fn new(me: &Current<'e, ()>) -> Rc<Self> {
        Rc::new(Self {
            main: me.handle(),
            tasklets: RefCell::default(),
            started: Cell::new(0),
            runnable: Queue::default(),
        })
    }

    /// Makes a tasklet and puts it at the end of the queue.
    fn spawn(
        self: &Rc<Self>,
        me: &Current<'e, ()>,
        body: impl FnOnce(&Tasklet<'_, 'e>) -> Result<(), Thrown> + 'e,
    ) -> Result<(), Thrown> {
        let id = self.started.replace(self.started.get() + 1);
        let scheduler = Rc::clone(self);
        let tasklet = Builder::new().stack_size(STACK).build(me, move |me, ()| {
            let scheduler = &*scheduler;
            let outcome = body(&Tasklet { me, scheduler });
            scheduler.tasklets.borrow_mut().remove(&id);
            outcome
        })?;
        tasklet.set_parent(&self.main)?;
        put(&self.runnable, &tasklet, ());
        self.tasklets.borrow_mut().insert(id, tasklet);
        Ok(())
    }

    /// Runs the tasklets until all have finished, or one fails. The others are then killed.
    fn run(&self, me: &Current<'e, ()>) -> Result<(), Thrown> {
        let mut outcome = Ok(());
        while let (Ok(()), Some((next, ()))) = (&outcome, take(&self.runnable)) {
            outcome = me.switch(&next, ());
        }
        let left = self.tasklets.take();
        if outcome.is_ok() && !left.is_empty() {
            let deadlock = format!("deadlock: {} tasklets wait for each other", left.len());
            return Err(io::Error::other(deadlock).into());
        }
        outcome
    }
}

impl<'e> Tasklet<'_, 'e> {
    /// Lets the other tasklets run (`stackless.schedule`).
    fn schedule(&self) -> Result<(), Thrown> {
        self.wait_in(&self.scheduler.runnable, ())
    }

    /// Runs the others until one of them takes this one out of the queue and makes it runnable.
    fn wait_in<T>(&self, queue: &Queue<'e, T>, with: T) -> Result<(), Thrown> {
        put(queue, &self.me.handle(), with);
        match take(&self.scheduler.runnable) {
            Some((next, ())) => self.me.switch(&next, ()),
            None => self.me.switch(&self.scheduler.main, ()),
        }
    }
}

/// Passes values from tasklet to tasklet. The first of the two waits for the other.
struct Channel<'e, T> {
    senders: Queue<'e, T>,
    receivers: Queue<'e, Rc<Cell<Option<T>>>>,
}

impl<'e, T> Channel<'e, T> {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            senders: Queue::default(),
            receivers: Queue::default(),
        })
    }

    fn send(&self, tasklet: &Tasklet<'_, 'e>, value: T) -> Result<(), Thrown> {
        let Some((receiver, slot)) = take(&self.receivers) else {
            return tasklet.wait_in(&self.senders, value);
        };
        slot.set(Some(value));
        put(&tasklet.scheduler.runnable, &receiver, ());
        Ok(())
    }

    fn receive(&self, tasklet: &Tasklet<'_, 'e>) -> Result<T, Thrown> {
        if let Some((sender, value)) = take(&self.senders) {
            put(&tasklet.scheduler.runnable, &sender, ());
            return Ok(value);
        }
        let slot = Rc::default();
        tasklet.wait_in(&self.receivers, Rc::clone(&slot))?;
        Ok(slot.take().expect("who has this run leaves a value"))
    }
}

fn demonstrate(me: &Current<()>, count: usize) -> Result<(), Thrown> {
    let scheduler = Scheduler::new(me);

    // Each takes three turns: all tasklets their first turn, then all their second …
    let turns = Rc::new(RefCell::new(Vec::with_capacity(3 * count)));
    for number in 0..count {
        let turns = Rc::clone(&turns);
        scheduler.spawn(me, move |tasklet| {
            (0..3).try_for_each(|_| {
                turns.borrow_mut().push(number);
                tasklet.schedule()
            })
        })?;
    }
    scheduler.run(me)?;
    let in_turn = turns.take().into_iter().eq((0..3).flat_map(|_| 0..count));
    writeln!(
        io::stdout(),
        "{count} tasklets took 3 turns each, in order: {in_turn}"
    )?;

    // Each waits for the tasklet that is made after it. The last one sends the number.
    let first = Channel::new();
    let mut channel = Rc::clone(&first);
    for _ in 0..count {
        let (to, from) = (channel, Channel::new());
        channel = Rc::clone(&from);
        scheduler.spawn(me, move |tasklet| {
            let number: usize = from.receive(tasklet)?;
            to.send(tasklet, number + 1)
        })?;
    }
    scheduler.spawn(me, move |tasklet| channel.send(tasklet, 0))?;
    scheduler.spawn(me, move |tasklet| {
        let number = first.receive(tasklet)?;
        writeln!(io::stdout(), "0 became {number} on its way")?;
        Ok(())
    })?;
    scheduler.run(me)
}

/// Returns the number of tasklets; `None` if help was asked for.
fn count() -> Result<Option<usize>, lexopt::Error> {
    let mut count = None;
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(value) if count.is_none() => {
                let number = value.to_str().and_then(|value| value.parse().ok());
                count = Some(number.ok_or_else(|| format!("COUNT is a number, not {value:?}"))?);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(count.unwrap_or(100_000)))
}

fn main() -> ExitCode {
    let count = match count() {
        Ok(Some(count)) => count,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("tasklets: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match enter(|me| demonstrate(me, count)) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed it.
        Err(thrown) if is_broken_pipe(&thrown) => ExitCode::SUCCESS,
        Err(thrown) => {
            eprintln!("tasklets: {thrown}");
            ExitCode::FAILURE
        }
    }
}

/// Returns `true` if the output was closed by its reader.
fn is_broken_pipe(thrown: &Thrown) -> bool {
    thrown
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
