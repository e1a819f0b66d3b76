//! Wrong calls and refusals by the system return documented errors. The message comes back, and nothing is
//! lost or leaked.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::{Cell, RefCell},
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
};

use greenlet::{
    BuildError, Builder, Child, Current, Greenlet, GreenletExit, KillError, Root, StackError,
    SwitchError, Thrown, Unscoped, enter,
};

use crate::machine::skip;
#[cfg(unix)]
use crate::{machine, process};

/// An allocator that counts the bytes that each thread has allocated and not freed.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        ALLOCATED.set(ALLOCATED.get() - 1);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

/// A value whose drops are counted.
#[derive(Debug, PartialEq)]
struct Counted(u32);

impl Counted {
    fn new(number: u32) -> Self {
        LIVE.set(LIVE.get() + 1);
        Self(number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.set(LIVE.get() - 1);
    }
}

/// Checks that `act` leaves no value and no memory behind. Runs it twice, because the first run may make what
/// lives as long as the thread.
fn leaks_nothing(act: impl Fn()) {
    act();
    assert_eq!(LIVE.get(), 0, "values that were not dropped");
    let before = ALLOCATED.get();
    act();
    assert_eq!(LIVE.get(), 0, "values that were not dropped");
    assert_eq!(
        ALLOCATED.get() - before,
        0,
        "allocations that were not freed"
    );
}

/// Checks that a switch is refused, with this refusal and with the message.
macro_rules! assert_refused {
    ($result:expr, $refusal:pat, $message:expr) => {
        match $result {
            Err(refusal @ $refusal) => assert_eq!(refusal.into_message(), $message),
            other => panic!("{other:?} instead of {}", stringify!($refusal)),
        }
    };
}

/// No message.
type Nothing = std::convert::Infallible;

/// Returns the error of `Builder::build` for a body that owns something.
fn build_error(builder: Builder) -> BuildError {
    enter(|me: &Root<()>| {
        let cargo = Counted::new(0);
        let body = move |_: &Child<(), _>, ()| {
            drop(cargo);
            Ok(())
        };
        builder.build(me, body).unwrap_err()
    })
}

#[test]
fn a_stack_of_an_impossible_size_is_an_error_of_build() {
    leaks_nothing(|| {
        for bytes in [0, 1, Builder::MIN_STACK_SIZE - 1] {
            let error = build_error(Builder::new().stack_size(bytes));
            assert_eq!(error, BuildError::StackTooSmall { bytes });
        }
        for bytes in [isize::MAX as usize, isize::MAX as usize + 1, usize::MAX] {
            let error = build_error(Builder::new().stack_size(bytes));
            assert_eq!(error, BuildError::StackTooLarge { bytes });
        }
        let bytes = Builder::MIN_STACK_SIZE;
        let error = build_error(Builder::new().stack_size(bytes).guard_size(usize::MAX));
        assert_eq!(error, BuildError::StackTooLarge { bytes });
    });
}

#[test]
fn a_name_with_a_nul_is_an_error_of_build() {
    leaks_nothing(|| {
        for name in ["\0", "\0name", "na\0me", "name\0"] {
            let error = build_error(Builder::new().name(name));
            assert_eq!(error, BuildError::NameContainsNul, "{name:?}");
        }
    });
}

#[test]
fn s9_a_message_to_a_dead_greenlet_comes_back() {
    leaks_nothing(|| {
        enter(|me: &Root<u32>| {
            let dead = Greenlet::new(me, |_, cargo: Counted| Ok(cargo.0));
            assert_eq!(me.switch(&dead, Counted::new(7)).unwrap(), 7);
            assert!(dead.is_dead());

            assert_refused!(
                me.try_switch(&dead, Counted::new(8)),
                SwitchError::Dead(_),
                Counted::new(8)
            );

            let thrown = me.switch(&dead, Counted::new(9)).unwrap_err();
            assert_eq!(
                thrown.downcast::<SwitchError<()>>().unwrap(),
                SwitchError::Dead(())
            );
        });
    });
}

#[test]
fn s2_a_message_to_a_greenlet_that_has_entered_again_comes_back() {
    leaks_nothing(|| {
        enter(|outer: &Root<Counted>| {
            let busy = outer.handle();
            enter(|inner: &Root<Nothing>| {
                assert_refused!(
                    inner.try_switch(&busy, Counted::new(1)),
                    SwitchError::Busy(_),
                    Counted::new(1)
                );
                let thrown = inner.switch(&busy, Counted::new(2)).unwrap_err();
                assert_eq!(
                    thrown.downcast::<SwitchError<()>>().unwrap(),
                    SwitchError::Busy(())
                );
                match inner.try_throw(&busy, Lost(Counted::new(3))) {
                    Err(SwitchError::Busy(thrown)) => {
                        assert_eq!(thrown.downcast::<Lost>().unwrap().0, Counted::new(3));
                    }
                    other => panic!("{other:?}"),
                }
            });
        });
    });
}

/// An error that contains a value.
#[derive(Debug)]
struct Lost(Counted);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is lost", self.0)
    }
}

