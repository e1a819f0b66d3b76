//! `Stackful` futures: values, wakers, cancellation, panics, nesting, and frames of C in between.

use std::{
    cell::{Cell, RefCell},
    ffi::{c_int, c_void},
    future::{self, Future, poll_fn},
    mem,
    pin::{Pin, pin},
    ptr,
    rc::Rc,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker},
    thread,
};

use greenlet::{
    Awaiter, Builder, Cancelled, Current, Generator, Greenlet, GreenletExit, Root, Stackful, enter,
};

use crate::support::{
    assert_child_exit,
    census::{Census, Token},
    log::{Log, on_drop},
    panics::{catch, panic_text, quietly, text_of},
    unscoped,
};

/// Polls `future` until it is ready; sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    #[derive(Default)]
    struct Parker(Mutex<bool>, Condvar);
    impl Wake for Parker {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }
    }
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(Arc::clone(&parker));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = parker.0.lock().unwrap();
        while !mem::take(&mut *woken) {
            woken = parker.1.wait(woken).unwrap();
        }
    }
}

/// Is pending so many times, and wakes its task at each.
fn later(mut polls: u32) -> impl Future<Output = ()> {
    poll_fn(move |context| {
        if polls == 0 {
            return Poll::Ready(());
        }
        polls -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Both outputs, the futures polled in turn.
async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(move |context| {
        if first.is_none() {
            if let Poll::Ready(output) = a.as_mut().poll(context) {
                first = Some(output);
            }
        }
        if second.is_none() {
            if let Poll::Ready(output) = b.as_mut().poll(context) {
                second = Some(output);
            }
        }
        if first.is_some() && second.is_some() {
            return Poll::Ready((first.take().unwrap(), second.take().unwrap()));
        }
        Poll::Pending
    })
    .await
}

/// The output of the one that is ready first; the other is dropped.
async fn race<T>(a: impl Future<Output = T>, b: impl Future<Output = T>) -> T {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(move |context| match a.as_mut().poll(context) {
        Poll::Pending => b.as_mut().poll(context),
        ready => ready,
    })
    .await
}

#[test]
fn a_value_comes_out_after_waits_in_closures_of_others() {
    let names = ["a", "b", "c"];
    enter(|me: &Root<()>| {
        let upper = Stackful::new(me, |awaiter| {
            names.map(|name| {
                awaiter.wait(later(2));
                name.to_uppercase()
            })
        });
        assert_eq!(block_on(upper), ["A", "B", "C"]);
    });
}

#[test]
fn outputs_of_futures_arrive_and_ready_ones_do_not_suspend() {
    enter(|me: &Root<()>| {
        let mut sum = Stackful::new(me, |awaiter| {
            awaiter.wait(async { 1 }) + awaiter.wait(future::ready(2))
        });
        assert_eq!(poll_once(&mut sum), Poll::Ready(3));
    });
}

#[test]
fn many_wait_at_a_time() {
    const TASKS: u32 = if cfg!(miri) { 10 } else { 200 };
    enter(|me: &Root<()>| {
        let tasks = (0..TASKS).map(|n| {
            let builder = Builder::new().stack_size(64 * 1024);
            Stackful::build(builder, me, move |awaiter| {
                for _ in 0..n % 7 {
                    awaiter.wait(later(1));
                }
                n
            })
            .unwrap()
        });
        let mut tasks: Vec<_> = tasks.collect();
        let mut sum = 0;
        while !tasks.is_empty() {
            tasks.retain_mut(|task| match poll_once(task) {
                Poll::Ready(n) => {
                    sum += n;
                    false
                }
                Poll::Pending => true,
            });
        }
        assert_eq!(sum, (0..TASKS).sum());
    });
}

#[test]
fn drop_unwinds_the_function_without_the_panic_hook() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let mut waits = Stackful::new(me, move |awaiter| {
            let _dropped = log.at_drop("dropped");
            awaiter.wait(future::pending::<()>());
            unreachable!("it is unwound");
        });
        assert_eq!(poll_once(&mut waits), Poll::<()>::Pending);
        drop(waits);
        assert_eq!(log.take(), ["dropped"]);
    });
}

