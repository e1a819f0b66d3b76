//! The crate without `std`, in a program that unwinds. The crate does not catch panics then: a panic that
//! must not unwind past one of its frames aborts the process.
//!
//! ```text
//! cargo test -p greenlet --no-default-features --test without_std
//! ```

#![cfg(not(feature = "std"))]

#[path = "process/aborted.rs"]
mod aborted;

use std::{
    any::type_name,
    env, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{self, Command},
};

use greenlet::{Builder, Child, Root, StackMemory, Thrown, enter};

const IN_CHILD: &str = "GREENLET_TEST_IN_CHILD";

/// Runs `act` as the main greenlet of another process, which must abort with `words`. `act` is a closure of a
/// test, which starts again in that process.
#[track_caller]
fn assert_aborts_with<F: FnOnce(&Root<()>)>(words: &str, act: F) {
    // `without_std::test::{{closure}}`
    let test = type_name::<F>().split("::").nth(1).expect("a test");
    if env::var_os(IN_CHILD).is_some() {
        // SAFETY: this thread is the only one in this process that uses the crate.
        let _ = catch_unwind(AssertUnwindSafe(|| unsafe { enter(act) }));
        process::exit(0);
    }
    let child = Command::new(env::current_exe().expect("this program has a path"))
        .args([test, "--exact", "--nocapture"])
        .env(IN_CHILD, "1")
        .output()
        .expect("this program starts");
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(
        aborted::is_abort(child.status),
        "{}\n{stderr}",
        child.status
    );
    assert!(stderr.contains(words), "no {words:?} in:\n{stderr}");
}

const SIZE: usize = 64 * 1024;

/// A stack in `SIZE` leaked bytes, of which this is the beginning.
struct Stack(*mut u8);

// SAFETY: nobody else has them.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.0.wrapping_add(SIZE)
    }

    fn size(&self) -> usize {
        SIZE
    }
}

fn stack() -> Stack {
    Stack(Box::into_raw(Box::<[u8; SIZE]>::new_uninit()).cast())
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("by a destructor");
    }
}

#[test]
fn s14_a_body_whose_destructor_panics_ends_the_process() {
    assert_aborts_with("by a destructor", |me| {
        let owned = PanicsWhenDropped;
        let new = Builder::new().stack(stack());
        let new = new.build(me, move |_: &Child<(), _>, ()| {
            let _ = &owned;
            Ok(())
        });
        let _ = catch_unwind(AssertUnwindSafe(|| drop(new)));
    });
}

#[test]
fn s20_a_greenlet_whose_destructor_panics_ends_the_process_not_its_enter() {
    assert_aborts_with("by a destructor", |me| {
        let owned = PanicsWhenDropped;
        let member = Builder::new().stack(stack());
        let member = member.build(me, move |_: &Child<(), _>, ()| {
            let _ = &owned;
            Ok(())
        });
        mem::forget(member);
    });
}

#[test]
fn s15_a_killed_greenlet_that_catches_panics_and_goes_on_switching_ends_the_process() {
    assert_aborts_with("stubborn", |me| {
        let main = me.handle();
        let stubborn = Builder::new().name("stubborn").stack(stack());
        let stubborn = stubborn.build(me, move |me, ()| {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                loop {
                    let _: Result<(), Thrown> = me.switch(&main, ());
                }
            }));
            Ok(())
        });
        me.switch(stubborn.as_ref().unwrap(), ()).unwrap();
        drop(stubborn);
    });
}
