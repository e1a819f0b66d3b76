//! With `panic = "abort"` everything works that does not unwind. Whatever would unwind aborts the process
//! with a message that names the greenlet (rule s15):
//!
//! ```text
//! cargo test --profile abort --test abort
//! ```
//!
//! Cargo ignores the `panic` of a profile when it builds tests, and libtest refuses `-C panic=abort`. So
//! this test has a harness of its own, and in the profile `abort` it builds and starts itself again with
//! that flag. In other profiles it checks the same with unwinding.

mod cargo;
mod process;

use std::{
    cell::{Cell, RefCell},
    env,
    path::Path,
    process::ExitCode,
    rc::Rc,
};

use greenlet::{Builder, Current, Greenlet, GreenletExit, Root, SwitchError, Thrown, enter};
use process::Ending;

/// A promise, code to run in a child process, and whether the child's ending keeps the promise.
type Case = (&'static str, fn(), fn(&Ending) -> bool);

macro_rules! cases {
    ($($name:ident: $expected:expr,)*) => {
        &[$((stringify!($name), $name, $expected)),*]
    };
}

const CASES: &[Case] = cases![
    s6_messages_go_both_ways: Ending::is_success,
    s7_a_value_goes_to_the_parent: Ending::is_success,
    s9_a_dead_greenlet_forwards_to_its_first_live_ancestor: Ending::is_success,
    s9_a_dead_greenlet_without_such_an_ancestor_gives_the_message_back: Ending::is_success,
    s11_an_error_goes_to_the_parent: Ending::is_success,
    s12_a_thrown_error_is_what_switch_returns: Ending::is_success,
    s12_a_new_greenlet_dies_of_what_is_thrown_at_it: Ending::is_success,
    s13_an_exit_is_a_notice_to_the_parent: Ending::is_success,
    s14_a_suspended_greenlet_is_killed_by_its_last_drop: Ending::is_success,
    s14_a_killed_greenlet_is_dead_while_handles_remain: Ending::is_success,
    s14_a_new_greenlet_is_dropped_without_running: Ending::is_success,
    s15_one_refused_switch_does_not_end_a_killed_greenlet: Ending::is_success,
    s2_a_greenlet_enters_again: Ending::is_success,
    s15_a_killed_greenlet_that_goes_on_switching_ends_the_process: names_the_stubborn_if_aborted,
    s11_a_panic_goes_to_the_parent: aborted_if_built_to_without_a_warning,
];

fn main() -> ExitCode {
    let in_profile_abort = Path::new(env!("OUT_DIR"))
        .iter()
        .any(|part| part == "abort");
    if cfg!(panic = "unwind") && in_profile_abort {
        return run_built_to_abort();
    }
    let strategy = if cfg!(panic = "abort") {
        "abort"
    } else {
        "unwind"
    };
    let filter = env::args().nth(1).filter(|filter| !filter.starts_with('-'));
    let chosen = |name: &str| filter.as_deref().is_none_or(|filter| name.contains(filter));

    let (mut passed, mut failed, mut filtered_out) = (0, 0, 0);
    for (name, act, expected) in CASES {
        if !chosen(name) {
            filtered_out += 1;
            continue;
        }
        #[cfg(unix)]
        let ending = process::in_child(act);
        #[cfg(windows)]
        let ending = process::again(name, act);
        if expected(&ending) {
            passed += 1;
            println!("test {name} (panic={strategy}) ... ok");
        } else {
            failed += 1;
            println!("test {name} (panic={strategy}) ... FAILED: {ending:#?}");
        }
    }
    // In libtest's words.
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         {filtered_out} filtered out\n"
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Builds this test with `-C panic=abort` and runs it.
fn run_built_to_abort() -> ExitCode {
    const AGAIN: &str = "GREENLET_TEST_BUILT_TO_ABORT";
    if env::var_os(AGAIN).is_some() {
        eprintln!("-C panic=abort in RUSTFLAGS does not reach the compiler");
        return ExitCode::FAILURE;
    }
    let Some(mut cargo) = cargo::command("test") else {
        eprintln!("to be started by cargo: cargo test --profile abort --test abort");
        return ExitCode::FAILURE;
    };
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    cargo
        .args(["--profile", "abort", "--test", "abort", "--"])
        .args(env::args_os().skip(1))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTFLAGS", flags + " -C panic=abort")
        .env(AGAIN, "1");
    if cargo.status().expect("cargo starts").success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn s6_messages_go_both_ways() {
    let heard = enter(|me: &Root<String>| {
        let main = me.handle();
        let echo = Greenlet::new(me, move |me, mut number: u64| {
            while number != 0 {
                number = me.switch(&main, number.to_string())?;
            }
            Ok("over".to_string())
        });
        [3, 2, 1, 0].map(|number| me.switch(&echo, number).unwrap())
    });
    assert_eq!(heard, ["3", "2", "1", "over"]);
}

fn s7_a_value_goes_to_the_parent() {
    let sum = enter(|me| {
        let outer = Greenlet::new(me, |me, n: u64| {
            let inner = Greenlet::new(me, |_, n: u64| Ok(n + 1));
            Ok(me.switch(&inner, n)? * 10)
        });
        me.switch(&outer, 4)
    });
    assert_eq!(sum.unwrap(), 50);
}

/// Returns a greenlet and a child of it that has finished. Both take numbers.
fn parent_of_a_dead_child<'e>(me: &Current<'e, u32>) -> (Greenlet<'e, u32>, Greenlet<'e, u32>) {
    let child = Rc::new(RefCell::new(None));
    let (main, shown) = (me.handle(), Rc::clone(&child));
    let parent = Greenlet::new(me, move |me, first: u32| {
        let child = Greenlet::new(me, |_, n: u32| Ok(n + 1));
        let mut number = me.switch(&child, first)?;
        shown.replace(Some(child));
        loop {
            number = me.switch(&main, number * 100)?;
        }
    });
    assert_eq!(me.switch(&parent, 1).unwrap(), 200);
    let child = child.take().unwrap();
    assert!(child.is_dead());
    (parent, child)
}

fn s9_a_dead_greenlet_forwards_to_its_first_live_ancestor() {
    enter(|me| {
        let (_parent, dead) = parent_of_a_dead_child(me);
        assert_eq!(me.switch(&dead, 7).unwrap(), 700);
    });
}

fn s9_a_dead_greenlet_without_such_an_ancestor_gives_the_message_back() {
    enter(|me: &Root<u32>| {
        let dead = Greenlet::new(me, |_, text: &str| Ok(text.len() as u32));
        assert_eq!(me.switch(&dead, "four").unwrap(), 4);
        match me.try_switch(&dead, "five") {
            Err(SwitchError::Dead(text)) => assert_eq!(text, "five"),
            other => panic!("{other:?}"),
        }
    });
}

fn s11_an_error_goes_to_the_parent() {
    enter(|me: &Root<u32>| {
        let parser = Greenlet::new(me, |_, text: &str| Ok(text.parse()?));
        let thrown = me.switch(&parser, "7x").unwrap_err();
        assert!(thrown.downcast::<std::num::ParseIntError>().is_ok());
        assert!(parser.is_dead());
    });
}

fn s12_a_thrown_error_is_what_switch_returns() {
    enter(|me: &Root<String>| {
        let main = me.handle();
        let listener: Greenlet<()> = Greenlet::new(me, move |me, ()| {
            let thrown = me.switch(&main, "ready".into()).unwrap_err();
            Ok(format!("caught {thrown}"))
        });
        assert_eq!(me.switch(&listener, ()).unwrap(), "ready");
        let reply = me.throw(&listener, std::fmt::Error).unwrap();
        assert_eq!(reply, format!("caught {}", std::fmt::Error));
    });
}

fn s12_a_new_greenlet_dies_of_what_is_thrown_at_it() {
    enter(|me: &Root<()>| {
        let new: Greenlet<()> = Greenlet::new(me, |_, ()| unreachable!("it is never started"));
        let thrown = me.throw(&new, std::fmt::Error).unwrap_err();
        assert!(thrown.downcast::<std::fmt::Error>().is_ok());
        assert!(new.is_dead());
    });
}

fn s13_an_exit_is_a_notice_to_the_parent() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let waiter: Greenlet<()> = Greenlet::new(me, move |me, ()| {
            me.switch(&main, ())?;
            unreachable!("nothing but errors is sent");
        });
        me.switch(&waiter, ()).unwrap();
        let notice = me.throw(&waiter, GreenletExit).unwrap_err();
        assert!(notice.is_child_exit() && !notice.is_exit());
        assert!(waiter.is_dead());
    });
}

