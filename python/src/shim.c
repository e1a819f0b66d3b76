// The only file that knows the members of PyThreadState. Compiled against the headers of the very
// interpreter that the module is for: a member that is gone or of another type does not compile.
//
// Contract: the caller holds the GIL. It passes the running thread's state and, in `struct saved`,
// what belongs to a greenlet while that one is not running. No function but
// `greenlet_shim_frame`, `greenlet_shim_clear` and the tracing pair runs other code of CPython.
//
// Each greenlet has a C stack of its own, so what CPython keeps on the C stack stays valid while
// it is suspended, and pointers to it are all that is saved. Left to the thread: `tracing`, the
// trace and profile functions, the pending exception (a throw is one that crosses a switch),
// `delete_later` (a list of the thread's; whichever greenlet gets shallow works it off).
//
// | member                                  | 3.10 | 3.11 | 3.12 | 3.13 | 3.14 | 3.15 |
// | context, exc_info, exc_state            |  x   |  x   |  x   |  x   |  x   |  x   |
// | frame                                   |  x   |      |      |      |      |      |
// | cframe, with the current frame in it    |  x   |  x   |  x   |      |      |      |
// | current_frame                           |      |      |      |  x   |  x   |  x   |
// | depth of recursion                      |  x   |  x   |  x   |  x   |  x   |  x   |
// | c_recursion_remaining                   |      |      |  x   |  x   |      |      |
// | datastack_chunk, _top, _limit           |      |  x   |  x   |  x   |  x   |  x   |
// | trash_delete_nesting                    |  x   |  x   |  x   |      |      |      |
// | current_executor                        |      |      |      |      |  x   |  x   |
// | c_stack_top, _soft_limit, _hard_limit   |      |      |      |      |  x   |  x   |

#include <patchlevel.h>
#if PY_VERSION_HEX >= 0x030E0000
#    define Py_BUILD_CORE 1
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if PY_VERSION_HEX < 0x030A0000
#    error "greenlet on stacks of its own is for CPython 3.10 and later"
#endif
#ifdef Py_GIL_DISABLED
#    error "greenlet on stacks of its own is not for free-threaded builds of CPython"
#endif

#define SINCE(minor) (PY_VERSION_HEX >= (0x03000000 | (minor) << 16))
#define HAS_CFRAME (!SINCE(13))
#define HAS_DATA_STACK SINCE(11)
#define HAS_C_RECURSION (SINCE(12) && !SINCE(14))
#define HAS_TRASH_NESTING (!SINCE(13))
#define HAS_C_STACK_LIMITS SINCE(14)

#if HAS_C_RECURSION && !defined(Py_C_RECURSION_LIMIT)
#    define Py_C_RECURSION_LIMIT C_RECURSION_LIMIT  // early releases of 3.12
#endif

#if SINCE(14)
#    include <internal/pycore_tstate.h>
#endif
#if SINCE(15)
#    include <internal/pycore_gc.h>
#    include <internal/pycore_interpframe.h>
#    include <internal/pycore_stackref.h>
#endif

#if HAS_CFRAME
#    if SINCE(11)
typedef _PyCFrame cframe_t;
#    else
typedef CFrame cframe_t;
#    endif
#endif

// A level of C recursion is taken to need this much stack, bytes. With less, `sorted` inside
// `sorted` ends at the guard.
#define C_LEVEL 2048

// What CPython leaves itself below the limit to raise the exception, bytes.
#define STACK_MARGIN (16 * 1024)

