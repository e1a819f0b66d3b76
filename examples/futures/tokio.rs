//! Functions that wait for tokio's futures. Tests that need no runtime are in tests/future.rs.

use std::{
    cell::{Cell, RefCell},
    ffi::{c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    ptr,
    rc::Rc,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use greenlet::{Awaiter, Builder, Cancelled, Current, Generator, Root, Stackful, Unscoped, enter};
use tokio::{
    join, runtime, select,
    sync::{mpsc, oneshot},
    task::{self, LocalSet, yield_now},
    time::{self, sleep, timeout},
};

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// A runtime with one thread, whose clock advances only when all tasks wait for it.
fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(future)
}

/// Runs `future` in a `LocalSet`, with a greenlet that makes `'static` futures.
fn run_local<R>(future: impl AsyncFnOnce(&Current<'static, ()>) -> R) -> R {
    // SAFETY: no greenlet here is suspended in a closure that was lent a thread-local's value.
    let unscoped = unsafe { Unscoped::new() };
    unscoped.enter(|me: &Current<()>| block_on(LocalSet::new().run_until(future(me))))
}

/// Adds to a list when it is dropped.
struct Logged<'a>(&'a RefCell<Vec<&'static str>>, &'static str);

impl Drop for Logged<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

/// Waits for a time, and returns it.
fn sleeper<'e>(me: &Current<'e, ()>, duration: Duration) -> Stackful<'e, Duration> {
    Stackful::new(me, move |awaiter| {
        awaiter.wait(sleep(duration));
        duration
    })
}

#[test]
fn two_thousand_tasks_of_a_local_set() {
    const TASKS: u64 = 2_000;
    let sum = run_local(async |me| {
        let mut tasks = task::JoinSet::new();
        for n in 0..TASKS {
            let builder = Builder::new().stack_size(64 * 1024);
            let counts = Stackful::build(builder, me, move |awaiter| {
                for _ in 0..n % 5 {
                    awaiter.wait(yield_now());
                }
                n
            });
            tasks.spawn_local(counts.unwrap());
        }
        tasks.join_all().await.iter().sum::<u64>()
    });
    assert_eq!(sum, (0..TASKS).sum());
}

#[test]
fn joined_from_outside_and_inside() {
    enter(|me: &Root<()>| {
        let both = block_on(async { join!(sleeper(me, LONG), sleeper(me, SHORT)) });
        assert_eq!(both, (LONG, SHORT));
        let inside = Stackful::new(me, |awaiter| {
            awaiter.wait(async { join!(sleeper(awaiter, LONG), sleep(SHORT)) })
        });
        assert_eq!(block_on(inside).0, LONG);
    });
}

#[test]
fn selected_from_outside_and_inside() {
    fn slow<'e>(me: &Current<'e, ()>, log: &'e RefCell<Vec<&'static str>>) -> Stackful<'e, ()> {
        Stackful::new(me, move |awaiter| {
            let _dropped = Logged(log, "slow");
            awaiter.wait(sleep(LONG));
        })
    }
    let log = &RefCell::default();
    enter(|me: &Root<()>| {
        block_on(async {
            select! {
                () = slow(me, log) => unreachable!("it is slower"),
                duration = sleeper(me, SHORT) => assert_eq!(duration, SHORT),
            }
        });
        assert_eq!(log.take(), ["slow"]);
        block_on(Stackful::new(me, move |awaiter| {
            awaiter.wait(async {
                select! {
                    () = slow(awaiter, log) => unreachable!("it is slower"),
                    () = sleep(SHORT) => {}
                }
            });
            assert_eq!(log.take(), ["slow"]);
        }));
    });
}

#[test]
fn a_timeout_outside_ends_the_function_and_one_inside_the_wait() {
    let log = RefCell::default();
    enter(|me: &Root<()>| {
        let slow = Stackful::new(me, |awaiter| {
            let _dropped = Logged(&log, "a local");
            awaiter.wait(sleep(FOR_EVER));
        });
        assert!(block_on(async { timeout(SHORT, slow).await }).is_err());
        assert_eq!(log.take(), ["a local"]);

        let patient = Stackful::new(me, |awaiter| {
            let mut timeouts = 0;
            // Called as a library calls back.
            (1..=3).for_each(|n| {
                let wait = async { timeout(Duration::from_millis(1_500), sleep(n * SHORT)).await };
                timeouts += u32::from(awaiter.wait(wait).is_err());
            });
            timeouts
        });
        assert_eq!(block_on(patient), 2);
    });
}

