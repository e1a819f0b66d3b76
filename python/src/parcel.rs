//! What a switch carries: the arguments of `switch`, or a single value.
//!
//! They travel unpacked: the greenlet that receives them makes of them a call, if it is new, or a
//! value. Most switches carry one object or none, and then nothing is allocated.

use core::{cell::Cell, mem, ptr};

use pyo3_ffi::{
    self as ffi, PyDict_Size, PyErr_Clear, PyExc_TypeError, PyObject, PyObject_Call,
    PyObject_CallNoArgs, PyObject_CallOneArg, PySequence_Size, PyTuple_Check, PyTuple_GET_ITEM,
    PyTuple_GET_SIZE, PyTuple_New, PyTuple_Pack,
};

use crate::{exceptions, names, refs::Owned};

/// Where a greenlet finds what it is resumed with.
pub(crate) struct Parcel(Cell<Content>);

/// What is in a [`Parcel`]. It fits into two registers.
pub(crate) enum Content {
    /// There is nothing: the pending exception is thrown.
    Nothing,
    /// `switch()`.
    Empty,
    /// `switch(value)`, or a value from elsewhere, which may be a tuple.
    Single(Owned),
    /// `switch(*positional)`. The C API takes any object.
    Positional(Owned),
    /// `switch(*positional, **keywords)`: a tuple of the two.
    Both(Owned),
}

impl Content {
    /// The arguments of a call by the vector call protocol. `None`: with an exception.
    ///
    /// # Safety
    /// The pointers and the count are what CPython passes to a `METH_FASTCALL | METH_KEYWORDS`
    /// function.
    #[inline(always)]
    pub(crate) unsafe fn of_call(
        arguments: *const *mut PyObject,
        count: isize,
        names: *mut PyObject,
    ) -> Option<Self> {
        // SAFETY: `arguments` points to `count` objects and those with names (contract).
        unsafe {
            match (names.is_null(), count) {
                (true, 0) => Some(Self::Empty),
                (true, 1) => Some(Self::Single(Owned::from_borrowed(*arguments))),
                _ => Self::of_many(arguments, count, names),
            }
        }
    }

    /// [`of_call`](Self::of_call) for several arguments or such as have names.
    #[inline(never)]
    unsafe fn of_many(
        arguments: *const *mut PyObject,
        count: isize,
        names: *mut PyObject,
    ) -> Option<Self> {
        // SAFETY: the contract of `of_call`.
        unsafe {
            let (positional, keywords) = pack_call(arguments, count, names)?;
            match keywords {
                Some(keywords) => Self::both(&positional, &keywords),
                None => Some(Self::Positional(positional)),
            }
        }
    }

    /// Those of a call of the C API. `None`: with an exception.
    pub(crate) unsafe fn both(positional: &Owned, keywords: &Owned) -> Option<Self> {
        // SAFETY: live objects.
        let pair = unsafe { PyTuple_Pack(2, positional.as_ptr(), keywords.as_ptr()) };
        // SAFETY: a new reference.
        unsafe { Owned::from_new(pair) }.map(Self::Both)
    }

    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// What a suspended greenlet's `switch()` returns. Null: with an exception, which it may be that
    /// is thrown.
    #[inline(always)]
    pub(crate) unsafe fn into_value(self) -> *mut PyObject {
        // SAFETY: the contract.
        unsafe {
            match self {
                Self::Nothing => ptr::null_mut(),
                Self::Empty => names::empty_tuple().into_ptr(),
                Self::Single(value) => value.into_ptr(),
                Self::Positional(all) => only(all),
                Self::Both(pair) => value_of_both(pair),
            }
        }
    }

    /// Calls what a new greenlet is to run. Null: with an exception.
    ///
    /// # Safety
    /// It is not [`Nothing`](Self::Nothing).
    pub(crate) unsafe fn call(&self, run: *mut PyObject) -> *mut PyObject {
        // SAFETY: the contract.
        unsafe {
            let (positional, keywords) = match self {
                Self::Nothing | Self::Empty => return PyObject_CallNoArgs(run),
                Self::Single(value) => return PyObject_CallOneArg(run, value.as_ptr()),
                Self::Positional(all) => (all.as_ptr(), ptr::null_mut()),
                Self::Both(pair) => halves(pair),
            };
            if PyTuple_Check(positional) == 0 {
                exceptions::raise(PyExc_TypeError, c"argument list must be a tuple");
                return ptr::null_mut();
            }
            PyObject_Call(run, positional, keywords)
        }
    }
}

/// The positional arguments and those with names, borrowed.
unsafe fn halves(pair: &Owned) -> (*mut PyObject, *mut PyObject) {
    // SAFETY: a tuple of two.
    unsafe {
        (
            PyTuple_GET_ITEM(pair.as_ptr(), 0),
            PyTuple_GET_ITEM(pair.as_ptr(), 1),
        )
    }
}

/// The arguments with names if there are no others, the others if none has a name, or else the pair.
#[inline(never)]
unsafe fn value_of_both(pair: Owned) -> *mut PyObject {
    // SAFETY: the GIL is held; live objects.
    unsafe {
        let (positional, keywords) = halves(&pair);
        if PyDict_Size(keywords) == 0 {
            return only(Owned::from_borrowed(positional));
        }
        match PySequence_Size(positional) {
            0 => return Owned::from_borrowed(keywords).into_ptr(),
            -1 => PyErr_Clear(),
            _ => (),
        }
    }
    pair.into_ptr()
}

/// The item of a tuple of one; any other object itself.
#[inline(never)]
unsafe fn only(all: Owned) -> *mut PyObject {
    let tuple = all.as_ptr();
    // SAFETY: the GIL is held; a live object.
    unsafe {
        if PyTuple_Check(tuple) != 0 && PyTuple_GET_SIZE(tuple) == 1 {
            return Owned::from_borrowed(PyTuple_GET_ITEM(tuple, 0)).into_ptr();
        }
    }
    all.into_ptr()
}

/// The arguments of a call by the vector call protocol as a tuple and, if some have names, a
/// dictionary. `None`: with an exception.
///
/// # Safety
/// As for [`Content::of_call`].
pub(crate) unsafe fn pack_call(
    arguments: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> Option<(Owned, Option<Owned>)> {
    // SAFETY: `arguments` points to `count` objects and those with names (contract); the tuple has
    // room for `count`.
    unsafe {
        let positional = Owned::from_new(PyTuple_New(count))?;
        for index in 0..count {
            let argument = Owned::from_borrowed(*arguments.offset(index));
            ffi::PyTuple_SET_ITEM(positional.as_ptr(), index, argument.into_ptr());
        }
        if names.is_null() {
            return Some((positional, None));
        }
        let keywords = Owned::from_new(ffi::PyDict_New())?;
        for index in 0..PyTuple_GET_SIZE(names) {
            let (name, value) = (
                PyTuple_GET_ITEM(names, index),
                *arguments.offset(count + index),
            );
            if ffi::PyDict_SetItem(keywords.as_ptr(), name, value) < 0 {
                return None;
            }
        }
        Some((positional, Some(keywords)))
    }
}

impl Parcel {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(Content::Nothing))
    }

    /// Fills it; it is empty before.
    #[inline(always)]
    pub(crate) fn put(&self, content: Content) {
        let nothing = self.0.replace(content);
        debug_assert!(nothing.is_nothing());
        mem::forget(nothing);
    }

    /// Empties it.
    #[inline(always)]
    pub(crate) fn take(&self) -> Content {
        self.0.replace(Content::Nothing)
    }
}
