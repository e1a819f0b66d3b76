//! What greenlet keeps of a thread, and what happens to it when the thread ends.
//!
//! A thread's record is made when it first uses greenlet. It is found by the identity of the
//! thread, so that the way to it needs no thread-local variable: under the GIL the record that was
//! used last usually is the one.
//!
//! A thread ends without the GIL and without Python. All that it does then is to mark its main
//! greenlet and to queue its record; the interpreter's main thread frees the record later
//! (`reaper.rs`).

use core::{
    cell::{Cell, UnsafeCell},
    mem, ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};
use std::alloc::{Layout, alloc};

use libc::pthread_t;
use pyo3_ffi::{PyErr_Clear, PyErr_NoMemory, PyErr_WriteUnraisable, PyExc_RuntimeError, PyObject};

use crate::{
    exceptions::{self, Exception},
    green::Green,
    object, reaper,
    refs::{Owned, Slot},
    shim,
};

/// A thread that uses greenlet.
pub(crate) struct Thread {
    ident: pthread_t,
    /// What [`FORKS`] is in the process that has this thread.
    forks: Cell<usize>,
    /// Its main greenlet, until the record is freed.
    pub(crate) main: Slot,
    /// The greenlet that runs in it.
    pub(crate) current: Slot,
    /// What `settrace` has set, or null.
    pub(crate) trace: Slot,
    /// Greenlets whose last reference went away in another thread; the references are this
    /// list's.
    doomed: UnsafeCell<Vec<Owned>>,
    has_doomed: Cell<bool>,
    /// The next in the queue of those whose threads have ended.
    pub(crate) next: Cell<*mut Thread>,
}

/// The record that was used last. Its thread takes it out when it ends, without the GIL.
static RECENT: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());

/// How often this process was forked off. A child has one thread, and new ones take the identities of
/// those that it has not: a record of another process is nobody's.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// Sees to [`FORKS`]. `None`: with an exception.
pub(crate) unsafe fn watch_forks() -> Option<()> {
    // SAFETY: the function stays where it is, as CPython unloads no extension.
    if unsafe { libc::pthread_atfork(None, None, Some(in_child)) } != 0 {
        // SAFETY: the GIL is held.
        unsafe { PyErr_NoMemory() };
        return None;
    }
    Some(())
}

unsafe extern "C" fn in_child() {
    let forks = FORKS.fetch_add(1, Ordering::Relaxed) + 1;
    // SAFETY: this thread's record, if it has one.
    if let Ok(thread) = MINE.try_with(|mine| mine.0.get())
        && let Some(thread) = unsafe { thread.as_ref() }
    {
        thread.forks.set(forks);
    }
}

thread_local!(static MINE: Mine = const { Mine(Cell::new(ptr::null_mut())) });

/// The thread's own reference to its record.
struct Mine(Cell<*mut Thread>);

