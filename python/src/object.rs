//! The type `greenlet.greenlet`: the layout of its objects, its slots, methods and attributes.
//!
//! Other extensions know the layout, and subclass the type from C: `greenlet/greenlet.h`.

use core::{
    cell::UnsafeCell,
    ffi::{CStr, c_char, c_int, c_void},
    mem, ptr,
    sync::atomic::{AtomicIsize, Ordering},
};

use pyo3_ffi::{
    self as ffi, METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, Py_False, Py_TPFLAGS_BASETYPE,
    Py_TPFLAGS_DEFAULT, Py_TPFLAGS_HAVE_GC, Py_TPFLAGS_IS_ABSTRACT, Py_TYPE, Py_True, Py_XDECREF,
    Py_ssize_t, PyArg_ParseTupleAndKeywords, PyBaseObject_Type, PyCFunction_GetFunction,
    PyContext_CheckExact, PyDict_Check, PyDict_New, PyErr_Format, PyErr_NoMemory, PyErr_Occurred,
    PyExc_AttributeError, PyExc_TypeError, PyExc_ValueError, PyGetSetDef, PyLong_FromSsize_t,
    PyMethodDef, PyMethodDefPointer, PyNumberMethods, PyObject, PyObject_GC_Del,
    PyObject_TypeCheck, PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyType_GenericAlloc, PyTypeObject,
    PyUnicode_FromFormat, visitproc,
};

use crate::{
    death,
    exceptions::{self, Exception},
    green::{Green, State},
    names,
    parcel::{Content, pack_call},
    refs::{Owned, into_nullable},
    shim, switching,
    thread::Thread,
};

/// A greenlet object, as `greenlet.h` has it.
#[repr(C)]
pub(crate) struct PyGreenlet {
    base: PyObject,
    pub(crate) weakrefs: *mut PyObject,
    pub(crate) dict: *mut PyObject,
    /// Owned; null only while the object is made and freed.
    pub(crate) green: *mut Green,
}

// gevent compares the size when it is imported.
const _: () = assert!(size_of::<PyGreenlet>() == size_of::<PyObject>() + 3 * size_of::<usize>());

/// What CPython wants at an address of its own, and may write to under the GIL.
#[repr(transparent)]
pub(crate) struct Static<T>(UnsafeCell<T>);

// SAFETY: used by CPython and by this module, under the GIL.
unsafe impl<T> Sync for Static<T> {}

impl<T> Static<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(crate) fn get(&self) -> *mut T {
        self.0.get()
    }
}

static TYPE: Static<PyTypeObject> = Static::new(make_type());
static METHODS: Static<[PyMethodDef; 4]> = Static::new([
    PyMethodDef {
        ml_name: c"switch".as_ptr(),
        ml_meth: PyMethodDefPointer {
            PyCFunctionFastWithKeywords: switch,
        },
        ml_flags: METH_FASTCALL | METH_KEYWORDS,
        ml_doc: SWITCH_DOC.as_ptr(),
    },
    PyMethodDef {
        ml_name: c"throw".as_ptr(),
        ml_meth: PyMethodDefPointer {
            PyCFunctionFast: throw,
        },
        ml_flags: METH_FASTCALL,
        ml_doc: THROW_DOC.as_ptr(),
    },
    PyMethodDef {
        ml_name: c"__getstate__".as_ptr(),
        ml_meth: PyMethodDefPointer {
            PyCFunction: getstate,
        },
        ml_flags: METH_NOARGS,
        ml_doc: ptr::null(),
    },
    PyMethodDef::zeroed(),
]);
static ATTRIBUTES: Static<[PyGetSetDef; 8]> = Static::new([
    attribute(c"__dict__", get_dict, Some(set_dict), ptr::null()),
    attribute(c"run", get_run, Some(set_run), RUN_DOC.as_ptr()),
    attribute(c"parent", get_parent, Some(set_parent), PARENT_DOC.as_ptr()),
    attribute(c"gr_frame", get_frame, None, FRAME_DOC.as_ptr()),
    attribute(
        c"gr_context",
        get_context,
        Some(set_context),
        CONTEXT_DOC.as_ptr(),
    ),
    attribute(c"dead", get_dead, None, DEAD_DOC.as_ptr()),
    attribute(
        c"_stack_saved",
        get_stack_saved,
        None,
        STACK_SAVED_DOC.as_ptr(),
    ),
    // SAFETY: the end of the list is all zeros.
    unsafe { mem::zeroed() },
]);
static NUMBER: Static<PyNumberMethods> = Static::new(make_number());