#[test]
fn try_wait_says_that_it_was_dropped_and_from_then_on_at_once() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let mut waits = Stackful::new(me, move |awaiter| {
            for _ in 0..5 {
                log.add(awaiter.try_wait(future::pending::<()>()) == Err(Cancelled));
            }
        });
        assert!(poll_once(&mut waits).is_pending());
        drop(waits);
        assert_eq!(log.take(), [true; 5]);
    });
}

#[test]
fn a_thrown_exit_unwinds_a_function_that_waits() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let (log, handle) = (&log, Rc::new(Cell::new(None)));
        let theirs = Rc::clone(&handle);
        let mut waits = Stackful::new(me, move |awaiter| {
            let _dropped = log.at_drop("dropped");
            theirs.set(Some(awaiter.handle()));
            awaiter.wait(future::pending::<()>());
            unreachable!("it is unwound");
        });
        assert_eq!(poll_once(&mut waits), Poll::<()>::Pending);
        assert_child_exit(me.throw(&handle.take().unwrap(), GreenletExit));
        assert_eq!(log.take(), ["dropped"]);
        let refused = catch(|| poll_once(&mut waits)).unwrap_err();
        assert_eq!(
            text_of(&*refused),
            "a `Stackful` cannot run: this greenlet is asked to exit"
        );
    });
}

#[test]
fn try_wait_says_that_an_exit_was_thrown_as_if_it_was_dropped() {
    enter(|me: &Root<()>| {
        let handle = Rc::new(Cell::new(None));
        let theirs = Rc::clone(&handle);
        let mut waits = Stackful::new(me, move |awaiter| {
            theirs.set(Some(awaiter.handle()));
            [(); 5].map(|()| awaiter.try_wait(future::pending::<()>()))
        });
        assert!(poll_once(&mut waits).is_pending());
        assert_child_exit(me.throw(&handle.take().unwrap(), GreenletExit));
        assert_eq!(poll_once(&mut waits), Poll::Ready([Err(Cancelled); 5]));
    });
}

#[test]
fn an_output_is_dropped_if_the_future_that_it_is_of_panics_when_it_is_dropped() {
    struct Ready<F>(Option<Token>, F);

    impl<F: Unpin> Future for Ready<F> {
        type Output = Token;

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Token> {
            Poll::Ready(self.0.take().unwrap())
        }
    }

    let census = Census::new();
    enter(|me: &Root<()>| {
        let token = Some(census.token());
        let mut waits = Stackful::new(me, move |awaiter| {
            awaiter.wait(Ready(token, on_drop(|| panic!("dropped"))))
        });
        let payload = catch(|| poll_once(&mut waits).map(drop)).unwrap_err();
        assert_eq!(text_of(&*payload), "dropped");
    });
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_future_that_was_not_polled_never_runs_and_drops_what_it_owns() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let owned = log.at_drop("owned");
        drop(Stackful::new(me, move |_| {
            drop(owned);
            unreachable!("not polled");
        }));
        assert_eq!(log.take(), ["owned"]);
    });
}

#[test]
fn a_forgotten_one_ends_with_its_enter() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let mut waits = Stackful::new(me, move |awaiter| {
            let _dropped = log.at_drop("dropped");
            awaiter.wait(future::pending::<()>());
        });
        assert!(poll_once(&mut waits).is_pending());
        mem::forget(waits);
    });
    assert_eq!(log.take(), ["dropped"]);
}

#[test]
fn a_panic_comes_out_of_poll() {
    enter(|me: &Root<()>| {
        let panics = Stackful::new(me, |awaiter| {
            awaiter.wait(later(1));
            panic!("in a function");
        });
        let payload = catch(|| block_on(panics)).map(|(): ()| ()).unwrap_err();
        assert_eq!(text_of(&*payload), "in a function");
    });
}

