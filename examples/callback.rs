//! Ranks things by questions to the user, with the C library's `qsort`:
//!
//! ```text
//! cargo run --example callback -- apple pear plum
//! ```
//!
//! `qsort` calls back for each comparison and needs the answer from that call. Here the callback runs in a
//! greenlet and waits, in the middle of `qsort`, while the main greenlet asks the user. So a library with
//! callbacks becomes an iterator over its questions, and several sorts can be in progress on one thread.
//!
//! A stackless coroutine cannot do that. It waits by saving its state and returning to its caller. So it would
//! have to return through the frames of `qsort`, which hold the state of the sort and cannot save it. A
//! greenlet leaves these frames on its stack.
//!
//! These frames must not be unwound: that C code is not made for it. When the greenlet is being killed, the
//! callback does not panic. It keeps the error, answers the remaining questions itself, and so lets `qsort`
//! return; then the body returns the error. (If the exit were ignored, a later `switch` would unwind, and Rust
//! aborts the process when a panic would leave an `extern "C"` function.)

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    ffi::{c_int, c_void},
    io::{self, BufRead, Write},
    process::ExitCode,
    ptr,
};

use greenlet::{Child, Current, Greenlet, Thrown, enter};
use lexopt::{Arg, Parser};

const USAGE: &str = "\
Usage: callback [THING...]

Ranks up to 1000 THINGs: asks on standard output which of two goes first, and reads 1
or 2 from standard input. Without a THING it sorts some words by itself, in two ways at once.
A THING that begins with a dash goes after `--`.
";

/// The message of a sort to the main greenlet.
enum Message {
    /// The question which of the two comes first.
    Question(usize, usize),
    /// The resulting order.
    Sorted(Vec<usize>),
}

/// A sort of the numbers below a limit, which asks for each comparison.
struct Sort<'e> {
    greenlet: Greenlet<'e, Ordering>,
}

impl<'e> Sort<'e> {
    fn new(me: &Current<'e, Message>, count: usize) -> Self {
        let greenlet = Greenlet::new(me, move |me, _start| {
            let mut numbers: Vec<usize> = (0..count).collect();
            let questions = Questions {
                me,
                answers: RefCell::new(vec![Vec::new(); count]),
                thrown: Cell::new(None),
            };
            questions.sort(&mut numbers);
            match questions.thrown.take() {
                None => Ok(Message::Sorted(numbers)),
                Some(thrown) => {
                    writeln!(io::stdout(), "qsort has returned, with answers made up")?;
                    Err(thrown)
                }
            }
        });
        Self { greenlet }
    }

    /// Runs until the first question.
    fn start(&self, me: &Current<Message>) -> Result<Message, Thrown> {
        me.switch(&self.greenlet, Ordering::Equal)
    }

    /// Answers the last question, and runs until the next one.
    fn answer(&self, me: &Current<Message>, order: Ordering) -> Result<Message, Thrown> {
        me.switch(&self.greenlet, order)
    }
}

/// The callback's side of a sort.
struct Questions<'a, 'e> {
    me: &'a Child<'e, Ordering, Message>,
    /// For each number, the numbers that are known to come after it.
    answers: RefCell<Vec<Vec<usize>>>,
    /// The error that was thrown at the greenlet. It asks no more questions.
    thrown: Cell<Option<Thrown>>,
}

greenlet::local! {
    /// The questions of the sort in this greenlet: `qsort` passes no argument on to its callback.
    static QUESTIONS: Cell<*const Questions<'static, 'static>> = Cell::new(ptr::null());
}

impl Questions<'_, '_> {
    fn sort(&self, numbers: &mut [usize]) {
        QUESTIONS.with(|questions| questions.set(ptr::from_ref(self).cast()));
        // SAFETY: the arguments describe the slice. The callback reads two of its items, and neither
        // unwinds nor contradicts itself. While it waits, nothing else can access the slice.
        unsafe {
            libc::qsort(
                numbers.as_mut_ptr().cast(),
                numbers.len(),
                size_of::<usize>(),
                Some(compare),
            );
        }
        QUESTIONS.with(|questions| questions.set(ptr::null()));
    }

    /// Compares two numbers. In C, contradicting answers are undefined behaviour, so it does not ask for what follows
    /// from earlier answers.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        if self.is_known_before(a, b) {
            return Ordering::Less;
        }
        if self.is_known_before(b, a) {
            return Ordering::Greater;
        }
        let order = self.ask(a, b);
        let (first, second) = if order.is_le() { (a, b) } else { (b, a) };
        self.answers.borrow_mut()[first].push(second);
        order
    }

    fn is_known_before(&self, a: usize, b: usize) -> bool {
        let answers = self.answers.borrow();
        let mut seen = vec![false; answers.len()];
        let mut to_visit = vec![a];
        while let Some(number) = to_visit.pop() {
            if number == b {
                return true;
            }
            if !std::mem::replace(&mut seen[number], true) {
                to_visit.extend(&answers[number]);
            }
        }
        false
    }

    /// Waits for an answer, in the middle of the C library. If this greenlet is being killed, it invents one.
    fn ask(&self, a: usize, b: usize) -> Ordering {
        let thrown = self.thrown.take();
        if thrown.is_some() {
            self.thrown.set(thrown);
            return Ordering::Less;
        }
        match self.me.switch_to_parent(Message::Question(a, b)) {
            Ok(Ordering::Greater) => Ordering::Greater,
            Ok(_) => Ordering::Less,
            Err(thrown) => {
                self.thrown.set(Some(thrown));
                Ordering::Less
            }
        }
    }
}