const TYPE_DOC: &CStr = c"greenlet(run=None, parent=None)

A function that can be suspended in the middle of any call that it makes.

It starts at the first switch to it. `run` is what it calls then; a subclass may have a method of
that name instead. `parent` is resumed with the result when it ends, or receives the exception that
ended it; without the argument it is the running greenlet.";
const SWITCH_DOC: &CStr = c"switch(*args, **kwargs)

Suspends the running greenlet and resumes this one.

A new greenlet calls run(*args, **kwargs). In a suspended one, the call that suspended it returns
the argument: several as a tuple, keyword arguments as a dictionary, both as a pair of these. A dead
one passes the arguments on to its parent.

Returns, in the same way, what the caller is resumed with.";
const THROW_DOC: &CStr = c"throw(typ=GreenletExit, val=None, tb=None)

Resumes this greenlet as switch() does, and raises an exception there.

A new greenlet ends without having run. A GreenletExit that is not caught ends the greenlet, and
its parent is resumed with it as a value.";
const RUN_DOC: &CStr = c"What it calls when it starts. Once started it has no such attribute.";
const PARENT_DOC: &CStr = c"The greenlet that is resumed when this one ends.";
const FRAME_DOC: &CStr = c"The innermost frame of a suspended greenlet; otherwise None.";
const CONTEXT_DOC: &CStr = c"The contextvars.Context in which it runs, or None if that is empty.";
const DEAD_DOC: &CStr = c"Whether it has ended.";
const STACK_SAVED_DOC: &CStr = c"Bytes in use of a suspended greenlet's C stack.";

const fn attribute(
    name: &'static CStr,
    get: ffi::getter,
    set: Option<ffi::setter>,
    doc: *const c_char,
) -> PyGetSetDef {
    PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set,
        doc,
        closure: ptr::null_mut(),
    }
}

const fn make_number() -> PyNumberMethods {
    // SAFETY: a slot that is null is not there.
    let mut number: PyNumberMethods = unsafe { mem::zeroed() };
    number.nb_bool = Some(is_true);
    number
}

const fn make_type() -> PyTypeObject {
    // SAFETY: a slot that is null is not there.
    let mut made: PyTypeObject = unsafe { mem::zeroed() };
    made.ob_base.ob_base = ffi::PyObject_HEAD_INIT;
    made.tp_name = c"greenlet.greenlet".as_ptr();
    made.tp_basicsize = size_of::<PyGreenlet>() as Py_ssize_t;
    made.tp_dealloc = Some(death::dealloc);
    made.tp_repr = Some(repr);
    made.tp_as_number = NUMBER.0.get();
    made.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC;
    made.tp_doc = TYPE_DOC.as_ptr();
    made.tp_traverse = Some(traverse);
    made.tp_clear = Some(clear);
    made.tp_weaklistoffset = mem::offset_of!(PyGreenlet, weakrefs) as Py_ssize_t;
    made.tp_dictoffset = mem::offset_of!(PyGreenlet, dict) as Py_ssize_t;
    made.tp_methods = METHODS.0.get().cast();
    made.tp_getset = ATTRIBUTES.0.get().cast();
    made.tp_init = Some(init);
    made.tp_alloc = Some(PyType_GenericAlloc);
    made.tp_new = Some(new);
    made.tp_free = Some(PyObject_GC_Del);
    made.tp_vectorcall = Some(call_type);
    made
}

