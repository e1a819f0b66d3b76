//! With the feature `tsan` reports of ThreadSanitizer show the calls of the right greenlet.
//! `ci/tools.sh tsan` runs this, and checks that it fails without the feature.

// What it links to, it finds by weak symbols of ELF.
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

// What an instrumented function calls where it writes eight bytes.
weak_function!(note_write: unsafe extern "C" fn(*mut c_void) = "__tsan_write8");
// Of `sanitizer/common_interface_defs.h` of compiler-rt.
weak_function!(set_report_fd: unsafe extern "C" fn(*mut c_void) = "__sanitizer_set_report_fd");

fn report_to(file: &impl AsRawFd) {
    let set = set_report_fd().expect("this is for ThreadSanitizer: ci/tools.sh tsan");
    // SAFETY: a descriptor that is open.
    unsafe { set(without_provenance_mut(file.as_raw_fd() as usize)) };
}

/// It counts as written by two threads without order. Nothing is written in fact.
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

/// Writes in a greenlet that is suspended at the end: what was done by one that is gone may be
/// taken for the next one's. The flags are relaxed, so that they put nothing in order.
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

    // Of a write whose calls it cannot make out it says nothing.
    assert!(report.contains("data race"), "an unseen race: {report}");
    // After the two writes it shows who has created the threads and the greenlets, and where.
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