impl std::error::Error for Lost {}

#[test]
fn a_message_to_a_greenlet_that_waits_in_a_kill_comes_back() {
    leaks_nothing(|| {
        enter(|me: &Root<Counted>| {
            let killer = me.handle();
            let victim: Greenlet<()> = Greenlet::new(me, move |me, ()| {
                let exit = me.switch(&killer, Counted::new(1)).unwrap_err();
                // The victim cannot switch any more, but a root that it enters can.
                enter(|inner: &Root<Nothing>| {
                    assert_refused!(
                        inner.try_switch(&killer, Counted::new(2)),
                        SwitchError::Busy(_),
                        Counted::new(2)
                    );
                });
                Err(exit)
            });
            assert_eq!(me.switch(&victim, ()).unwrap(), Counted::new(1));
            me.kill(&victim).unwrap();
        });
    });
}

#[test]
fn s15_a_message_of_a_killed_greenlet_comes_back() {
    leaks_nothing(|| {
        enter(|me: &Root<Counted>| {
            let main = me.handle();
            let victim: Greenlet<()> = Greenlet::new(me, move |me, ()| {
                let exit = me.switch(&main, Counted::new(1)).unwrap_err();
                assert!(exit.is_exit());
                assert_refused!(
                    me.try_switch(&main, Counted::new(2)),
                    SwitchError::Exiting(_),
                    Counted::new(2)
                );
                Err(exit)
            });
            assert_eq!(me.switch(&victim, ()).unwrap(), Counted::new(1));
            me.kill(&victim).unwrap();
            assert!(victim.is_dead());
        });
    });
}

#[test]
fn a_message_sent_through_a_current_that_does_not_run_comes_back() {
    leaks_nothing(|| {
        enter(|outer: &Root<()>| {
            let greenlet = Greenlet::new(outer, |_, cargo: Counted| {
                drop(cargo);
                Ok(())
            });
            enter(|_: &Root<Nothing>| {
                assert_refused!(
                    outer.try_switch(&greenlet, Counted::new(1)),
                    SwitchError::NotCurrent(_),
                    Counted::new(1)
                );
            });
            outer.switch(&greenlet, Counted::new(2)).unwrap();
        });
    });
}

#[test]
fn what_cannot_be_dead_on_return_of_kill_is_an_error() {
    leaks_nothing(|| {
        enter(|me: &Root<()>| {
            assert_eq!(me.kill(&me.handle()), Err(KillError::Root));
            let suicide = Greenlet::new(me, |me: &Child<(), _>, ()| {
                assert_eq!(me.kill(&me.handle()), Err(KillError::Itself));
                Ok(())
            });
            me.switch(&suicide, ()).unwrap();
            assert!(suicide.is_dead());
        });
    });
}

/// Switches from its destructor, while a panic unwinds.
#[cfg(panic = "unwind")]
struct SwitchesWhenDropped<'a, 'e> {
    me: &'a Current<'e, ()>,
    target: Greenlet<'e, Counted>,
}