/// `greenlet.greenlet`, borrowed.
pub(crate) fn greenlet_type() -> *mut PyTypeObject {
    TYPE.get()
}

/// Makes the type ready. `None`: with an exception.
pub(crate) unsafe fn make_ready() -> Option<()> {
    // SAFETY: the GIL is held.
    unsafe {
        if shim::may_exempt() {
            (*TYPE.get()).tp_is_gc = Some(is_gc);
        }
        (ffi::PyType_Ready(TYPE.get()) == 0).then_some(())
    }
}

/// Returns `true` for an object of the type or of one derived from it.
pub(crate) unsafe fn is_greenlet(object: *mut PyObject) -> bool {
    // SAFETY: null, or a live object.
    unsafe { !object.is_null() && PyObject_TypeCheck(object, TYPE.get()) != 0 }
}

/// Returns `true` for a built-in method object of `switch`.
pub(crate) unsafe fn is_switch(function: *mut PyObject) -> bool {
    // SAFETY: a built-in function; the pointers are compared, not called.
    unsafe {
        let code = PyCFunction_GetFunction(function).map_or(0, |code| code as usize);
        code == switch as *const () as usize
    }
}

// ---- objects

/// How many main greenlets there are.
static MAINS: AtomicIsize = AtomicIsize::new(0);

pub(crate) fn count_main(change: isize) -> isize {
    MAINS.fetch_add(change, Ordering::Relaxed) + change
}

/// Gives a new object its `Green`. Returns `false`, with an exception, if there is no memory for it;
/// then `green` is dropped.
unsafe fn give_green(object: *mut PyObject, green: Green) -> bool {
    // SAFETY: a new object, whose pointer is null; memory for a `Green`.
    unsafe {
        let memory = ffi::PyObject_Malloc(size_of::<Green>()).cast::<Green>();
        if memory.is_null() {
            PyErr_NoMemory();
            return false;
        }
        memory.write(green);
        (*object.cast::<PyGreenlet>()).green = memory;
        true
    }
}

/// Frees an object's `Green`, if it has one.
pub(crate) unsafe fn free_green(this: *mut PyGreenlet) {
    // SAFETY: the object is being freed. What is dropped may run Python code, which does not find
    // the pointer any more.
    unsafe {
        let green = mem::replace(&mut (*this).green, ptr::null_mut());
        if !green.is_null() {
            green.drop_in_place();
            ffi::PyObject_Free(green.cast());
        }
    }
}

/// A main greenlet, for a thread that does not know it yet. `None`: with an exception.
pub(crate) unsafe fn new_main() -> Option<Owned> {
    // SAFETY: the GIL is held.
    unsafe {
        let object = Owned::from_new(PyType_GenericAlloc(TYPE.get(), 0))?;
        count_main(1);
        give_green(object.as_ptr(), Green::main(object.as_ptr())).then_some(object)
    }
}

/// `tp_new`; the arguments are for `init`.
pub(crate) unsafe extern "C" fn new(
    kind: *mut PyTypeObject,
    _: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe { into_nullable(make(kind)) }
}

/// A new greenlet under the running one. `None`: with an exception.
unsafe fn make(kind: *mut PyTypeObject) -> Option<Owned> {
    // SAFETY: the GIL is held; the type is this one or derived from it.
    unsafe {
        let object = if (*kind).tp_flags & Py_TPFLAGS_IS_ABSTRACT == 0 {
            ((*kind).tp_alloc.unwrap_unchecked())(kind, 0)
        } else {
            // Its error names the abstract methods.
            let nothing = names::empty_tuple();
            let base = (*ptr::addr_of_mut!(PyBaseObject_Type)).tp_new;
            (base.unwrap_unchecked())(kind, nothing.as_ptr(), ptr::null_mut())
        };
        let object = Owned::from_new(object)?;
        let thread = Thread::running()?;
        thread.end_doomed();
        let parent = Owned::from_borrowed(thread.current.get());
        give_green(object.as_ptr(), Green::new(object.as_ptr(), parent)).then_some(object)
    }
}