// What belongs to a greenlet that is not running.
struct saved {
    PyObject *context;              // owned; NULL: none
    _PyErr_StackItem *exc_info;     // NULL: the thread's own item
    _PyErr_StackItem exc_state;     // its objects are owned
#if HAS_CFRAME
    cframe_t *cframe;
#endif
#if SINCE(13)
    struct _PyInterpreterFrame *current_frame;
#elif !SINCE(11)
    PyFrameObject *frame;
#endif
#if HAS_DATA_STACK
    _PyStackChunk *chunk;
    PyObject **chunk_top;
    PyObject **chunk_limit;
#endif
    int depth;                      // counted up, as the limit may change meanwhile
#if HAS_C_RECURSION
    int c_recursion_remaining;
#endif
#if HAS_TRASH_NESTING
    int trash_delete_nesting;
#endif
#if SINCE(14)
    PyObject *current_executor;     // borrowed
    uintptr_t c_stack_top;
    uintptr_t c_stack_soft_limit;
    uintptr_t c_stack_hard_limit;
#endif
};

_Static_assert(sizeof(struct saved) <= SAVED_WORDS * sizeof(void *), "see build.rs");

// At the low end of the room above a greenlet's stack, for as long as that one has its stack.
struct room {
#if HAS_CFRAME
    cframe_t cframe;
#endif
#if HAS_DATA_STACK
    _PyStackChunk chunk;            // to the end of the room
#else
    char nothing;
#endif
};

static inline int depth_of(const PyThreadState *thread)
{
#if SINCE(12)
    return thread->py_recursion_limit - thread->py_recursion_remaining;
#elif SINCE(11)
    return thread->recursion_limit - thread->recursion_remaining;
#else
    return thread->recursion_depth;
#endif
}

static inline void set_depth(PyThreadState *thread, int depth)
{
#if SINCE(12)
    thread->py_recursion_remaining = thread->py_recursion_limit - depth;
#elif SINCE(11)
    thread->recursion_remaining = thread->recursion_limit - depth;
#else
    thread->recursion_depth = depth;
#endif
}

static inline int *trash_nesting_of(PyThreadState *thread)
{
#if SINCE(13)
    return NULL;
#elif SINCE(12)
    return &thread->trash.delete_nesting;
#else
    return &thread->trash_delete_nesting;
#endif
}

static inline void save(PyThreadState *thread, struct saved *from)
{
    from->context = thread->context;
    from->exc_info = thread->exc_info;
    from->exc_state = thread->exc_state;
#if HAS_CFRAME
    from->cframe = thread->cframe;
#endif
#if SINCE(13)
    from->current_frame = thread->current_frame;
#elif !SINCE(11)
    from->frame = thread->frame;
#endif
#if HAS_DATA_STACK
    from->chunk = thread->datastack_chunk;
    from->chunk_top = thread->datastack_top;
    from->chunk_limit = thread->datastack_limit;
#endif
    from->depth = depth_of(thread);
#if HAS_C_RECURSION
    from->c_recursion_remaining = thread->c_recursion_remaining;
#endif
#if HAS_TRASH_NESTING
    from->trash_delete_nesting = *trash_nesting_of(thread);
#endif
#if SINCE(14)
    from->current_executor = thread->current_executor;
    const _PyThreadStateImpl *more = (const _PyThreadStateImpl *)thread;
    from->c_stack_top = more->c_stack_top;
    from->c_stack_soft_limit = more->c_stack_soft_limit;
    from->c_stack_hard_limit = more->c_stack_hard_limit;
#endif
}