#[cfg(panic = "unwind")]
impl Drop for SwitchesWhenDropped<'_, '_> {
    fn drop(&mut self) {
        assert_refused!(
            self.me.try_switch(&self.target, Counted::new(1)),
            SwitchError::Unwinding(_),
            Counted::new(1)
        );
    }
}

#[cfg(panic = "unwind")]
#[test]
fn s19_a_message_of_an_unwinding_greenlet_comes_back() {
    leaks_nothing(|| {
        enter(|me| {
            let target = Greenlet::new(me, |_, cargo: Counted| {
                drop(cargo);
                Ok(())
            });
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let _switches = SwitchesWhenDropped {
                    me,
                    target: target.clone(),
                };
                resume_unwind(Box::new("on purpose"));
            }));
            assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"on purpose"));
            me.switch(&target, Counted::new(2)).unwrap();
        });
    });
}

/// A greenlet that owns something before and while it is suspended.
fn suspended<'e>(me: &Current<'e, ()>) -> Greenlet<'e, Counted> {
    let main = me.handle();
    let cargo = Counted::new(1);
    let greenlet = Greenlet::new(me, move |me, message: Counted| {
        let _locals = (cargo, message, Counted::new(2));
        loop {
            me.switch(&main, ())?;
        }
    });
    me.switch(&greenlet, Counted::new(3)).unwrap();
    greenlet
}

#[cfg(panic = "unwind")]
#[test]
fn s14_a_panic_out_of_enter_drops_the_locals_of_suspended_greenlets() {
    leaks_nothing(|| {
        let outcome = catch_unwind(|| {
            enter(|me| {
                let greenlets: Vec<_> = (0..3).map(|_| suspended(me)).collect();
                assert_eq!(LIVE.get(), 3 * greenlets.len());
                let cargo = Counted::new(4);
                let _unstarted: Greenlet<()> = Greenlet::new(me, move |_, ()| {
                    drop(cargo);
                    Ok(())
                });
                resume_unwind(Box::new("on purpose"));
            })
        });
        let payload: Box<dyn std::any::Any + Send> = outcome.map(|(): ()| ()).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
        assert_eq!(LIVE.get(), 0);
        // The thread works as before.
        enter(|me| drop(suspended(me)));
    });
}

#[cfg(panic = "unwind")]
#[test]
fn s14_handles_that_survive_a_panic_out_of_enter_still_kill_when_they_go() {
    leaks_nothing(|| {
        let survivors = RefCell::new(Vec::new());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: nothing is suspended while a thread-local is lent to it.
            unsafe { Unscoped::new() }.enter(|me| {
                survivors
                    .borrow_mut()
                    .extend([suspended(me), suspended(me)]);
                resume_unwind(Box::new("on purpose"));
            })
        }));
        assert!(outcome.map(|(): ()| ()).is_err());
        assert_eq!(LIVE.get(), 6);
        assert!(survivors.borrow().iter().all(Greenlet::is_active));
        survivors.borrow_mut().pop();
        assert_eq!(LIVE.get(), 3);
        drop(survivors);
    });
}

/// A legal size of which few stacks, or none, fit into the address space.
#[cfg(unix)]
const ENORMOUS: usize = if usize::BITS == 64 { 1 << 45 } else { 1 << 30 };

#[cfg(unix)]
fn enormous<'e>(me: &Current<'e, Counted>) -> Greenlet<'e, Counted> {
    let main = me.handle();
    let body = move |me: &Child<Counted, _>, message| {
        let last = me.switch(&main, message)?;
        Ok(last)
    };
    Builder::new().stack_size(ENORMOUS).build(me, body).unwrap()
}