/// A new greenlet with what was given; null stands for what was not. `None`: with an exception.
pub(crate) unsafe fn make_with(
    kind: *mut PyTypeObject,
    run: *mut PyObject,
    parent: *mut PyObject,
) -> Option<Owned> {
    // SAFETY: the contract.
    unsafe {
        let made = make(kind)?;
        (initialize(made.as_ptr(), run, parent) == 0).then_some(made)
    }
}

unsafe extern "C" fn init(
    this: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        let (mut run, mut parent) = (ptr::null_mut(), ptr::null_mut());
        if kwargs.is_null() && PyTuple_GET_SIZE(args) == 1 {
            run = PyTuple_GET_ITEM(args, 0);
        } else {
            let mut names = [
                c"run".as_ptr().cast_mut(),
                c"parent".as_ptr().cast_mut(),
                ptr::null_mut(),
            ];
            let parsed = PyArg_ParseTupleAndKeywords(
                args,
                kwargs,
                c"|OO:green".as_ptr(),
                names.as_mut_ptr().cast(),
                &raw mut run,
                &raw mut parent,
            );
            if parsed == 0 {
                return -1;
            }
        }
        initialize(this, run, parent)
    }
}

/// `greenlet(run, parent)` of the type itself: no tuple is made of the arguments. Classes derived
/// from it do not inherit this.
unsafe extern "C" fn call_type(
    kind: *mut PyObject,
    arguments: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython's call, of the vector call protocol.
    unsafe {
        let count = ffi::PyVectorcall_NARGS(count);
        if !names.is_null() || count > 2 {
            return call_type_by_name(kind, arguments, count, names);
        }
        let argument = |index| argument_or(ptr::null_mut(), arguments, count, index);
        into_nullable(make_with(kind.cast(), argument(0), argument(1)))
    }
}

/// [`call_type`] by `tp_new` and `tp_init`, for keyword arguments and for too many.
#[cold]
unsafe fn call_type_by_name(
    kind: *mut PyObject,
    arguments: *const *mut PyObject,
    count: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the contract; `type` has a `tp_call`.
    unsafe {
        let Some((positional, keywords)) = pack_call(arguments, count, names) else {
            return ptr::null_mut();
        };
        let keywords = keywords.as_ref().map_or(ptr::null_mut(), Owned::as_ptr);
        let call = (*ptr::addr_of_mut!(ffi::PyType_Type)).tp_call;
        (call.unwrap_unchecked())(kind, positional.as_ptr(), keywords)
    }
}

/// Returns the argument with this index, or `default` if there are not so many.
///
/// # Safety
/// `arguments` points to `count` objects.
#[inline(always)]
unsafe fn argument_or(
    default: *mut PyObject,
    arguments: *const *mut PyObject,
    count: Py_ssize_t,
    index: Py_ssize_t,
) -> *mut PyObject {
    if index < count {
        // SAFETY: it is one of `count` (contract).
        unsafe { *arguments.offset(index) }
    } else {
        default
    }
}

/// Sets `run` and `parent`; null stands for one that was not given. Returns -1 with an exception.
unsafe fn initialize(this: *mut PyObject, run: *mut PyObject, parent: *mut PyObject) -> c_int {
    // SAFETY: the GIL is held; live objects or null.
    unsafe {
        if !run.is_null() && set_run(this, run, ptr::null_mut()) < 0 {
            return -1;
        }
        if !parent.is_null() && parent != ffi::Py_None() {
            return set_parent(this, parent, ptr::null_mut());
        }
    }
    0
}

// ---- collection

