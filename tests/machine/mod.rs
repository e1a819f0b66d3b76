//! Properties of the machine that runs the tests, and skipping tests that cannot run on it.
//!
//! * `GREENLET_WINE` is set if the tests run under Wine, which does not emulate the processor.
//! * `GREENLET_EMULATED` is set if the processor is emulated: to the lowest possible version of QEMU, or to 1
//!   if the version is unknown.
//! * With `GREENLET_ALL_TOOLS` set, a test fails if a program is missing that it needs.
//! * `GREENLET_SKIPPED` names a file to which each skip is added, for `ci/steps.sh`.

#![allow(dead_code, reason = "each test uses its own part")]

use std::{
    env,
    fmt::Display,
    fs::OpenOptions,
    io::{self, Write},
    thread,
};

/// Returns `true` under an emulator, which is many times slower than a processor.
pub fn emulated() -> bool {
    env::var_os("GREENLET_EMULATED").is_some()
}

/// Returns `true` if reserved address space takes memory of the host. QEMU before 10 accepts a mapping of
/// 64 TiB and takes some 20 GB for its own records of the pages. Wine keeps records of pages, too.
pub fn address_space_takes_memory() -> bool {
    let is_old = |least: String| least.parse().unwrap_or(1) < 10;
    usize::BITS == 64
        && (env::var_os("GREENLET_WINE").is_some()
            || env::var("GREENLET_EMULATED").is_ok_and(is_old))
}

/// The reason to skip a test that reserves more address space than there is memory.
pub const TAKES_MEMORY: &str = "an emulator that takes memory for reserved address space";

/// Returns why a test cannot measure or limit the memory of this process; `None` if it can.
pub fn unmeasurable() -> Option<&'static str> {
    if emulated() {
        Some("the emulator's own memory would be measured or limited")
    } else if cfg!(not(target_os = "linux")) {
        Some("only Linux says in /proc what memory a process has, and limits it")
    } else {
        None
    }
}

#[cfg(windows)]
pub fn page_size() -> usize {
    // The page size of every x86 processor.
    4096
}

#[cfg(unix)]
pub fn page_size() -> usize {
    // SAFETY: no precondition.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    bytes.try_into().expect("every system has pages")
}

/// Reports that a test leaves something out, and why. The test itself passes.
pub fn skip(why: impl Display) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    let skipped = format!("{test}: {why}");
    // In one write, and not captured by libtest.
    let _ = io::stderr().write_all(format!("skipped: {skipped}\n").as_bytes());
    if let Some(list) = env::var_os("GREENLET_SKIPPED") {
        let list = OpenOptions::new().append(true).open(list);
        let mut list = list.expect("the list of skips is there");
        list.write_all(format!("{skipped}\n").as_bytes())
            .expect("the list of skips can be written");
    }
}

/// As [`skip`], for a missing program that can be installed.
#[track_caller]
pub fn skip_for_want_of(tool: impl Display) {
    assert!(
        env::var_os("GREENLET_ALL_TOOLS").is_none(),
        "GREENLET_ALL_TOOLS is set, but this is missing: {tool}"
    );
    skip(format_args!("this is missing: {tool}"));
}

/// Declares thread-locals that all greenlets of a thread share. Under Miri each greenlet has a thread of its
/// own and tests run one at a time, so they are plain statics.
#[cfg(not(miri))]
#[macro_export]
macro_rules! shared_by_greenlets {
    ($(static $name:ident: $type:ty = $value:expr;)+) => {
        thread_local! { $(static $name: $type = $value;)+ }
    };
}
#[cfg(miri)]
#[macro_export]
macro_rules! shared_by_greenlets {
    ($(static $name:ident: $type:ty = $value:expr;)+) => {
        $(static $name: $crate::machine::Shared<$type> = $crate::machine::Shared::new(|| $value);)+
    };
}

/// What [`shared_by_greenlets!`] declares under Miri.
#[cfg(miri)]
pub struct Shared<T> {
    value: std::cell::OnceCell<T>,
    initial: fn() -> T,
}

// SAFETY: tests run one at a time, and so do the threads of a test's greenlets.
#[cfg(miri)]
unsafe impl<T> Sync for Shared<T> {}

#[cfg(miri)]
impl<T> Shared<T> {
    pub const fn new(initial: fn() -> T) -> Self {
        Self {
            value: std::cell::OnceCell::new(),
            initial,
        }
    }

    pub fn with<R>(&self, use_it: impl FnOnce(&T) -> R) -> R {
        use_it(self.value.get_or_init(self.initial))
    }
}

#[cfg(miri)]
impl<T: Copy> Shared<std::cell::Cell<T>> {
    pub fn get(&self) -> T {
        self.with(std::cell::Cell::get)
    }

    pub fn set(&self, value: T) {
        self.with(|cell| cell.set(value));
    }

    pub fn replace(&self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

#[cfg(miri)]
impl<T: Default> Shared<std::cell::RefCell<T>> {
    pub fn set(&self, value: T) {
        self.with(|cell| drop(cell.replace(value)));
    }

    pub fn take(&self) -> T {
        self.with(std::cell::RefCell::take)
    }
}
