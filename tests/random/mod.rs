//! Runs random programs, and minimizes one that fails.
//!
//! * `PROPTEST_CASES` sets the number of programs.
//! * `PROPTEST_RNG_SEED` sets the seed, which each run prints.
//! * With `GREENLET_PROGRAMS_APART` set each program runs in a process of its own, so that one that crashes
//!   or hangs is minimized, too.

use std::{
    env,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
};

use proptest::{
    prelude::{Strategy, any, prop},
    test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestError, TestRunner},
};

use crate::machine::emulated;

/// What a frame does with the result of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Use the `try_` form.
    pub try_form: bool,
    /// Keep the result among the frame's locals. Otherwise it is dropped at once.
    pub keep: bool,
    /// End the frame with an error, as `?` does.
    pub propagate: bool,
    /// Catch a panic.
    pub catch: bool,
}

pub fn how() -> impl Strategy<Value = How> {
    (
        any::<bool>(),
        prop::bool::weighted(0.25),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(try_form, keep, propagate, catch)| How {
            try_form,
            keep,
            propagate,
            catch,
        })
}

/// The most seconds that a program may take in a process of its own.
#[cfg(unix)]
const MOST: u32 = 10;

/// Returns the number of programs: the environment's, else `usual`, or fewer under an emulator.
pub fn number_of_programs(usual: u32, under_an_emulator: u32) -> u32 {
    if let Ok(cases) = env::var("PROPTEST_CASES") {
        return cases.parse().expect("PROPTEST_CASES is a number");
    }
    if emulated() {
        eprintln!("{under_an_emulator} programs of {usual}: an emulator takes so much longer");
        return under_an_emulator;
    }
    usual
}

/// Checks random programs. Panics with a minimized one if one fails.
pub fn check_programs<S: Strategy>(
    number: u32,
    programs: &S,
    check: impl Fn(&S::Value) -> Result<(), String>,
) {
    let mut config = Config {
        cases: number,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        // The fastest. The quality of the numbers does not matter.
        rng_algorithm: RngAlgorithm::XorShift,
        ..Config::default()
    };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(()),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    // Not captured by libtest, because a program may crash.
    let _ = io::stderr().write_all(format!("PROPTEST_RNG_SEED={seed}\n").as_bytes());
    let mut runner = TestRunner::new(config);
    let check = |program| check(&program).map_err(TestCaseError::fail);
    match runner.run(programs, check) {
        Ok(()) => {}
        Err(TestError::Fail(why, program)) => panic!("{why}\n{runner}\n{program:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// Returns `true` if each program runs in a process of its own.
pub fn are_apart() -> bool {
    env::var_os("GREENLET_PROGRAMS_APART").is_some()
}

/// Checks one program, in a process of its own if that is set.
pub fn check_one(check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    if !are_apart() {
        return check();
    }
    apart(check)
}

#[cfg(windows)]
fn apart(_: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    panic!("GREENLET_PROGRAMS_APART is for systems that fork")
}

#[cfg(unix)]
fn apart(check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let ending = crate::process::in_child(|| {
        // SAFETY: ends the process, should it hang.
        unsafe { libc::alarm(MOST) };
        if let Err(why) = check() {
            panic!("{why}");
        }
    });
    if ending.is_success() {
        Ok(())
    } else {
        Err(format!("{}\n{}", ending.status, ending.stderr))
    }
}