macro_rules! visit {
    ($object:expr, $visit:ident, $arg:ident) => {
        let object: *mut PyObject = $object;
        if !object.is_null() {
            let result = $visit(object, $arg);
            if result != 0 {
                return result;
            }
        }
    };
}

pub(crate) unsafe extern "C" fn traverse(
    this: *mut PyObject,
    visit: visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        visit!((*this.cast::<PyGreenlet>()).dict, visit, arg);
        let Some(green) = Green::of_nullable(this) else {
            return 0;
        };
        visit!(green.parent.get(), visit, arg);
        visit!(green.main.get(), visit, arg);
        visit!(green.run.get(), visit, arg);
        if green.is_main()
            && let Some(thread) = green.thread()
        {
            if thread.current.get() != this {
                visit!(thread.current.get(), visit, arg);
            }
            visit!(thread.trace.get(), visit, arg);
        }
        // A main greenlet's frames end in the thread's state, which CPython frees with the thread,
        // also where `fork` leaves that thread behind.
        green.saved.traverse(!green.is_main(), visit, arg)
    }
}

pub(crate) unsafe extern "C" fn clear(this: *mut PyObject) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        let object = this.cast::<PyGreenlet>();
        Py_XDECREF(mem::replace(&mut (*object).dict, ptr::null_mut()));
        let Some(green) = Green::of_nullable(this) else {
            return 0;
        };
        if green.is_of_dead_thread() && !green.is_main() {
            green.abandon();
        } else {
            green.saved.clear(false);
        }
        drop((green.parent.take(), green.main.take(), green.run.take()));
    }
    0
}

/// `tp_is_gc`. Exempts a greenlet with frames of its own from collection: what they hold cannot be
/// visited, and what is found to be garbage must not run.
unsafe extern "C" fn is_gc(this: *mut PyObject) -> c_int {
    // SAFETY: CPython's call.
    let Some(green) = (unsafe { Green::of_nullable(this) }) else {
        return 1;
    };
    c_int::from(green.is_main() || !green.is_active() || green.is_of_dead_thread())
}

// ---- methods

unsafe extern "C" fn switch(
    this: *mut PyObject,
    arguments: *const *mut PyObject,
    count: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe {
        let Some(content) = Content::of_call(arguments, count, names) else {
            return ptr::null_mut();
        };
        switch_with(this, content)
    }
}

/// `switch`, when the arguments have been packed.
#[inline(always)]
pub(crate) unsafe fn switch_with(this: *mut PyObject, content: Content) -> *mut PyObject {
    // SAFETY: the GIL is held; it is a greenlet.
    unsafe {
        let result = switching::switch(Green::of(this), content);
        if result.is_null() && PyErr_Occurred().is_null() {
            exceptions::raise(
                exceptions::error(),
                c"Greenlet.switch() returned NULL without an exception set.",
            );
        }
        result
    }
}

unsafe extern "C" fn throw(
    this: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe {
        if count > 3 {
            return PyErr_Format(
                PyExc_TypeError,
                c"throw() takes at most 3 arguments (%zd given)".as_ptr(),
                count,
            );
        }
        let argument = |index, default| argument_or(default, arguments, count, index);
        let kind = argument(0, exceptions::exit());
        let value = argument(1, ptr::null_mut());
        throw_with(this, kind, value, argument(2, ptr::null_mut()))
    }
}

/// `throw`, when the arguments have been parsed; null stands for one that was not given.
pub(crate) unsafe fn throw_with(
    this: *mut PyObject,
    kind: *mut PyObject,
    value: *mut PyObject,
    traceback: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the GIL is held; it is a greenlet.
    unsafe {
        let Some(exception) = Exception::of_arguments(kind, value, traceback) else {
            return ptr::null_mut();
        };
        exception.restore();
        let green = Green::of(this);
        let content = if green.state.get() == State::Dead {
            switching::exit_value()
        } else {
            Content::Nothing
        };
        switching::switch(green, content)
    }
}