#[test]
fn a_panic_of_what_it_waits_for_can_be_caught() {
    enter(|me: &Root<()>| {
        let catches = Stackful::new(me, |awaiter| {
            let caught = catch(|| {
                awaiter.wait(async {
                    later(1).await;
                    panic!("in a future");
                })
            });
            text_of(&*caught.map(|(): ()| ()).unwrap_err()).to_string()
        });
        assert_eq!(block_on(catches), "in a future");
    });
}

#[test]
fn polled_after_its_end_it_panics() {
    enter(|me: &Root<()>| {
        let mut over = Stackful::new(me, |_| 1);
        assert_eq!(poll_once(&mut over), Poll::Ready(1));
        assert!(catch(|| poll_once(&mut over)).is_err());
    });
}

#[test]
fn they_nest() {
    enter(|me: &Root<()>| {
        let sum = Stackful::new(me, |outer| {
            let one = outer.wait(Stackful::new(outer, |inner| {
                inner.wait(later(2));
                inner.wait(Stackful::new(inner, |innermost| {
                    innermost.wait(later(1));
                    1
                }))
            }));
            one + outer.wait(async {
                later(1).await;
                2
            })
        });
        assert_eq!(block_on(sum), 3);
    });
}

#[test]
fn a_future_that_is_waited_for_may_wait_with_the_same_awaiter() {
    enter(|me: &Root<()>| {
        let seven = Stackful::new(me, |awaiter| {
            awaiter.wait(poll_fn(|_| {
                awaiter.wait(later(2));
                Poll::Ready(7)
            }))
        });
        assert_eq!(block_on(seven), 7);
    });
}

#[test]
fn joined_and_raced_from_outside_and_inside() {
    fn waits<'e>(me: &Current<'e, ()>, polls: u32) -> Stackful<'e, u32> {
        Stackful::new(me, move |awaiter| {
            awaiter.wait(later(polls));
            polls
        })
    }
    enter(|me: &Root<()>| {
        assert_eq!(block_on(join(waits(me, 3), waits(me, 1))), (3, 1));
        assert_eq!(block_on(race(waits(me, 9), waits(me, 2))), 2);
        let inside = Stackful::new(me, |awaiter| {
            let both = awaiter.wait(join(waits(awaiter, 2), waits(awaiter, 4)));
            (
                both,
                awaiter.wait(race(waits(awaiter, 5), waits(awaiter, 1))),
            )
        });
        assert_eq!(block_on(inside), ((2, 4), 1));
    });
}

#[test]
fn a_timeout_drops_what_it_waits_for() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let slow = Stackful::new(me, move |awaiter| {
            let _dropped = log.at_drop("slow");
            awaiter.wait(future::pending::<()>());
            "done"
        });
        let outcome = block_on(race(slow, async {
            later(3).await;
            "timed out"
        }));
        assert_eq!(outcome, "timed out");
        assert_eq!(log.take(), ["slow"]);
    });
}

#[test]
fn is_woken_from_another_thread() {
    let shared = Arc::new((AtomicUsize::new(0), Mutex::new(None::<Waker>)));
    enter(|me: &Root<()>| {
        let counter = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for _ in 0..100 {
                    shared.0.fetch_add(1, SeqCst);
                    if let Some(waker) = shared.1.lock().unwrap().take() {
                        waker.wake();
                    }
                }
            }
        });
        let sees = Stackful::new(me, |awaiter| {
            awaiter.wait(poll_fn(|context| {
                shared.1.lock().unwrap().replace(context.waker().clone());
                if shared.0.load(SeqCst) == 100 {
                    return Poll::Ready(());
                }
                Poll::Pending
            }));
        });
        block_on(sees);
        counter.join().unwrap();
    });
}

