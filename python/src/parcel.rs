//! What a switch carries: the arguments of `switch`, or a single value.
//!
//! They travel unpacked: the greenlet that receives them makes of them a call, if it is new, or a
//! value. Most switches carry one object or none, and then nothing is allocated.

use core::{cell::Cell, ptr};

use pyo3_ffi::{
    self as ffi, PyDict_Check, PyDict_Size, PyExc_TypeError, PyObject, PyObject_Call,
    PyObject_CallNoArgs, PyObject_CallOneArg, PySequence_Size, PyTuple_Check, PyTuple_GET_ITEM,
    PyTuple_GET_SIZE, PyTuple_New, PyTuple_Pack,
};

use crate::{
    exceptions,
    refs::{Owned, Slot},
};

/// Where a greenlet finds what it is resumed with.
pub(crate) struct Parcel {
    kind: Cell<Kind>,
    value: Slot,
    keywords: Slot,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// There is nothing: an exception is pending.
    Nothing,
    /// `switch()`.
    Empty,
    /// `switch(value)`, or a value from elsewhere, which may be a tuple.
    Single,
    /// `switch(*value, **keywords)`.
    Arguments,
}

/// What is in a [`Parcel`].
pub(crate) struct Content {
    kind: Kind,
    value: Option<Owned>,
    keywords: Option<Owned>,
}

impl Content {
    /// An exception is thrown instead.
    pub(crate) const NOTHING: Content = Content {
        kind: Kind::Nothing,
        value: None,
        keywords: None,
    };

    pub(crate) const EMPTY: Content = Content {
        kind: Kind::Empty,
        value: None,
        keywords: None,
    };

    pub(crate) fn single(value: Owned) -> Self {
        Self {
            kind: Kind::Single,
            value: Some(value),
            keywords: None,
        }
    }

    pub(crate) fn arguments(positional: Owned, keywords: Option<Owned>) -> Self {
        Self {
            kind: Kind::Arguments,
            value: Some(positional),
            keywords,
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.kind == Kind::Nothing
    }

    /// The arguments of a call by the vector call protocol. `None`: with an exception.
    ///
    /// # Safety
    /// The GIL is held; the pointers are what CPython passes to a `METH_FASTCALL | METH_KEYWORDS`
    /// function.
    #[inline(always)]
    pub(crate) unsafe fn of_call(
        arguments: *const *mut PyObject,
        count: isize,
        names: *mut PyObject,
    ) -> Option<Self> {
        // SAFETY: the caller's word.
        unsafe {
            match (names.is_null(), count) {
                (true, 0) => Some(Self::EMPTY),
                (true, 1) => Some(Self::single(Owned::from_borrowed(*arguments))),
                _ => Self::of_many(arguments, count, names),
            }
        }
    }

    #[inline(never)]
    unsafe fn of_many(
        arguments: *const *mut PyObject,
        count: isize,
        names: *mut PyObject,
    ) -> Option<Self> {
        // SAFETY: the caller's word; the tuple has room for `count`.
        unsafe {
            let positional = Owned::from_new(PyTuple_New(count))?;
            for index in 0..count {
                let argument = Owned::from_borrowed(*arguments.offset(index));
                ffi::PyTuple_SET_ITEM(positional.as_ptr(), index, argument.into_ptr());
            }
            if names.is_null() {
                return Some(Self::arguments(positional, None));
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
            Some(Self::arguments(positional, Some(keywords)))
        }
    }

    /// What a suspended greenlet's `switch()` returns. Null: with an exception, which it may be that
    /// is thrown.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline(always)]
    pub(crate) unsafe fn into_value(self) -> *mut PyObject {
        match (self.kind, self.value) {
            (Kind::Nothing, _) => ptr::null_mut(),
            (Kind::Single, Some(value)) => value.into_ptr(),
            // SAFETY: the caller's word.
            (Kind::Arguments, Some(value)) => unsafe { pack(value, self.keywords) },
            // SAFETY: the caller's word; CPython has one empty tuple.
            _ => unsafe { PyTuple_New(0) },
        }
    }

    /// Calls what a new greenlet is to run. Null: with an exception.
    ///
    /// # Safety
    /// The GIL is held; it is not [`NOTHING`](Self::NOTHING); `run` is alive until this returns.
    pub(crate) unsafe fn call(&self, run: *mut PyObject) -> *mut PyObject {
        // SAFETY: the caller's word.
        unsafe {
            match (self.kind, &self.value) {
                (Kind::Single, Some(value)) => PyObject_CallOneArg(run, value.as_ptr()),
                (Kind::Arguments, Some(arguments)) if PyTuple_Check(arguments.as_ptr()) == 0 => {
                    // The C API takes any object.
                    exceptions::raise(PyExc_TypeError, c"argument list must be a tuple");
                    ptr::null_mut()
                }
                (Kind::Arguments, Some(arguments)) => {
                    let keywords = self
                        .keywords
                        .as_ref()
                        .map_or(ptr::null_mut(), Owned::as_ptr);
                    PyObject_Call(run, arguments.as_ptr(), keywords)
                }
                _ => PyObject_CallNoArgs(run),
            }
        }
    }
}

/// One value for `(*positional, **keywords)`.
#[inline(never)]
unsafe fn pack(positional: Owned, keywords: Option<Owned>) -> *mut PyObject {
    // SAFETY: the GIL is held; live objects.
    unsafe {
        let tuple = positional.as_ptr();
        let value = match keywords {
            Some(keywords)
                if PyDict_Check(keywords.as_ptr()) != 0 && PyDict_Size(keywords.as_ptr()) > 0 =>
            {
                if PySequence_Size(tuple) == 0 {
                    return keywords.into_ptr();
                }
                return PyTuple_Pack(2, tuple, keywords.as_ptr());
            }
            _ if PyTuple_Check(tuple) != 0 && PyTuple_GET_SIZE(tuple) == 1 => {
                Owned::from_borrowed(PyTuple_GET_ITEM(tuple, 0))
            }
            _ => positional,
        };
        value.into_ptr()
    }
}

impl Parcel {
    pub(crate) const fn new() -> Self {
        Self {
            kind: Cell::new(Kind::Nothing),
            value: Slot::empty(),
            keywords: Slot::empty(),
        }
    }

    /// Fills it; it is empty before, but for the rests of a switch that was refused.
    #[inline(always)]
    pub(crate) fn put(&self, content: Content) {
        self.kind.set(content.kind);
        let value = self.value.replace(content.value);
        let keywords = self.keywords.replace(content.keywords);
        drop((value, keywords));
    }

    /// Empties it.
    #[inline(always)]
    pub(crate) fn take(&self) -> Content {
        let kind = self.kind.replace(Kind::Nothing);
        Content {
            kind,
            value: self.value.take(),
            keywords: if kind == Kind::Arguments {
                self.keywords.take()
            } else {
                None
            },
        }
    }
}
