//! The crate's thread-locals under Miri.
//!
//! Under Miri each greenlet has a thread (`arch/miri.rs`), but all greenlets of a thread must share its
//! thread-locals. So the values belong to a *home*, that of the thread which entered, and the threads of its
//! greenlets use this home.
//!
//! Thread-locals of the tests and of std are not shared this way. The crate uses one of std's, the count of panics,
//! and replaces it by [`others_unwind`].

use core::{
    any::Any,
    cell::{Cell, RefCell},
    ptr,
};
use std::{
    boxed::Box,
    sync::{Mutex, PoisonError},
    thread,
    vec::Vec,
};

/// The values of one thread, which all threads of its greenlets share.
pub(crate) struct Home {
    values: RefCell<Vec<Entry>>,
    /// How many suspended greenlets are unwinding.
    unwinding: Cell<usize>,
}

struct Entry {
    /// The address of the [`PerThread`].
    key: usize,
    /// Made by `Box::into_raw`; null once it has been dropped.
    value: *mut dyn Any,
    needs_drop: bool,
    is_dropped: bool,
}

/// All homes ever made: values without a destructor stay usable while a thread ends.
static HOMES: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

#[expect(dead_code, reason = "it keeps what it points to reachable")]
struct Shared(&'static Home);

// SAFETY: nothing uses it.
unsafe impl Send for Shared {}

std::thread_local! {
    static HOME: Cell<Option<&'static Home>> = const { Cell::new(None) };
    static END: End = const { End };
}

/// Drops the values that have a destructor when the thread of the home ends.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let home = home();
        loop {
            let mut values = home.values.borrow_mut();
            let next = values.iter_mut().find(|it| it.needs_drop && !it.is_dropped);
            let Some(entry) = next else { break };
            entry.is_dropped = true;
            let value = entry.value;
            drop(values);
            // SAFETY: `Box::into_raw` has made it. `is_dropped` keeps it from being used from now on.
            unsafe { ptr::drop_in_place(value) };
        }
    }
}

/// Returns the home of the calling thread.
pub(crate) fn home() -> &'static Home {
    HOME.get().unwrap_or_else(|| {
        let home = Box::leak(Box::new(Home {
            values: RefCell::default(),
            unwinding: Cell::new(0),
        }));
        let mut homes = HOMES.lock().unwrap_or_else(PoisonError::into_inner);
        homes.push(Shared(home));
        HOME.set(Some(home));
        // It fails while the thread ends: then nothing is dropped.
        let _ = END.try_with(|_| ());
        home
    })
}

/// Makes the thread of a greenlet use a home. Called at the beginning of the thread.
pub(crate) fn follow(home: &'static Home) {
    HOME.set(Some(home));
}

/// Runs `wait`, in which the calling greenlet is suspended.
pub(crate) fn while_suspended<R>(wait: impl FnOnce() -> R) -> R {
    let unwinding = &home().unwinding;
    let unwinds = usize::from(thread::panicking());
    unwinding.set(unwinding.get() + unwinds);
    let result = wait();
    unwinding.set(unwinding.get() - unwinds);
    result
}

/// Returns `true` if a suspended greenlet of this thread unwinds.
pub(super) fn others_unwind() -> bool {
    home().unwinding.get() > 0
}

/// A key with one value for each home, used like [`std::thread::LocalKey`].
pub(crate) struct PerThread<T: 'static>(pub(crate) fn() -> T);

/// The error for a value that has been dropped because the thread is ending.
#[derive(Debug)]
pub(crate) struct Gone;

impl<T: 'static> PerThread<T> {
    pub(crate) fn with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> R {
        self.try_with(use_it).expect("the thread is not ending")
    }

    pub(crate) fn try_with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> Result<R, Gone> {
        let home = home();
        let key = ptr::from_ref(self).addr();
        let find = || {
            let values = home.values.borrow();
            let entry = values.iter().find(|entry| entry.key == key)?;
            Some((entry.value, entry.is_dropped))
        };
        let (value, is_dropped) = find().unwrap_or_else(|| {
            let value: *mut dyn Any = Box::into_raw(Box::new((self.0)()));
            home.values.borrow_mut().push(Entry {
                key,
                value,
                needs_drop: core::mem::needs_drop::<T>(),
                is_dropped: false,
            });
            (value, false)
        });
        if is_dropped {
            return Err(Gone);
        }
        // SAFETY: a box of a `T`, by the key; it is never freed.
        Ok(use_it(unsafe { &*value.cast::<T>() }))
    }
}

/// As in `hosted.rs`, for the values of a home.
macro_rules! per_thread {
    ($($(#[$attribute:meta])* static $name:ident: $type:ty = $value:expr;)+) => {
        $($(#[$attribute])*
        static $name: $crate::host::carried::PerThread<$type> =
            $crate::host::carried::PerThread(|| $value);)+
    };
}
pub(crate) use per_thread;