unsafe extern "C" fn getstate(this: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe {
        PyErr_Format(
            PyExc_TypeError,
            c"cannot serialize '%s' object".as_ptr(),
            (*Py_TYPE(this)).tp_name,
        )
    }
}

unsafe extern "C" fn is_true(this: *mut PyObject) -> c_int {
    // SAFETY: CPython's call.
    unsafe { c_int::from(Green::of(this).is_active()) }
}

unsafe extern "C" fn repr(this: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe {
        let green = Green::of(this);
        let name = (*Py_TYPE(this)).tp_name;
        let alive = green.is_alive();
        let thread = green.thread().map_or(ptr::null(), ptr::from_ref);
        if !alive {
            return PyUnicode_FromFormat(
                c"<%s object at %p (otid=%p) %sdead>".as_ptr(),
                name,
                this,
                thread,
                if green.is_of_dead_thread() {
                    c"(thread exited) ".as_ptr()
                } else {
                    c"".as_ptr()
                },
            );
        }
        let here = if green
            .thread()
            .is_some_and(|it| it.is_running() && it.current.get() == this)
        {
            c" current"
        } else if green.is_started() {
            c" suspended"
        } else {
            c""
        };
        PyUnicode_FromFormat(
            c"<%s object at %p (otid=%p)%s%s%s%s>".as_ptr(),
            name,
            this,
            thread,
            here.as_ptr(),
            if green.is_active() {
                c" active".as_ptr()
            } else {
                c"".as_ptr()
            },
            if green.is_started() {
                c" started".as_ptr()
            } else {
                c" pending".as_ptr()
            },
            if green.is_main() {
                c" main".as_ptr()
            } else {
                c"".as_ptr()
            },
        )
    }
}

// ---- attributes

unsafe extern "C" fn get_dict(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe {
        let dict = &raw mut (*this.cast::<PyGreenlet>()).dict;
        if (*dict).is_null() {
            *dict = PyDict_New();
        }
        ffi::Py_XINCREF(*dict);
        *dict
    }
}

unsafe extern "C" fn set_dict(this: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        if value.is_null() {
            exceptions::raise(PyExc_TypeError, c"__dict__ may not be deleted");
            return -1;
        }
        if PyDict_Check(value) == 0 {
            exceptions::raise(PyExc_TypeError, c"__dict__ must be a dictionary");
            return -1;
        }
        let value = Owned::from_borrowed(value).into_ptr();
        Py_XDECREF(mem::replace(&mut (*this.cast::<PyGreenlet>()).dict, value));
    }
    0
}

unsafe fn no_run_of_main() {
    // SAFETY: the GIL is held.
    unsafe {
        exceptions::raise(
            PyExc_AttributeError,
            c"Main greenlets do not have a run attribute.",
        );
    }
}

unsafe extern "C" fn get_run(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe {
        let green = Green::of(this);
        if green.is_main() {
            no_run_of_main();
            return ptr::null_mut();
        }
        if !green.is_started()
            && let Some(run) = green.run.to_owned()
        {
            return run.into_ptr();
        }
        exceptions::raise(PyExc_AttributeError, c"run");
        ptr::null_mut()
    }
}

/// Null deletes it.
unsafe extern "C" fn set_run(this: *mut PyObject, run: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        let green = Green::of(this);
        if green.is_main() {
            no_run_of_main();
            return -1;
        }
        if green.is_started() {
            exceptions::raise(
                PyExc_AttributeError,
                c"run cannot be set after the start of the greenlet",
            );
            return -1;
        }
        green
            .run
            .set((!run.is_null()).then(|| Owned::from_borrowed(run)));
    }
    0
}

unsafe extern "C" fn get_parent(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe { Green::of(this).parent.to_owned() }
        .unwrap_or_else(Owned::none)
        .into_ptr()
}