// Moves what is owned and where frames lie, so that nothing is found twice, or too late, while
// `to` runs.
static inline void restore(PyThreadState *thread, struct saved *to)
{
    thread->context = to->context;
    to->context = NULL;
    // What CPython has cached of the other context is no longer right.
    thread->context_ver++;
    thread->exc_info = to->exc_info ? to->exc_info : &thread->exc_state;
    thread->exc_state = to->exc_state;
    to->exc_state = (_PyErr_StackItem){0};
#if HAS_CFRAME
#    if !SINCE(12)
    // Tracing belongs to the thread, though CPython keeps it in here.
    to->cframe->use_tracing = thread->cframe->use_tracing;
#    endif
    thread->cframe = to->cframe;
    to->cframe = NULL;
#endif
#if SINCE(13)
    thread->current_frame = to->current_frame;
    to->current_frame = NULL;
#elif !SINCE(11)
    thread->frame = to->frame;
    to->frame = NULL;
#endif
#if HAS_DATA_STACK
    thread->datastack_chunk = to->chunk;
    thread->datastack_top = to->chunk_top;
    thread->datastack_limit = to->chunk_limit;
#endif
    set_depth(thread, to->depth);
#if HAS_C_RECURSION
    thread->c_recursion_remaining = to->c_recursion_remaining;
#endif
#if HAS_TRASH_NESTING
    *trash_nesting_of(thread) = to->trash_delete_nesting;
#endif
#if SINCE(14)
    thread->current_executor = to->current_executor;
    _PyThreadStateImpl *more = (_PyThreadStateImpl *)thread;
    more->c_stack_top = to->c_stack_top;
    more->c_stack_soft_limit = to->c_stack_soft_limit;
    more->c_stack_hard_limit = to->c_stack_hard_limit;
#endif
}

// Turns the thread's state from that of one greenlet into that of another.
void greenlet_shim_switch(struct saved *from, struct saved *to)
{
    PyThreadState *thread = PyThreadState_GET();
    save(thread, from);
    restore(thread, to);
}

// Makes `it`, of which nothing but the context is set, that of a greenlet which the running one
// starts on the stack from `bottom` to `top`; the room above that goes on to `end`.
void greenlet_shim_prepare(struct saved *it, char *bottom, char *top, char *end)
{
    PyThreadState *thread = PyThreadState_GET();
    struct room *room = (struct room *)top;
    it->exc_info = NULL;
    it->exc_state = (_PyErr_StackItem){0};
#if HAS_CFRAME
    // CPython links what it has on the C stack to this, so it must last as long as that.
    room->cframe = *thread->cframe;
    room->cframe.previous = &thread->root_cframe;
#    if SINCE(11)
    room->cframe.current_frame = NULL;
#    endif
    it->cframe = &room->cframe;
#endif
#if SINCE(13)
    it->current_frame = NULL;
#elif !SINCE(11)
    it->frame = NULL;
#endif
#if HAS_DATA_STACK
    // CPython would map a first chunk for the greenlet's frames, and leave it to us to unmap. It
    // never frees a chunk without a predecessor, and begins at the second word of it.
    room->chunk.previous = NULL;
    room->chunk.size = (size_t)(end - (char *)&room->chunk);
    room->chunk.top = 0;
    it->chunk = &room->chunk;
    it->chunk_top = &room->chunk.data[1];
    it->chunk_limit = (PyObject **)end;
#endif
    it->depth = depth_of(thread);
#if HAS_C_RECURSION
    ptrdiff_t levels = (top - bottom) / C_LEVEL;
    it->c_recursion_remaining = levels < Py_C_RECURSION_LIMIT ? (int)levels : Py_C_RECURSION_LIMIT;
#endif
#if HAS_TRASH_NESTING
    it->trash_delete_nesting = 0;
#endif
#if SINCE(14)
    it->current_executor = thread->current_executor;
    it->c_stack_top = (uintptr_t)top;
    it->c_stack_hard_limit = (uintptr_t)bottom + STACK_MARGIN;
    it->c_stack_soft_limit = it->c_stack_hard_limit + STACK_MARGIN;
#endif
    (void)room;
    (void)end;
    (void)bottom;
}

// Frees the chunks that CPython has added to ours, in one that will not run again.
void greenlet_shim_free_chunks(struct saved *it)
{
#if HAS_DATA_STACK
    PyObjectArenaAllocator arenas;
    PyObject_GetArenaAllocator(&arenas);
    _PyStackChunk *chunk = it->chunk;
    while (chunk && chunk->previous) {
        _PyStackChunk *previous = chunk->previous;
        arenas.free(arenas.ctx, chunk, chunk->size);
        chunk = previous;
    }
    it->chunk = NULL;
    it->chunk_top = NULL;
    it->chunk_limit = NULL;
#endif
    (void)it;
}

