//! The crate's thread-locals under Miri.
//!
//! There each greenlet has a thread (`arch/miri.rs`), but a thread-local must have one value for all
//! greenlets of a thread. So the values belong to a *home*, that of the thread which entered, and the
//! threads of its greenlets use it.
//!
//! The test's own thread-locals, and std's, do not follow. Of std's the crate uses one, the count
//! of panics; [`others_unwind`] stands in for it.

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

// SAFETY: nobody uses it.
unsafe impl Send for Shared {}

std::thread_local! {
    static HOME: Cell<Option<&'static Home>> = const { Cell::new(None) };
    static END: End = const { End };
}

/// Drops what has a destructor when the thread ends whose home it is.
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
            // SAFETY: made by `make`; whoever asks for it from now on is told that it is gone.
            unsafe { ptr::drop_in_place(value) };
        }
    }
}

/// The home of the calling thread.
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

/// To be called at the beginning of the thread of a greenlet.
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

/// Is a suspended greenlet of this thread unwinding?
pub(super) fn others_unwind() -> bool {
    home().unwinding.get() > 0
}

/// Has one value for each home. Used like [`std::thread::LocalKey`].
pub(crate) struct PerThread<T: 'static>(pub(crate) fn() -> T);

/// The value has been dropped: the thread is ending.
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