#[test]
fn the_waker_of_the_last_poll_is_woken() {
    #[derive(Default)]
    struct Counts(AtomicUsize);
    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    enter(|me: &Root<()>| {
        let kept = Rc::new(RefCell::new(None));
        let keep = Rc::clone(&kept);
        let mut waits = Stackful::new(me, move |awaiter| {
            awaiter.wait(poll_fn(|context| {
                keep.replace(Some(context.waker().clone()));
                Poll::<()>::Pending
            }));
        });
        let (first, second) = (Arc::new(Counts::default()), Arc::new(Counts::default()));
        for counts in [&first, &second] {
            let waker = Waker::from(Arc::clone(counts));
            let polled = Pin::new(&mut waits).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        kept.take().unwrap().wake();
        assert_eq!((first.0.load(SeqCst), second.0.load(SeqCst)), (0, 1));
    });
}

#[test]
#[cfg_attr(miri, ignore = "under Miri each greenlet has its own thread-locals")]
fn no_code_of_a_waker_runs_while_the_function_borrows_it() {
    type Hook = Option<Box<dyn FnOnce()>>;

    thread_local! {
        static AT_CLONE: RefCell<Hook> = const { RefCell::new(None) };
    }

    /// No clone will wake what another will.
    fn raw(number: usize) -> RawWaker {
        const VTABLE: RawWakerVTable = RawWakerVTable::new(
            |number| {
                let hook = AT_CLONE.take();
                hook.into_iter().for_each(|hook| hook());
                raw(number.addr() + 1)
            },
            |_| (),
            |_| (),
            |_| (),
        );
        RawWaker::new(ptr::without_provenance(number), &VTABLE)
    }

    // SAFETY: its functions need nothing, and are called in this thread only.
    let waker = unsafe { Waker::from_raw(raw(0)) };
    let poll = |future: &mut Stackful<'static, ()>| {
        Pin::new(future).poll(&mut Context::from_waker(&waker))
    };
    unscoped().enter(|me: &Current<()>| {
        let main = me.handle();
        let handle = Rc::new(Cell::new(None));
        let theirs = Rc::clone(&handle);
        let mut waits = Stackful::new(me, move |awaiter| {
            theirs.set(Some(awaiter.handle()));
            awaiter.wait(future::pending::<()>());
        });
        assert!(poll(&mut waits).is_pending());
        AT_CLONE.set(Some(Box::new(move || {
            // Leaves the function in the middle of the clone.
            let _ended = unscoped().enter(|inner: &Current<()>| inner.switch(&main, ()));
        })));
        // Nobody polls it.
        let _ended = quietly(|| me.switch(&handle.take().unwrap(), ()));
        let text = panic_text(|| poll(&mut waits));
        assert!(text.starts_with("a `Stackful` cannot run"), "{text}");
        drop(AT_CLONE.take());
    });
}

#[test]
fn is_polled_on_different_stacks() {
    enter(|me: &Root<()>| {
        let mut waits = Stackful::new(me, |awaiter| {
            awaiter.wait(later(2));
            5
        });
        assert!(poll_once(&mut waits).is_pending());
        let polls = Greenlet::borrowing(me, |_, mut waits: Stackful<u32>| {
            assert!(poll_once(&mut waits).is_pending());
            drop(waits);
            Ok(())
        });
        me.switch(&polls, waits).unwrap();
    });
}

#[test]
fn what_it_borrows_may_be_changed_by_it() {
    let mut lengths = Vec::new();
    let text = String::from("to be or not");
    enter(|me: &Root<()>| {
        block_on(Stackful::new(me, |awaiter| {
            for word in text.split(' ') {
                awaiter.wait(later(1));
                lengths.push(word.len());
            }
        }));
    });
    assert_eq!(lengths, [2, 2, 2, 3]);
}

greenlet::local! {
    static AWAITER: Cell<*const c_void> = Cell::new(ptr::null());
}

/// Called by `qsort`, which must not be unwound.
unsafe extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
    // SAFETY: set by the function that sorts, in this greenlet, for as long as that does.
    let awaiter = unsafe { &*AWAITER.with(Cell::get).cast::<Awaiter<'_, '_>>() };
    let _cancelled = awaiter.try_wait(later(1));
    // SAFETY: two of the numbers that are sorted.
    unsafe { (*a.cast::<i32>()).cmp(&*b.cast()) as c_int }
}