/// Sets a flag when dropped.
struct Flag(Rc<Cell<bool>>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// Returns a suspended greenlet, which returns when it is killed, and the flag among its locals.
fn suspended<'e>(me: &Current<'e, ()>) -> (Greenlet<'e, ()>, Rc<Cell<bool>>) {
    let dropped = Rc::new(Cell::new(false));
    let (main, flag) = (me.handle(), Flag(Rc::clone(&dropped)));
    let greenlet = Greenlet::new(me, move |me, ()| {
        let _local = flag;
        loop {
            me.switch(&main, ())?;
        }
    });
    me.switch(&greenlet, ()).unwrap();
    assert!(!dropped.get() && greenlet.is_active());
    (greenlet, dropped)
}

fn s14_a_suspended_greenlet_is_killed_by_its_last_drop() {
    enter(|me| {
        // More greenlets than there can be stacks at a time.
        for _ in 0..100_000 {
            let (greenlet, dropped) = suspended(me);
            drop(greenlet.clone());
            assert!(!dropped.get());
            drop(greenlet);
            assert!(dropped.get());
        }
    });
}

fn s14_a_killed_greenlet_is_dead_while_handles_remain() {
    enter(|me| {
        let (greenlet, dropped) = suspended(me);
        me.kill(&greenlet).unwrap();
        assert!(dropped.get() && greenlet.is_dead());
        me.kill(&greenlet).unwrap();
    });
}