#if SINCE(15)
// The frames of a suspended greenlet that hold references of their own. Generators' frames are
// visited by the generators.
#    define FOR_EACH_FRAME(it, frame)                                                            \
        for (struct _PyInterpreterFrame *frame = (it)->current_frame; frame;                     \
             frame = frame->previous)                                                            \
            if (frame->owner == FRAME_OWNED_BY_THREAD)
#endif

// `frames`: also visits what the frames hold, where that is not left to the thread.
int greenlet_shim_traverse(struct saved *it, bool frames, visitproc visit, void *arg)
{
    Py_VISIT(it->context);
    Py_VISIT(it->exc_state.exc_value);
#if !SINCE(11)
    Py_VISIT(it->exc_state.exc_type);
    Py_VISIT(it->exc_state.exc_traceback);
#endif
#if SINCE(15)
    // Here no `tp_is_gc` can exempt a suspended greenlet from collection.
    if (frames) {
        FOR_EACH_FRAME(it, frame) {
            Py_VISIT(frame->frame_obj);
            Py_VISIT(frame->f_locals);
            _Py_VISIT_STACKREF(frame->f_funcobj);
            _Py_VISIT_STACKREF(frame->f_executable);
            int result = _PyGC_VisitFrameStack(frame, visit, arg);
            if (result) {
                return result;
            }
        }
    }
#endif
    (void)frames;
    return 0;
}

// Drops what it owns. `frames`: it will not run again, and what its frames hold goes too, as far as
// it can be reached.
void greenlet_shim_clear(struct saved *it, bool frames)
{
    Py_CLEAR(it->context);
    Py_CLEAR(it->exc_state.exc_value);
#if !SINCE(11)
    Py_CLEAR(it->exc_state.exc_type);
    Py_CLEAR(it->exc_state.exc_traceback);
    if (frames) {
        Py_CLEAR(it->frame);
    }
#endif
#if SINCE(15)
    if (frames) {
        FOR_EACH_FRAME(it, frame) {
            _PyStackRef *end = frame->stackpointer;
            if (end) {
                frame->stackpointer = frame->localsplus;
                while (end > frame->localsplus) {
                    --end;
                    PyStackRef_CLEAR(*end);
                }
            }
            Py_CLEAR(frame->f_locals);
            Py_CLEAR(frame->frame_obj);
            PyStackRef_CLEAR(frame->f_funcobj);
            PyStackRef_CLEAR(frame->f_executable);
        }
        it->current_frame = NULL;
    }
#endif
    (void)frames;
}

// The innermost frame of a suspended greenlet, a new reference, or NULL with or without an
// exception. NULL also for one that is not suspended.
PyObject *greenlet_shim_frame(struct saved *it)
{
    PyThreadState *thread = PyThreadState_GET();
#if SINCE(11) && HAS_CFRAME
    if (!it->cframe) {
        return NULL;
    }
#endif
#if SINCE(11)
    // It makes a frame object, and a collection may switch.
    int enabled = PyGC_Disable();
#    if SINCE(13)
    struct _PyInterpreterFrame *before = thread->current_frame;
    thread->current_frame = it->current_frame;
    PyFrameObject *frame = PyThreadState_GetFrame(thread);
    thread->current_frame = before;
#    else
    cframe_t *before = thread->cframe;
    thread->cframe = it->cframe;
    PyFrameObject *frame = PyThreadState_GetFrame(thread);
    thread->cframe = before;
#    endif
    if (enabled) {
        PyGC_Enable();
    }
    return (PyObject *)frame;
#else
    (void)thread;
    Py_XINCREF(it->frame);
    return (PyObject *)it->frame;
#endif
}

// Whether a greenlet that is not running has frames on its stack. Before 3.11 they are objects, and
// lie elsewhere.
bool greenlet_shim_has_frames(const struct saved *it)
{
#if SINCE(11) && HAS_CFRAME
    return it->cframe && it->cframe->current_frame;
#elif SINCE(11)
    return it->current_frame;
#else
    (void)it;
    return false;
#endif
}