/// The callback of `qsort`.
///
/// # Safety
/// Called by the `qsort` of [`Questions::sort`], with pointers to two of its numbers.
unsafe extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
    // SAFETY: the contract. Each greenlet has a value of its own, so these are the questions
    // whose `sort` is further down on this stack.
    let (questions, a, b) = unsafe {
        let questions = &*QUESTIONS.with(Cell::get);
        (questions, *a.cast(), *b.cast())
    };
    questions.compare(a, b) as c_int
}

/// Asks the user. Returns `false` if the user did not answer every question.
fn rank(things: &[String]) -> Result<bool, Thrown> {
    let mut lines = io::stdin().lock().lines();
    let mut out = io::stdout().lock();
    enter(|me| {
        let sort = Sort::new(me, things.len());
        let mut message = sort.start(me)?;
        loop {
            let (a, b) = match message {
                Message::Question(a, b) => (a, b),
                Message::Sorted(order) => {
                    for (place, number) in order.into_iter().enumerate() {
                        writeln!(out, "{}. {}", place + 1, things[number])?;
                    }
                    return Ok(true);
                }
            };
            writeln!(out, "1: {}, or 2: {}?", things[a], things[b])?;
            out.flush()?;
            let order = match lines.next().transpose()?.as_deref().map(str::trim) {
                Some("1") => Ordering::Less,
                Some("2") => Ordering::Greater,
                Some(_) => {
                    message = Message::Question(a, b);
                    continue;
                }
                None => {
                    writeln!(out, "no more answers")?;
                    me.kill(&sort.greenlet).expect("it is suspended");
                    return Ok(false);
                }
            };
            message = sort.answer(me, order)?;
        }
    })
}

/// Alternates between two sorts that are in the middle of `qsort`, and kills a third one there.
fn demonstrate() -> Result<(), Thrown> {
    type Order = fn(&&str, &&str) -> Ordering;
    const WORDS: [&str; 7] = [
        "pear",
        "fig",
        "banana",
        "kiwi",
        "apple",
        "plum",
        "blackberry",
    ];
    const BY_NAME: Order = |a, b| a.cmp(b);
    const BY_LENGTH: Order = |a, b| a.len().cmp(&b.len()).then(a.cmp(b));

    enter(|me| {
        let mut under_way = Vec::new();
        for (name, order) in [("by name", BY_NAME), ("by length", BY_LENGTH)] {
            let sort = Sort::new(me, WORDS.len());
            let first = sort.start(me)?;
            under_way.push((name, order, sort, first));
        }
        while !under_way.is_empty() {
            let mut left = Vec::new();
            for (name, order, sort, message) in under_way {
                match message {
                    Message::Question(a, b) => {
                        let next = sort.answer(me, order(&WORDS[a], &WORDS[b]))?;
                        left.push((name, order, sort, next));
                    }
                    Message::Sorted(numbers) => {
                        let words: Vec<_> = numbers.iter().map(|&n| WORDS[n]).collect();
                        writeln!(io::stdout(), "{name}: {}", words.join(" "))?;
                    }
                }
            }
            under_way = left;
        }

        let sort = Sort::new(me, WORDS.len());
        let Message::Question(..) = sort.start(me)? else {
            unreachable!("seven words cannot be sorted without a question");
        };
        writeln!(io::stdout(), "killed in the callback:")?;
        me.kill(&sort.greenlet).expect("it is suspended");
        writeln!(io::stdout(), "dead: {}", sort.greenlet.is_dead())?;
        Ok(())
    })
}

/// Returns the things to rank; `None` if help was asked for.
fn things() -> Result<Option<Vec<String>>, lexopt::Error> {
    let mut things = Vec::new();
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            // Bytes that are no text are replaced.
            Arg::Value(thing) => things.push(thing.to_string_lossy().into_owned()),
            option => return Err(option.unexpected()),
        }
    }
    match things.len() {
        0..=1000 => Ok(Some(things)),
        count => Err(format!("{count} things are too many").into()),
    }
}

fn main() -> ExitCode {
    let outcome = match things() {
        Ok(Some(things)) if things.is_empty() => demonstrate().map(|()| true),
        Ok(Some(things)) => rank(&things),
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("callback: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader of the output has closed it.
        Err(thrown) if is_broken_pipe(&thrown) => ExitCode::SUCCESS,
        Err(thrown) => {
            eprintln!("callback: {thrown}");
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