#[test]
fn an_aborted_task_and_a_dropped_local_set_end_their_functions() {
    let log = Rc::<RefCell<Vec<_>>>::default();
    run_local(async |me| {
        let waits = |name| {
            let log = Rc::clone(&log);
            Stackful::new(me, move |awaiter| {
                let _dropped = Logged(&log, name);
                awaiter.wait(sleep(FOR_EVER));
            })
        };
        let aborted = task::spawn_local(waits("aborted"));
        task::spawn_local(waits("left"));
        yield_now().await;
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        assert_eq!(log.take(), ["aborted"]);
    });
    assert_eq!(log.take(), ["left"]);
}

#[test]
fn a_panic_is_the_tasks_own() {
    run_local(async |me| {
        let panics = task::spawn_local(Stackful::new(me, |awaiter| {
            awaiter.wait(yield_now());
            panic!("of a task");
        }));
        let goes_on = task::spawn_local(sleeper(me, SHORT));
        let panic: Result<(), _> = panics.await;
        let payload = panic.unwrap_err().into_panic();
        assert_eq!(payload.downcast_ref(), Some(&"of a task"));
        assert_eq!(goes_on.await.unwrap(), SHORT);
    });
}

#[test]
fn a_function_spawns_others_and_waits_for_them() {
    run_local(async |me| {
        let outer = Stackful::new(me, |awaiter| {
            let tasks = [LONG, SHORT].map(|duration| task::spawn_local(sleeper(awaiter, duration)));
            tasks.map(|task| awaiter.wait(task).unwrap())
        });
        assert_eq!(task::spawn_local(outer).await.unwrap(), [LONG, SHORT]);
    });
}

#[test]
fn a_function_talks_with_async_code() {
    enter(|me: &Root<()>| {
        let (questions, mut asked) = mpsc::channel::<(u32, oneshot::Sender<u32>)>(1);
        let doubles = async {
            while let Some((n, answer)) = asked.recv().await {
                answer.send(2 * n).unwrap();
            }
        };
        let asks = Stackful::new(me, move |awaiter| {
            // The iterator is plain code.
            (1..=3)
                .map(|n| {
                    let (sender, answer) = oneshot::channel();
                    awaiter.wait(questions.send((n, sender))).unwrap();
                    awaiter.wait(answer).unwrap()
                })
                .collect::<Vec<_>>()
        });
        let (answers, ()) = block_on(async { join!(asks, doubles) });
        assert_eq!(answers, [2, 4, 6]);
    });
}

#[test]
fn is_woken_by_threads_and_by_workers() {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    enter(|me: &Root<()>| {
        let sums = Stackful::new(me, |awaiter| {
            let (sender, mut numbers) = mpsc::unbounded_channel();
            let feeder = thread::spawn(move || (1..=100).try_for_each(|n| sender.send(n)));
            let mut sum = 0;
            while let Some(n) = awaiter.wait(numbers.recv()) {
                sum += awaiter.wait(task::spawn(async move { n })).unwrap();
                sum += awaiter.wait(task::spawn_blocking(|| 1)).unwrap();
            }
            feeder.join().unwrap().unwrap();
            sum
        });
        assert_eq!(runtime.block_on(sums), 5050 + 100);
    });
}

#[test]
fn borrows_what_outlives_its_enter() {
    let text = String::from("to be or not");
    let mut lengths = Vec::new();
    enter(|me: &Root<()>| {
        let words = Stackful::new(me, |awaiter| {
            for word in text.split(' ') {
                awaiter.wait(sleep(SHORT));
                lengths.push(word.len());
            }
        });
        block_on(async { join!(words, sleep(LONG)) });
    });
    assert_eq!(lengths, [2, 2, 2, 3]);
}

#[test]
fn borrows_end_with_a_panic_a_drop_and_a_forgotten_one() {
    let log = RefCell::default();
    let caught = catch_unwind(AssertUnwindSafe(|| {
        enter(|me: &Root<()>| {
            let waits = |name| {
                let log = &log;
                Stackful::new(me, move |awaiter| {
                    let _dropped = Logged(log, name);
                    awaiter.wait(sleep(FOR_EVER));
                })
            };
            let [mut dropped, mut forgotten, mut left] =
                ["dropped", "forgotten", "left"].map(waits);
            block_on(async {
                select! {
                    () = &mut dropped => {}
                    () = &mut forgotten => {}
                    () = &mut left => {}
                    () = sleep(SHORT) => {}
                }
            });
            drop(dropped);
            assert_eq!(log.take(), ["dropped"]);
            std::mem::forget(forgotten);
            panic!("out of `enter`, which `left` is in");
        })
    }));
    assert!(caught.is_err());
    assert_eq!(log.take(), ["left", "forgotten"]);
}