// Drops the frame objects of a greenlet that will not run again. Returns false, and drops none, if
// there is another reference to one of them: that frame then has to stay where it is, and the stack
// must not be used again. To be called before `greenlet_shim_clear`.
bool greenlet_shim_drop_frames(struct saved *it)
{
#if SINCE(11)
    int enabled = PyGC_Disable();
    PyFrameObject *frame = (PyFrameObject *)greenlet_shim_frame(it);
    // Without memory for a frame object it is unknown whether those further out are referenced.
    bool kept = !frame && greenlet_shim_has_frames(it);
    while (frame && !kept) {
        // One reference is this one, another the frame's own.
        kept = Py_REFCNT(frame) > 2;
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        kept = true;
    }
#    if !SINCE(15)
    frame = kept ? NULL : (PyFrameObject *)greenlet_shim_frame(it);
    while (frame) {
        PyFrameObject *back = PyFrame_GetBack(frame);
        // A generator's frame drops its own reference. Some releases say None where the
        // documentation says NULL.
        PyObject *generator = PyFrame_GetGenerator(frame);
        if (!generator || Py_IsNone(generator)) {
            Py_DECREF(frame);
        }
        Py_XDECREF(generator);
        Py_DECREF(frame);
        frame = back;
    }
#    endif
    if (enabled) {
        PyGC_Enable();
    }
    return !kept;
#else
    (void)it;
    return true;
#endif
}

// The context of the running greenlet, borrowed.
PyObject *greenlet_shim_running_context(void)
{
    return PyThreadState_GET()->context;
}

// Gives the running greenlet a context, whose reference it takes. Returns the one before.
PyObject *greenlet_shim_set_running_context(PyObject *context)
{
    PyThreadState *thread = PyThreadState_GET();
    PyObject *before = thread->context;
    thread->context = context;
    thread->context_ver++;
    return before;
}

// The saved context, borrowed.
PyObject *greenlet_shim_context(const struct saved *it)
{
    return it->context;
}

// The same for one that is not running.
PyObject *greenlet_shim_set_context(struct saved *it, PyObject *context)
{
    PyObject *before = it->context;
    it->context = context;
    return before;
}

// Between these two Python's own trace and profile functions are not called.
void greenlet_shim_enter_tracing(void)
{
    PyThreadState *thread = PyThreadState_GET();
#if SINCE(11)
    PyThreadState_EnterTracing(thread);
#else
    thread->tracing++;
    thread->cframe->use_tracing = 0;
#endif
}

void greenlet_shim_leave_tracing(void)
{
    PyThreadState *thread = PyThreadState_GET();
#if SINCE(11)
    PyThreadState_LeaveTracing(thread);
#else
    thread->tracing--;
    thread->cframe->use_tracing = thread->c_tracefunc || thread->c_profilefunc;
#endif
}

// How deep the "trash can" is nested, or -1 where it is not counted.
int greenlet_shim_trash_nesting(void)
{
    int *nesting = trash_nesting_of(PyThreadState_GET());
    return nesting ? *nesting : -1;
}

// Returns whether a type may exempt some of its objects from collection, by `tp_is_gc`. Otherwise
// `greenlet_shim_traverse` and `greenlet_shim_clear` also visit and drop what frames hold.
int greenlet_shim_may_exempt(void)
{
    return !SINCE(15);
}

// Macros and inline functions of CPython that pyo3-ffi does not have.

void greenlet_shim_set_refcnt(PyObject *object, Py_ssize_t count)
{
    Py_SET_REFCNT(object, count);
}

int greenlet_shim_is_traceback(PyObject *object)
{
    return PyTraceBack_Check(object);
}

// Returns whether the interpreter is being finalized: no Python code may start then.
int greenlet_shim_is_finalizing(void)
{
#if SINCE(13)
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}
