//! Where a debugger finds every greenlet of a stopped process or a core file, with or without debug
//! information. `greenlet-gdb.py` reads it and has the same layout.

use core::{
    mem::offset_of,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

use crate::{
    raw::Context,
    tree::{
        Block, Registry,
        thread::{self, Thread},
    },
};

/// The version of this layout. Change it with the layout of anything here, or with the meaning of an offset.
const VERSION: usize = 3;

/// The list of threads with greenlets, and the offsets by which a debugger reads them.
#[repr(C)]
struct Anchor {
    magic: [u8; 8],
    /// Offsets of fields, and sizes, bytes.
    layout: [usize; 13],
    first: AtomicPtr<Place>,
}

/// The anchor lies in a section of its own, which a debugger finds without symbols. There is one for each version of
/// the crate, and for each library that it is linked into.
#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__greenlet"))]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".greenlet"))]
static ANCHOR: Anchor = Anchor {
    magic: *b"greenlet",
    layout: [
        VERSION,
        size_of::<Anchor>(),
        offset_of!(Anchor, first),
        Context::DEBUGGED,
        Thread::DEBUGGED,
        Registry::DEBUGGED[0],
        Registry::DEBUGGED[1],
        Block::DEBUGGED[0],
        Block::DEBUGGED[1],
        Block::DEBUGGED[2],
        Block::DEBUGGED[3],
        Block::DEBUGGED[4],
        Block::DEBUGGED[5],
    ],
    first: AtomicPtr::new(ptr::null_mut()),
};

/// One thread's entry in the list. It stays in the list for ever and serves one thread after the other, so the list
/// needs no lock and is valid after a fork.
#[repr(C)]
struct Place {
    next: *const Place,
    /// Null if the entry is free.
    thread: AtomicPtr<Thread>,
    /// The system's number of that thread; zero if it is not known.
    number: AtomicU64,
    /// The address of the word that holds the address of the running greenlet's block, with a tag bit.
    running: AtomicPtr<()>,
}

/// Keeps this thread's entry until the thread ends.
struct Shown(&'static Place);

thread_local! {
    static SHOWN: Shown = Shown(Place::claim());
}

/// Shows this thread to debuggers until it ends. Does nothing while the thread ends.
pub(crate) fn show() {
    let _ = SHOWN.try_with(|_| ());
}

impl Place {
    fn claim() -> &'static Self {
        let thread = Thread::address().cast_mut();
        let running = thread::running_word().cast_mut();
        let mut next = ANCHOR.first.load(Ordering::Acquire).cast_const();
        // SAFETY: null, or a place in the list, where it stays.
        while let Some(place) = unsafe { next.as_ref() } {
            let free = ptr::null_mut();
            let claimed =
                place
                    .thread
                    .compare_exchange(free, thread, Ordering::AcqRel, Ordering::Relaxed);
            if claimed.is_ok() {
                place.number.store(thread_number(), Ordering::Relaxed);
                place.running.store(running, Ordering::Relaxed);
                return place;
            }
            next = place.next;
        }
        let place = Box::into_raw(Box::new(Self {
            next: ptr::null(),
            thread: AtomicPtr::new(thread),
            number: AtomicU64::new(thread_number()),
            running: AtomicPtr::new(running),
        }));
        let mut first = ANCHOR.first.load(Ordering::Acquire);
        loop {
            // SAFETY: nothing else refers to it before it is in the list.
            unsafe { (*place).next = first };
            match ANCHOR.first.compare_exchange_weak(
                first,
                place,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => break,
                Err(now) => first = now,
            }
        }
        // SAFETY: never freed, and not written to but through atomics from now on.
        unsafe { &*place }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.thread.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Returns the number by which a debugger knows the thread.
fn thread_number() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: asks only.
    let number = unsafe { libc::gettid() }.unsigned_abs().into();
    #[cfg(windows)]
    let number = crate::host::windows::thread_number();
    #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
    let number = 0;
    number
}