/// In a child process, because other tests need address space.
#[test]
#[cfg(unix)] // not on Windows: it forks
fn s5_a_stack_that_cannot_be_mapped_is_an_error_of_the_switch_and_the_target_stays_new() {
    if machine::address_space_takes_memory() {
        return machine::skip(machine::TAKES_MEMORY);
    }
    let ending = process::in_child(|| {
        enter(|me| {
            let mut started = Vec::new();
            let unstarted = loop {
                assert!(started.len() < 1000, "no end of memory");
                let greenlet = enormous(me);
                match me.try_switch(&greenlet, Counted::new(1)) {
                    Ok(reply) => assert_eq!(reply.unwrap(), Counted::new(1)),
                    Err(SwitchError::Stack(message, error)) => {
                        assert_eq!(message, Counted::new(1));
                        assert!(matches!(error, StackError::Map { bytes, .. } if bytes > ENORMOUS));
                        break greenlet;
                    }
                    Err(other) => panic!("{other:?}"),
                }
                started.push(greenlet);
            };
            assert!(!unstarted.is_active() && !unstarted.is_dead());

            let thrown = me.switch(&unstarted, Counted::new(2)).unwrap_err();
            let refusal = thrown.downcast::<SwitchError<()>>().unwrap();
            assert!(matches!(
                refusal,
                SwitchError::Stack((), StackError::Map { .. })
            ));
            assert_eq!(LIVE.get(), 0);
            assert!(!unstarted.is_active() && !unstarted.is_dead());

            // When there is memory, it starts.
            if started.pop().is_some() {
                assert_eq!(
                    me.switch(&unstarted, Counted::new(3)).unwrap(),
                    Counted::new(3)
                );
                assert!(unstarted.is_active());
                assert_eq!(
                    me.switch(&unstarted, Counted::new(4)).unwrap(),
                    Counted::new(4)
                );
                assert!(unstarted.is_dead());
            }
        });
        assert_eq!(LIVE.get(), 0);
    });
    assert!(ending.is_success(), "{ending:?}");
}

/// An error is usually printed with its sources.
#[test]
fn a_refusal_for_want_of_a_stack_says_why_once() {
    let refusal = SwitchError::Stack((), StackError::OutOfMemory);
    assert_eq!(refusal.to_string(), StackError::OutOfMemory.to_string());
    assert!(refusal.source().is_none());
}

#[test]
fn a_stack_that_no_system_can_map_is_an_error_of_the_switch() {
    if usize::BITS < 64 {
        return skip("a 32-bit system may map whatever `build` allows");
    }
    leaks_nothing(|| {
        enter(|me: &Root<()>| {
            let cargo = Counted::new(0);
            let greenlet = Builder::new()
                .stack_size(isize::MAX as usize - 128 * 1024)
                .build(me, move |_, message: Counted| {
                    drop((cargo, message));
                    Ok(())
                })
                .unwrap();
            assert_refused!(
                me.try_switch(&greenlet, Counted::new(1)),
                SwitchError::Stack(..),
                Counted::new(1)
            );
            assert!(!greenlet.is_active() && !greenlet.is_dead());
            me.kill(&greenlet).unwrap();
            assert!(greenlet.is_dead());
        });
    });
}

#[test]
fn a_body_that_is_never_run_is_dropped_with_its_greenlet() {
    leaks_nothing(|| {
        let dropped = Rc::new(());
        enter(|me: &Root<()>| {
            let new = |cargo: Rc<()>| -> Greenlet<()> {
                Greenlet::new(me, move |_, ()| {
                    drop(cargo);
                    Ok(())
                })
            };
            let (killed, thrown_at, forgotten) = (
                new(Rc::clone(&dropped)),
                new(Rc::clone(&dropped)),
                new(Rc::clone(&dropped)),
            );
            me.kill(&killed).unwrap();
            assert_eq!(Rc::strong_count(&dropped), 3);
            let notice: Thrown = me.throw(&thrown_at, GreenletExit).unwrap_err();
            assert!(notice.is_child_exit());
            assert_eq!(Rc::strong_count(&dropped), 2);
            drop(forgotten);
            assert_eq!(Rc::strong_count(&dropped), 1);
        });
    });
}
