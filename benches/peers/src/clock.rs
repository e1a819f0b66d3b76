//! The clock: time that this process has had the processor, so that what others do on the same
//! core in between does not count.

use std::{mem, sync::LazyLock, time::Duration};

#[derive(Clone, Copy)]
pub struct Stopwatch(Duration);

impl Stopwatch {
    pub fn start() -> Self {
        Self(processor_time())
    }

    /// As a number, for other languages.
    pub fn to_nanos(self) -> u64 {
        self.0.as_nanos() as u64
    }

    pub fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    /// Without what reading the clock costs.
    pub fn elapsed(self) -> Duration {
        (processor_time() - self.0).saturating_sub(*COST)
    }
}

/// What an empty measurement comes to: the clock is a system call, and some measurements are
/// short.
static COST: LazyLock<Duration> = LazyLock::new(|| {
    let mut empty: Vec<_> = (0..1001)
        .map(|_| {
            let start = processor_time();
            processor_time() - start
        })
        .collect();
    empty.sort();
    empty[empty.len() / 2]
});

fn processor_time() -> Duration {
    // SAFETY: plain numbers, for which zero will do, and a clock that every process has.
    unsafe {
        let mut time = mem::zeroed::<libc::timespec>();
        let result = libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time);
        assert_eq!(result, 0, "Linux has this clock");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}
