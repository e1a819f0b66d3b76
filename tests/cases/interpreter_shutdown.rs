use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use greenlet::{Child, Current, Greenlet};

use crate::support::{
    Number,
    child::child,
    log::on_drop,
    panics::{catch, text_of},
    unscoped,
};

thread_local! {
    /// Greenlets that still exist when the process or thread ends.
    static KEPT: RefCell<Vec<Greenlet<'static, ()>>> = const { RefCell::new(Vec::new()) };
}

fn keep(g: Greenlet<'static, ()>) {
    KEPT.with_borrow_mut(|kept| kept.push(g));
}

/// Returns a suspended child of `me` that does `end` when it is killed.
fn suspended(me: &Current<'static, ()>, end: impl FnOnce() + 'static) -> Greenlet<'static, ()> {
    let main = me.handle();
    let g = Greenlet::new(me, move |me, ()| {
        let _end = on_drop(end);
        me.switch(&main, ())
    });
    me.switch(&g, ()).unwrap();
    g
}

/// Runs `body` in a process, which must then exit with success.
macro_rules! exits_well {
    ($body:expr) => {
        if let Some(ended) = child($body) {
            ended.assert_success();
        }
    };
}

#[test]
fn active_greenlet_at_shutdown_no_crash() {
    exits_well!(|| unscoped().enter(|me: &Current<()>| keep(suspended(me, || ()))));
}

#[test]
fn multiple_active_greenlets_at_shutdown() {
    exits_well!(|| {
        unscoped().enter(|me: &Current<()>| (0..10).for_each(|_| keep(suspended(me, || ()))));
    });
}

#[test]
fn nested_greenlets_at_shutdown() {
    exits_well!(|| {
        unscoped().enter(|me: &Current<()>| {
            let outer = Greenlet::new(me, {
                let main = me.handle();
                move |me: &Child<(), _>, ()| {
                    keep(suspended(me, || ()));
                    me.switch(&main, ())
                }
            });
            me.switch(&outer, ()).unwrap();
            keep(outer);
        });
    });
}

#[test]
fn threaded_greenlets_at_shutdown() {
    exits_well!(|| {
        let threads = [(); 3].map(|()| {
            thread::spawn(|| {
                unscoped().enter(|me: &Current<()>| {
                    keep(suspended(me, || ()));
                    std::mem::forget(suspended(me, || unreachable!("it is never resumed")));
                });
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Runs `body` in a thread. Returns how often `counted` was called until the thread had ended.
fn count_in_thread(body: impl FnOnce(Arc<AtomicUsize>) + Send + 'static) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || body(counted)).join().unwrap();
    count.load(SeqCst)
}

#[test]
fn greenlet_cleanup_during_thread_exit() {
    let exits = count_in_thread(|count| {
        unscoped().enter(|me: &Current<()>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, ()| {
                let thrown = me.switch(&main, ()).unwrap_err();
                assert!(thrown.is_exit());
                count.fetch_add(1, SeqCst);
                Err(thrown)
            });
            me.switch(&g, ()).unwrap();
            // Its handle is a local of the thread's function.
        });
    });
    assert_eq!(exits, 1);
}

#[test]
fn finally_block_during_thread_exit() {
    let ends = count_in_thread(|count| {
        unscoped().enter(|me: &Current<()>| {
            let end = move || {
                count.fetch_add(1, SeqCst);
            };
            keep(suspended(me, end));
        });
    });
    assert_eq!(ends, 1);
}

#[test]
fn many_greenlets_with_cleanup_at_shutdown() {
    exits_well!(|| {
        unscoped().enter(|me: &Current<()>| {
            for _ in 0..50 {
                keep(suspended(me, || {
                    std::hint::black_box(vec![0_u8; 100]);
                }));
            }
        });
    });
    let ends = count_in_thread(|count| {
        unscoped().enter(|me: &Current<()>| {
            for _ in 0..50 {
                let count = Arc::clone(&count);
                keep(suspended(me, move || {
                    count.fetch_add(1, SeqCst);
                }));
            }
        });
    });
    assert_eq!(ends, 50);
}

#[test]
fn deeply_nested_greenlets_at_shutdown() {
    fn deeper(me: &Current<'static, ()>, main: &Greenlet<'static, ()>, levels: u32) {
        if levels == 0 {
            me.switch(main, ()).unwrap();
            return;
        }
        let main = main.clone();
        let g = Greenlet::new(me, move |me: &Child<(), _>, ()| {
            deeper(me, &main, levels - 1);
            Ok(())
        });
        keep(g.clone());
        me.switch(&g, ()).unwrap();
    }
    exits_well!(|| unscoped().enter(|me: &Current<()>| {
        let main = me.handle();
        let g = Greenlet::new(me, move |me: &Child<(), _>, ()| {
            deeper(me, &main, 10);
            Ok(())
        });
        me.switch(&g, ()).unwrap();
        keep(g);
        KEPT.with_borrow(|kept| assert_eq!(kept.len(), 11));
        std::process::exit(0);
    }));
}

#[test]
fn greenlet_with_traceback_at_shutdown() {
    exits_well!(|| {
        unscoped().enter(|me: &Current<()>| {
            let main = me.handle();
            let g = Greenlet::new(me, move |me, ()| {
                // Suspended with a caught panic and an error in hand.
                let panic = catch(|| panic!("in hand")).unwrap_err();
                let error = greenlet::Thrown::from(Number(1));
                let outcome = me.switch(&main, ());
                assert_eq!(text_of(&*panic), "in hand");
                assert!(error.downcast_ref::<Number>().is_some());
                outcome
            });
            me.switch(&g, ()).unwrap();
            keep(g);
        });
    });
}
