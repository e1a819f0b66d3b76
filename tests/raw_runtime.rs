//! A runtime on the raw layer, as a user would write it, that tells developers' tools about its stacks.
//! `ci/tools.sh` runs it under AddressSanitizer, ThreadSanitizer and Valgrind.

#![cfg(not(miri))]

use std::{cell::RefCell, hint::black_box, mem::MaybeUninit, panic};

use greenlet::raw::{Context, Departure, Message, Pool, PooledStack, ToolsFiber};

/// A context, the tools' data of it, and the function that it runs.
struct Task {
    context: Context,
    fiber: ToolsFiber,
    work: fn(&Task, usize) -> usize,
}

thread_local! {
    static MAIN: Task = const { Task::new(|_, _| unreachable!()) };
    static POOL: RefCell<Pool> = const { RefCell::new(Pool::new()) };
}

const GOES_ON: usize = 0;
const IS_OVER: usize = 1;

impl Task {
    const fn new(work: fn(&Self, usize) -> usize) -> Self {
        Self {
            context: Context::new(),
            fiber: ToolsFiber::new(),
            work,
        }
    }

    /// Prepares it on a stack of the pool.
    fn prepare(&self) -> PooledStack {
        let stack = POOL.with_borrow_mut(|pool| pool.take(64 * 1024, 4096));
        let stack = stack.expect("there is memory");
        MAIN.with(|main| {
            // SAFETY: main lives as long as the thread; the stack is this task's own, and the task
            // stays where it is until it is over (`run`).
            unsafe {
                self.context.set_parent(&raw const main.context);
                self.context
                    .prepare(stack.top(), start, (&raw const *self).cast_mut().cast());
                self.fiber.prepare(stack.limits());
            }
        });
        stack
    }

    /// Suspends this task, which runs, and resumes `to`.
    #[inline(always)]
    fn switch(&self, to: &Self, word: usize) -> Message {
        let message = Message {
            word: MaybeUninit::new(word),
            kind: GOES_ON,
        };
        // SAFETY: the callers': main switches to tasks that are not over, tasks to main.
        unsafe {
            self.fiber.leave(&to.fiber);
            let message = self.context.switch(&to.context, message);
            self.fiber.arrive();
            message
        }
    }
}

/// Returns the word of a message.
fn word(message: Message) -> usize {
    // SAFETY: all that is sent here has one.
    unsafe { message.word.assume_init() }
}

unsafe extern "C" fn start(
    me: *mut (),
    word: MaybeUninit<usize>,
    _: usize,
    departure: *mut Departure,
) {
    // SAFETY: the argument is the task (`prepare`); the first message has a word; `departure` may be
    // written.
    unsafe {
        let me = &*me.cast::<Task>();
        me.fiber.arrive_at_bottom();
        let result = (me.work)(me, word.assume_init());
        MAIN.with(|main| {
            me.fiber.leave_for_ever(&main.fiber);
            departure.write(Departure {
                to: MaybeUninit::new(&raw const main.context),
                message: MaybeUninit::new(Message {
                    word: MaybeUninit::new(result),
                    kind: IS_OVER,
                }),
            });
        });
    }
}

/// Waits for a word below a number of frames with locals, and adds them up on the way back.
#[inline(never)]
fn wait_below(me: &Task, frames: usize, reply: usize) -> usize {
    let local = black_box([frames; 32]);
    let received = match frames {
        0 => MAIN.with(|main| word(me.switch(main, reply))),
        _ => wait_below(me, frames - 1, reply),
    };
    received + black_box(local)[frames % 32]
}

/// Waits, catches a panic from some frames below, and waits again.
fn wait_and_unwind(me: &Task, first: usize) -> usize {
    let second = wait_below(me, 10, first);
    let caught = panic::catch_unwind(|| throw_below(10, second));
    let third = *caught.expect_err("it unwinds").downcast::<usize>().unwrap();
    wait_below(me, 20, third)
}

#[inline(never)]
fn throw_below(frames: usize, payload: usize) {
    let local = black_box([frames; 32]);
    match frames {
        0 => panic::resume_unwind(Box::new(payload)),
        _ => throw_below(frames - 1, payload),
    }
    black_box(&local);
}

#[test]
fn sanitizers_follow_a_runtime_on_the_raw_layer() {
    MAIN.with(|main| {
        // The second round reuses the stacks of the first.
        for _ in 0..2 {
            let tasks: Vec<_> = (0..3).map(|_| Task::new(wait_and_unwind)).collect();
            let stacks: Vec<_> = tasks.iter().map(Task::prepare).collect();
            // Each adds its frames' numbers, 0 to 10 and then 0 to 20.
            for sent in [1, 100, 1_000] {
                for task in &tasks {
                    let reply = main.switch(task, sent);
                    let (expected, kind) = match sent {
                        1 => (1, GOES_ON),
                        100 => (100 + 55, GOES_ON),
                        _ => (1_000 + 210, IS_OVER),
                    };
                    assert_eq!((word(reply), reply.kind), (expected, kind));
                }
            }
            POOL.with_borrow_mut(|pool| {
                for stack in stacks {
                    // SAFETY: its task is over.
                    unsafe { pool.give_back(stack) };
                }
            });
        }
    });
}