fn s14_a_new_greenlet_is_dropped_without_running() {
    enter(|me: &Root<()>| {
        let dropped = Rc::new(Cell::new(false));
        let flag = Flag(Rc::clone(&dropped));
        let new: Greenlet<()> = Greenlet::new(me, move |_, ()| {
            drop(flag);
            unreachable!("it is never started");
        });
        drop(new);
        assert!(dropped.get());
    });
}

fn s15_one_refused_switch_does_not_end_a_killed_greenlet() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let greenlet: Greenlet<()> = Greenlet::new(me, move |me, ()| {
            assert!(me.switch(&main, ()).unwrap_err().is_exit());
            // As a destructor would that does not know of the kill.
            assert!(me.switch(&main, ()).unwrap_err().is_exit());
            Ok(())
        });
        me.switch(&greenlet, ()).unwrap();
        me.kill(&greenlet).unwrap();
        assert!(greenlet.is_dead());
    });
}

fn s2_a_greenlet_enters_again() {
    let sum = enter(|me| {
        let outer = Greenlet::new(me, |_, n: u64| {
            enter(|me| {
                let inner = Greenlet::new(me, |_, text: String| Ok(text.len() as u64));
                Ok(n + me.switch(&inner, "four".into())?)
            })
        });
        me.switch(&outer, 38)
    });
    assert_eq!(sum.unwrap(), 42);
}

fn s15_a_killed_greenlet_that_goes_on_switching_ends_the_process() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let stubborn: Greenlet<()> = Builder::new()
            .name("stubborn")
            .build(me, move |me, ()| {
                loop {
                    let _: Result<(), Thrown> = me.switch(&main, ());
                }
            })
            .unwrap();
        me.switch(&stubborn, ()).unwrap();
        drop(stubborn);
    });
}

fn names_the_stubborn_if_aborted(ending: &Ending) -> bool {
    aborted_if_built_to(ending) && ending.stderr.contains("stubborn") == cfg!(panic = "abort")
}

fn s11_a_panic_goes_to_the_parent() {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let panicking: Greenlet<()> = Greenlet::new(me, move |me, ()| {
            me.switch(&main, ())?;
            panic!("on purpose");
        });
        me.switch(&panicking, ()).unwrap();
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| me.switch(&panicking, ())));
        assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"on purpose"));
    });
}

/// AddressSanitizer warns if an unwinder is on a stack that it does not know.
fn aborted_if_built_to_without_a_warning(ending: &Ending) -> bool {
    aborted_if_built_to(ending) && !ending.stderr.contains("WARNING")
}

fn aborted_if_built_to(ending: &Ending) -> bool {
    if cfg!(panic = "abort") {
        ending.is_abort()
    } else {
        ending.is_success()
    }
}