fn sorted(awaiter: &Awaiter<'_, '_>) -> [i32; 6] {
    let mut numbers = [5, 3, 9, 1, 7, 2];
    AWAITER.with(|it| it.set(ptr::from_ref(awaiter).cast()));
    // SAFETY: the slice is what is described, and the callback neither unwinds nor contradicts itself.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 6, 4, Some(compare)) };
    numbers
}

#[test]
#[cfg_attr(miri, ignore = "Miri runs no C")]
fn waits_in_callbacks_of_c_and_is_cancelled_there() {
    enter(|me: &Root<()>| {
        let both = join(Stackful::new(me, sorted), Stackful::new(me, sorted));
        assert_eq!(block_on(both), ([1, 2, 3, 5, 7, 9], [1, 2, 3, 5, 7, 9]));
        let mut half = Stackful::new(me, sorted);
        assert!(poll_once(&mut half).is_pending());
        assert!(poll_once(&mut half).is_pending());
        drop(half);
    });
}

#[test]
fn generators_run_between_waits() {
    enter(|me: &Root<()>| {
        let sum = Stackful::new(me, |awaiter| {
            let numbers = Generator::new(awaiter, |yielder, ()| {
                (1..=3).try_for_each(|n| yielder.give(n))
            });
            numbers
                .map(|n| {
                    awaiter.wait(async move {
                        later(1).await;
                        n
                    })
                })
                .sum::<u32>()
        });
        assert_eq!(block_on(sum), 6);
    });
}

#[test]
fn dropped_inside_another() {
    let log = Log::new();
    enter(|me: &Root<()>| {
        let log = &log;
        let outer = Stackful::new(me, move |awaiter| {
            let mut inner = Stackful::new(awaiter, move |awaiter| {
                let _dropped = log.at_drop("inner");
                awaiter.wait(future::pending::<()>());
            });
            assert!(poll_once(&mut inner).is_pending());
            drop(inner);
            assert_eq!(log.take(), ["inner"]);
            awaiter.wait(later(1));
        });
        block_on(outer);
    });
}

#[test]
fn dropped_while_the_thread_unwinds() {
    let log = Log::new();
    let caught = catch(|| {
        enter(|me: &Root<()>| {
            let log = &log;
            let mut waits = Stackful::new(me, move |awaiter| {
                let _dropped = on_drop(|| log.add("dropped"));
                let _cancelled = awaiter.try_wait(future::pending::<()>());
            });
            assert!(poll_once(&mut waits).is_pending());
            panic!("out");
        })
    });
    assert!(caught.is_err());
    assert_eq!(log.take(), ["dropped"]);
}

#[test]
fn a_function_that_catches_its_unwinding_while_another_stack_unwinds_is_unwound_again() {
    let log = Log::new();
    let caught = catch(|| {
        enter(|me: &Root<()>| {
            let log = &log;
            let mut waits = Stackful::new(me, move |awaiter| {
                for _ in 0..3 {
                    log.add(catch(|| awaiter.wait(future::pending::<()>())).is_err());
                }
            });
            assert!(poll_once(&mut waits).is_pending());
            panic!("out");
        })
    });
    assert!(caught.is_err());
    assert_eq!(log.take(), [true; 3]);
}

#[test]
fn an_unscoped_future_is_kept_by_an_executor_and_dropped_at_the_threads_end() {
    thread_local! {
        static TASKS: RefCell<Vec<Stackful<'static, ()>>> = const { RefCell::new(Vec::new()) };
    }
    let ended = Arc::new(AtomicUsize::new(0));
    thread::spawn({
        let ended = Arc::clone(&ended);
        move || {
            let mut task = unscoped().enter(|me: &Current<()>| {
                Stackful::new(me, move |awaiter| {
                    let _ended = on_drop(|| {
                        ended.fetch_add(1, SeqCst);
                    });
                    awaiter.wait(future::pending::<()>());
                })
            });
            // Outside every greenlet.
            assert!(poll_once(&mut task).is_pending());
            TASKS.with_borrow_mut(|tasks| tasks.push(task));
        }
    })
    .join()
    .unwrap();
    assert_eq!(ended.load(SeqCst), 1);
}
