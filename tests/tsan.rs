//! With the feature `tsan`, ThreadSanitizer's reports show the stack of the greenlet that ran.
//! `ci/tools.sh tsan` runs this, and checks that it fails without the feature.

// The sanitizer's functions are weak symbols of ELF.
#![cfg(all(target_os = "linux", not(miri)))]
#![cfg(unix)] // not on Windows: there is no ThreadSanitizer

use std::{
    ffi::c_void,
    fs::File,
    hint::{self, black_box},
    io::Read,
    os::fd::AsRawFd,
    ptr::without_provenance_mut,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use greenlet::{Current, Greenlet, Root, enter};

use crate::{process, runtime::weak_function};

// An instrumented function calls this before it writes eight bytes.
weak_function!(note_write: unsafe extern "C" fn(*mut c_void) = "__tsan_write8");
// From compiler-rt's `sanitizer/common_interface_defs.h`.
weak_function!(set_report_fd: unsafe extern "C" fn(*mut c_void) = "__sanitizer_set_report_fd");

fn report_to(file: &impl AsRawFd) {
    let set = set_report_fd().expect("this is for ThreadSanitizer: ci/tools.sh tsan");
    // SAFETY: a descriptor that is open.
    unsafe { set(without_provenance_mut(file.as_raw_fd() as usize)) };
}

/// Reported as written by two threads without synchronization. In fact nothing is written.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

#[inline(never)]
fn greenlet_writes() {
    let note = note_write().expect("ThreadSanitizer");
    // SAFETY: only takes a note.
    unsafe { note(WRITTEN.as_ptr().cast()) };
    black_box(());
}

#[inline(never)]
fn parent_waits(me: &Current<()>, writer: &Greenlet<()>) {
    black_box(me.switch(writer, ())).unwrap();
}

/// Writes in a greenlet that is still suspended at the end, because the sanitizer may attribute accesses of a
/// finished one to the next. The flags are relaxed, so they do not synchronize.
fn write(before: &AtomicBool, after: &AtomicBool, until: &AtomicBool) {
    enter(|me: &Root<()>| {
        let main = me.handle();
        let writer = Greenlet::new(me, move |me, ()| {
            greenlet_writes();
            me.switch(&main, ())
        });
        wait_for(before);
        parent_waits(me, &writer);
        after.store(true, Ordering::Relaxed);
        wait_for(until);
    });
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::Relaxed) {
        hint::spin_loop();
    }
}

#[test]
#[ignore = "for ThreadSanitizer: ci/tools.sh tsan"]
fn a_report_shows_the_calls_of_the_running_greenlet_alone() {
    let (reader, writer) = process::pipe();
    report_to(&writer);
    let [start, first, second] = [true, false, false].map(AtomicBool::new);
    thread::scope(|threads| {
        threads.spawn(|| write(&start, &first, &second));
        threads.spawn(|| write(&first, &second, &start));
    });
    report_to(&std::io::stderr());
    drop(writer);
    let mut report = String::new();
    File::from(reader)
        .read_to_string(&mut report)
        .expect("a pipe can be read");

    // The sanitizer does not report an access whose stack it cannot restore.
    assert!(report.contains("data race"), "an unseen race: {report}");
    // Behind the two writes the report shows where threads and greenlets were created.
    let writes = report
        .split(" created by ")
        .next()
        .expect("what is before it");
    assert!(writes.contains("greenlet_writes"), "{report}");
    assert!(
        !writes.contains("parent_waits"),
        "calls of another stack:\n{report}"
    );
}