impl Drop for Mine {
    fn drop(&mut self) {
        let thread = self.0.get();
        if thread.is_null() {
            return;
        }
        let _ = RECENT.compare_exchange(
            thread,
            ptr::null_mut(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        // SAFETY: the record is freed by the reaper only, to which it goes now.
        unsafe {
            Green::of((*thread).main.get())
                .thread
                .store(ptr::null_mut(), Ordering::Release);
            reaper::queue(thread);
        }
    }
}

#[inline(always)]
fn identity() -> pthread_t {
    // SAFETY: has no precondition.
    unsafe { libc::pthread_self() }
}

impl Thread {
    /// Returns the calling thread's record. `None`: with an exception.
    ///
    /// # Safety
    /// The GIL stays held as long as the result is used.
    #[inline(always)]
    pub(crate) unsafe fn running<'a>() -> Option<&'a Thread> {
        // SAFETY: a record is freed with the GIL, by which time it is not the recent one.
        if let Some(recent) = unsafe { RECENT.load(Ordering::Relaxed).as_ref() }
            && recent.is_running()
        {
            return Some(recent);
        }
        // SAFETY: the contract.
        unsafe { Self::find() }
    }

    /// Returns the calling thread's record if that is the one which was used last. For the handler
    /// of a fault, which may not touch a thread-local variable for the first time. While the thread
    /// holds the GIL, the record that was used last usually is its own.
    pub(crate) fn of_fault<'a>() -> Option<&'a Thread> {
        // SAFETY: with the GIL, a record that is found here is not freed. Without it, as in C code
        // that has released it, another thread's may be freed between the two lines: the look at it
        // then reads freed memory, or faults in a process that a fault is about to end.
        let recent = unsafe { RECENT.load(Ordering::Relaxed).as_ref() };
        recent.filter(|thread| thread.is_running())
    }

    /// Returns `true` in the thread that it is of.
    #[inline(always)]
    pub(crate) fn is_running(&self) -> bool {
        self.ident == identity() && self.forks.get() == FORKS.load(Ordering::Relaxed)
    }

    /// [`running`](Self::running) where the record that was used last is another thread's.
    #[cold]
    unsafe fn find<'a>() -> Option<&'a Thread> {
        let Ok(mut thread) = MINE.try_with(|mine| mine.0.get()) else {
            // SAFETY: the GIL is held.
            unsafe { exceptions::raise(PyExc_RuntimeError, c"greenlet: this thread is ending") };
            return None;
        };
        if thread.is_null() {
            // SAFETY: the GIL is held.
            let made = unsafe { Self::new() }?;
            // To make it may have run Python code, and that may have made another.
            let raced = MINE.with(|mine| mine.0.get());
            if raced.is_null() {
                thread = Box::into_raw(made);
                MINE.with(|mine| mine.0.set(thread));
                // SAFETY: it lives until the reaper frees it.
                unsafe { Green::of((*thread).main.get()) }
                    .thread
                    .store(thread, Ordering::Relaxed);
            } else {
                thread = raced;
            }
        }
        RECENT.store(thread, Ordering::Relaxed);
        // SAFETY: it lives until the reaper frees it.
        Some(unsafe { &*thread })
    }

    /// Makes the calling thread's record, with a main greenlet that does not know it yet. `None`: with
    /// an exception.
    unsafe fn new() -> Option<Box<Thread>> {
        // SAFETY: the GIL is held.
        let main = unsafe { object::new_main() }?;
        let layout = Layout::new::<Self>();
        // SAFETY: it has a size. `Box::new` would end the process where there is no memory.
        let memory = unsafe { alloc(layout) }.cast::<Self>();
        if memory.is_null() {
            // SAFETY: the GIL is held.
            unsafe { PyErr_NoMemory() };
            return None;
        }
        let thread = Self {
            ident: identity(),
            forks: Cell::new(FORKS.load(Ordering::Relaxed)),
            current: Slot::empty(),
            trace: Slot::empty(),
            doomed: UnsafeCell::new(Vec::new()),
            has_doomed: Cell::new(false),
            next: Cell::new(ptr::null_mut()),
            main: {
                let slot = Slot::empty();
                slot.set(Some(main));
                slot
            },
        };
        thread.current.set(thread.main.to_owned());
        // SAFETY: memory of this layout, from the allocator that boxes have.
        Some(unsafe {
            memory.write(thread);
            Box::from_raw(memory)
        })
    }

    /// The running greenlet.
    pub(crate) fn current(&self) -> &Green {
        // SAFETY: it is a greenlet, kept by the slot, and it stays alive while it runs.
        unsafe { Green::of(self.current.get()) }
    }

    /// Ends those greenlets of this thread whose last reference went away in another. May run
    /// Python code. The pending exception stays.
    ///
    /// # Safety
    /// The calling thread is this one.
    #[inline(always)]
    pub(crate) unsafe fn end_doomed(&self) {
        if self.has_doomed.get() {
            // SAFETY: the contract.
            unsafe { self.drop_doomed(|_| ()) }
        }
    }

    /// Drops the list, and calls `before` with each greenlet first. `dealloc` ends them.
    #[cold]
    pub(crate) unsafe fn drop_doomed(&self, before: impl Fn(&Green)) {
        self.has_doomed.set(false);
        // SAFETY: no reference into the list outlives a statement here, nor in `doom`.
        let doomed = mem::take(unsafe { &mut *self.doomed.get() });
        if shim::is_finalizing() {
            // The objects may be gone already.
            mem::forget(doomed);
            return;
        }
        let pending = Exception::take();
        for object in doomed {
            // SAFETY: the list owns it.
            before(unsafe { Green::of(object.as_ptr()) });
            drop(object);
            if exceptions::is_pending() {
                // SAFETY: the GIL is held.
                unsafe {
                    PyErr_WriteUnraisable(ptr::null_mut());
                    PyErr_Clear();
                }
            }
        }
        pending.restore();
    }

    /// Has this thread end one of its greenlets, whose last reference went away in another thread.
    pub(crate) unsafe fn doom(&self, object: *mut PyObject) {
        // SAFETY: a live object; the GIL is held; see `drop_doomed`.
        unsafe {
            let list = &mut *self.doomed.get();
            if list.try_reserve(1).is_err() {
                // It is leaked, as upstream's would end the process.
                mem::forget(Owned::from_borrowed(object));
                return;
            }
            list.push(Owned::from_borrowed(object));
        }
        self.has_doomed.set(true);
    }
}