#[test]
fn task_locals_are_those_of_each_poll() {
    tokio::task_local!(static NUMBER: u32);
    enter(|me: &Root<()>| {
        let reads = || {
            Stackful::new(me, |awaiter| {
                let before = NUMBER.get();
                awaiter.wait(sleep(SHORT));
                (before, NUMBER.get())
            })
        };
        let both = async { join!(NUMBER.scope(1, reads()), NUMBER.scope(2, reads())) };
        assert_eq!(block_on(both), ((1, 1), (2, 2)));
    });
}

#[test]
fn one_that_only_waits_for_what_is_ready_lets_others_run() {
    run_local(async |me| {
        let done = Rc::new(Cell::new(false));
        let told = Rc::clone(&done);
        let (sender, mut numbers) = mpsc::unbounded_channel();
        let greedy = task::spawn_local(Stackful::new(me, move |awaiter| {
            // Tokio sometimes makes ready futures pending (its cooperative budget).
            while !told.get() {
                sender.send(()).unwrap();
                awaiter.wait(numbers.recv()).unwrap();
            }
        }));
        task::spawn_local(async move { done.set(true) });
        greedy.await.unwrap();
    });
}

/// The argument of the C callback.
struct Sorting<'a, 'e> {
    awaiter: &'a Awaiter<'a, 'e>,
    cancelled: Cell<bool>,
    compared: &'a Cell<u32>,
}

thread_local! {
    static SORTING: Cell<*const c_void> = const { Cell::new(ptr::null()) };
}

/// Called by `qsort`, which must not be unwound.
unsafe extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
    let sorting = SORTING.get();
    {
        // SAFETY: set below, just before C went on, and there until it returns.
        let sorting = unsafe { &*sorting.cast::<Sorting<'_, '_>>() };
        sorting.compared.set(sorting.compared.get() + 1);
        if sorting.awaiter.try_wait(sleep(SHORT)) == Err(Cancelled) {
            sorting.cancelled.set(true);
        }
    }
    // Other sorts have run meanwhile.
    SORTING.set(sorting);
    // SAFETY: two of the numbers that are sorted.
    unsafe { (*a.cast::<i32>()).cmp(&*b.cast()) as c_int }
}

fn sort(awaiter: &Awaiter<'_, '_>, compared: &Cell<u32>) -> Result<[i32; 5], Cancelled> {
    let mut numbers = [5, 3, 9, 1, 7];
    let sorting = Sorting {
        awaiter,
        cancelled: Cell::new(false),
        compared,
    };
    SORTING.set(ptr::from_ref(&sorting).cast());
    // SAFETY: the slice is what is described, and the callback does not unwind.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 5, 4, Some(compare)) };
    if sorting.cancelled.get() {
        return Err(Cancelled);
    }
    Ok(numbers)
}

#[test]
fn callbacks_of_c_wait_at_a_time_and_return_when_they_are_cancelled() {
    let compared = [const { Cell::new(0) }; 3];
    let outcome = Cell::new(None);
    enter(|me: &Root<()>| {
        let [first, second] = [&compared[0], &compared[1]]
            .map(|compared| Stackful::new(me, |awaiter| sort(awaiter, compared)));
        let both = block_on(async { join!(first, second) });
        assert_eq!(both, (Ok([1, 3, 5, 7, 9]), Ok([1, 3, 5, 7, 9])));

        let cancelled = Stackful::new(me, |awaiter| {
            outcome.set(Some(sort(awaiter, &compared[2])));
        });
        let patience = Duration::from_millis(2_500);
        assert!(block_on(async { timeout(patience, cancelled).await }).is_err());
    });
    assert_eq!(outcome.get(), Some(Err(Cancelled)));
    // The third wait was cancelled, and each later one returns that at once.
    assert_eq!(compared[2], compared[0]);
}

#[test]
fn generators_run_between_waits_and_end_with_the_function() {
    let log = RefCell::default();
    enter(|me: &Root<()>| {
        let waits = Stackful::new(me, |awaiter| {
            let numbers = Generator::new(awaiter, |yielder, ()| {
                let _dropped = Logged(&log, "generator");
                (1..).try_for_each(|n| yielder.give(n))
            });
            for n in numbers {
                awaiter.wait(sleep(n * SHORT));
            }
        });
        assert!(block_on(async { timeout(LONG, waits).await }).is_err());
    });
    assert_eq!(log.take(), ["generator"]);
}

#[test]
fn a_clock_that_is_polled_by_hand_goes_on_in_a_function() {
    enter(|me: &Root<()>| {
        let mut function = sleeper(me, SHORT);
        block_on(async {
            let polled = Pin::new(&mut function).poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Pending);
            // From here on polled with another task's waker.
            let started = time::Instant::now();
            pin!(function).await;
            assert_eq!(started.elapsed(), SHORT);
        });
    });
}