/// `g.parent = parent`; null stands for `del g.parent`.
pub(crate) unsafe extern "C" fn set_parent(
    this: *mut PyObject,
    parent: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        let green = Green::of(this);
        if parent.is_null() {
            exceptions::raise(PyExc_AttributeError, c"can't delete attribute");
            return -1;
        }
        if green.is_main() {
            exceptions::raise(
                PyExc_AttributeError,
                c"cannot set the parent of a main greenlet",
            );
            return -1;
        }
        if !is_greenlet(parent) {
            PyErr_Format(
                PyExc_TypeError,
                c"GreenletChecker: Expected any type of greenlet, not %s".as_ptr(),
                (*Py_TYPE(parent)).tp_name,
            );
            return -1;
        }
        let mut main = ptr::null_mut();
        let mut ancestor = Some(Green::of(parent));
        while let Some(it) = ancestor {
            if it.object == this {
                exceptions::raise(PyExc_ValueError, c"cyclic parent chain");
                return -1;
            }
            main = if it.is_main() {
                it.object
            } else {
                it.main.get()
            };
            ancestor = Green::of_nullable(it.parent.get());
        }
        if main.is_null() {
            exceptions::raise(PyExc_ValueError, c"parent must not be garbage collected");
            return -1;
        }
        if green.is_started() && green.main.get() != main {
            exceptions::raise(PyExc_ValueError, c"parent cannot be on a different thread");
            return -1;
        }
        green.parent.set(Some(Owned::from_borrowed(parent)));
    }
    0
}

unsafe extern "C" fn get_frame(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call; the frames of a suspended greenlet lie still.
    unsafe {
        let green = Green::of(this);
        if green.is_suspended() {
            let frame = Owned::from_new(green.saved.frame());
            if let Some(frame) = frame {
                return frame.into_ptr();
            }
            if exceptions::is_pending() {
                return ptr::null_mut();
            }
        }
    }
    Owned::none().into_ptr()
}

unsafe extern "C" fn get_context(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe {
        let green = Green::of(this);
        let context = if !green.is_running() {
            green.saved.context()
        } else if green.thread().is_some_and(Thread::is_running) {
            shim::running_context()
        } else {
            exceptions::raise(
                PyExc_ValueError,
                c"cannot get context of a greenlet that is running in a different thread",
            );
            return ptr::null_mut();
        };
        if context.is_null() {
            return Owned::none().into_ptr();
        }
        Owned::from_borrowed(context).into_ptr()
    }
}

unsafe extern "C" fn set_context(
    this: *mut PyObject,
    context: *mut PyObject,
    _: *mut c_void,
) -> c_int {
    // SAFETY: CPython's call.
    unsafe {
        let green = Green::of(this);
        if context.is_null() {
            exceptions::raise(PyExc_AttributeError, c"can't delete context attribute");
            return -1;
        }
        let none = context == ffi::Py_None();
        if !none && PyContext_CheckExact(context) == 0 {
            exceptions::raise(
                PyExc_TypeError,
                c"greenlet context must be a contextvars.Context or None",
            );
            return -1;
        }
        let running = green.is_running();
        if running && !green.thread().is_some_and(Thread::is_running) {
            exceptions::raise(
                PyExc_ValueError,
                c"cannot set context of a greenlet that is running in a different thread",
            );
            return -1;
        }
        let context = into_nullable((!none).then(|| Owned::from_borrowed(context)));
        let before = if running {
            shim::set_running_context(context)
        } else {
            green.saved.set_context(context)
        };
        Py_XDECREF(before);
    }
    0
}

unsafe extern "C" fn get_dead(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe {
        let answer = if Green::of(this).is_alive() {
            Py_False()
        } else {
            Py_True()
        };
        Owned::from_borrowed(answer).into_ptr()
    }
}

unsafe extern "C" fn get_stack_saved(this: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython's call.
    unsafe { PyLong_FromSsize_t(Green::of(this).stack_in_use()) }
}
