//! Thread-locals for the target on which std implements them by keys of the system (`x86_64-pc-windows-gnu`).
//! There std drops every value while the thread ends, also one without a destructor, and makes a new one at
//! a later access. The crate is used until the last destructor has run, so it keeps its values itself: those
//! without a destructor until the thread has ended; of the others, it keeps the fact that they were dropped.

use core::{
    cell::Cell,
    ffi::c_void,
    mem::{self, ManuallyDrop},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};
use std::boxed::Box;

use super::windows::{TlsAlloc, TlsFree, TlsGetValue, TlsSetValue};

/// A key with one value for each thread. Used like [`std::thread::LocalKey`].
pub(crate) struct PerThread<T: 'static> {
    key: Key,
    first: fn() -> T,
}

/// The value has been dropped: the thread is ending.
#[derive(Debug)]
pub(crate) struct Gone;

/// One value.
#[repr(C)]
struct Value<T> {
    header: Header,
    value: ManuallyDrop<T>,
}

/// What all values begin with. Those of a thread are a list.
struct Header {
    next: *mut Header,
    /// Drops the value; `None`: there is nothing to be dropped, any more or at all.
    end: Cell<Option<unsafe fn(*mut Header)>>,
    is_dropped: Cell<bool>,
    free: unsafe fn(*mut Header),
}

/// The last value that the thread has made.
static LAST: Key = Key::new();

std::thread_local! {
    static END: End = const { End };
}

/// Drops what has a destructor when std drops this.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let mut value = LAST.get().cast::<Header>();
        while !value.is_null() {
            // SAFETY: values stay until the callback below.
            unsafe {
                if let Some(end) = (*value).end.take() {
                    (*value).is_dropped.set(true);
                    end(value);
                    // A destructor may have made others.
                    value = LAST.get().cast();
                } else {
                    value = (*value).next;
                }
            }
        }
    }
}

impl<T: 'static> PerThread<T> {
    pub(crate) const fn new(first: fn() -> T) -> Self {
        Self {
            key: Key::new(),
            first,
        }
    }

    #[inline]
    pub(crate) fn with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> R {
        self.try_with(use_it).expect("the thread is not ending")
    }

    #[inline]
    pub(crate) fn try_with<R>(&'static self, use_it: impl FnOnce(&T) -> R) -> Result<R, Gone> {
        let mut value = self.key.get().cast::<Value<T>>();
        if value.is_null() {
            value = self.make();
        }
        // SAFETY: made by `make`, for this key; it stays until the callback below.
        unsafe {
            if (*value).header.is_dropped.get() {
                return Err(Gone);
            }
            Ok(use_it(&(*value).value))
        }
    }

    #[cold]
    fn make(&self) -> *mut Value<T> {
        unsafe fn end<T>(value: *mut Header) {
            // SAFETY: called once, for a value of this type.
            unsafe { ManuallyDrop::drop(&mut (*value.cast::<Value<T>>()).value) };
        }
        unsafe fn free<T>(value: *mut Header) {
            // SAFETY: made below, of this type, and not used any more.
            drop(unsafe { Box::from_raw(value.cast::<Value<T>>()) });
        }
        let needs_drop = mem::needs_drop::<T>();
        let value = Box::into_raw(Box::new(Value {
            header: Header {
                next: LAST.get().cast(),
                end: Cell::new(needs_drop.then_some(end::<T>)),
                is_dropped: Cell::new(false),
                free: free::<T>,
            },
            value: ManuallyDrop::new((self.first)()),
        }));
        LAST.set(value.cast());
        self.key.set(value.cast());
        if needs_drop {
            // In the midst of that, the list is looked at again.
            let _ = END.try_with(|_| ());
        }
        // The linker keeps what something refers to.
        // SAFETY: a static.
        unsafe { ptr::read_volatile(&raw const AT_END) };
        value
    }
}

/// Called when a thread has ended, behind std's own callback, which is in `.CRT$XLB`: the linker puts
/// the sections in order ("PE Format", "TLS Callback Functions").
#[used]
#[unsafe(link_section = ".CRT$XLE")]
static AT_END: unsafe extern "system" fn(*mut c_void, u32, *mut c_void) = at_end;

unsafe extern "system" fn at_end(_: *mut c_void, reason: u32, _: *mut c_void) {
    const DLL_THREAD_DETACH: u32 = 3;
    if reason != DLL_THREAD_DETACH {
        return;
    }
    let mut value = LAST.get().cast::<Header>();
    LAST.set(ptr::null_mut());
    while !value.is_null() {
        // SAFETY: nothing of this thread runs any more but callbacks like this one.
        unsafe {
            let next = (*value).next;
            ((*value).free)(value);
            value = next;
        }
    }
}

/// A key of the system, made when it is first used.
struct Key(AtomicU32);

/// None has this number.
const UNMADE: u32 = u32::MAX;

impl Key {
    const fn new() -> Self {
        Self(AtomicU32::new(UNMADE))
    }

    #[inline]
    fn get(&self) -> *mut c_void {
        match self.0.load(Ordering::Acquire) {
            UNMADE => ptr::null_mut(),
            // SAFETY: a key that was made, and stays.
            key => unsafe { TlsGetValue(key) },
        }
    }

    fn set(&self, value: *mut c_void) {
        let mut key = self.0.load(Ordering::Acquire);
        if key == UNMADE {
            // SAFETY: no precondition.
            let made = unsafe { TlsAlloc() };
            assert_ne!(
                made, UNMADE,
                "the process has no key left for a thread-local"
            );
            match self
                .0
                .compare_exchange(UNMADE, made, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => key = made,
                Err(others) => {
                    key = others;
                    // SAFETY: nobody knows of it.
                    unsafe { TlsFree(made) };
                }
            }
        }
        // SAFETY: a key that was made, and stays.
        let is_set = unsafe { TlsSetValue(key, value) };
        assert_ne!(is_set, 0, "there is no memory for a thread-local");
    }
}

/// As in `hosted.rs`, for values that are kept here.
macro_rules! per_thread {
    ($($(#[$attribute:meta])* static $name:ident: $type:ty = $value:expr;)+) => {
        $($(#[$attribute])*
        static $name: $crate::host::tls_keys::PerThread<$type> =
            $crate::host::tls_keys::PerThread::new(|| $value);)+
    };
}
pub(crate) use per_thread;
