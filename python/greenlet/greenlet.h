/* The C API of greenlet.
 *
 * Include this after or instead of Python.h, and call PyGreenlet_Import() once, when your module is
 * imported; it leaves _PyGreenlet_API null, and an exception set, if it fails. Each file that includes
 * this has a _PyGreenlet_API of its own.
 *
 * Callers hold the GIL. Names, layout and the numbers of the functions are those of greenlet 1.0 and
 * later: an extension that was built with either header runs with either library.
 */

#ifndef Py_GREENLETOBJECT_H
#define Py_GREENLETOBJECT_H

#include <Python.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of the C API; it does not change. */
#define GREENLET_VERSION "1.0.0"

#ifndef GREENLET_MODULE
#    define implementation_ptr_t void *
#endif

/* A greenlet. Its members are the library's own. */
typedef struct _greenlet {
    PyObject_HEAD
    PyObject *weakreflist;
    PyObject *dict;
    implementation_ptr_t pimpl;
} PyGreenlet;

/* True for a greenlet, also of a subclass; false for NULL. */
#define PyGreenlet_Check(op) ((op) && PyObject_TypeCheck(op, &PyGreenlet_Type))

/* Indexes of what the capsule "greenlet._C_API" points to. */
#define PyGreenlet_Type_NUM 0
#define PyExc_GreenletError_NUM 1
#define PyExc_GreenletExit_NUM 2
#define PyGreenlet_New_NUM 3
#define PyGreenlet_GetCurrent_NUM 4
#define PyGreenlet_Throw_NUM 5
#define PyGreenlet_Switch_NUM 6
#define PyGreenlet_SetParent_NUM 7
#define PyGreenlet_MAIN_NUM 8
#define PyGreenlet_STARTED_NUM 9
#define PyGreenlet_ACTIVE_NUM 10
#define PyGreenlet_GET_PARENT_NUM 11
#define PyGreenlet_API_pointers 12

#ifndef GREENLET_MODULE

static void **_PyGreenlet_API = NULL;

#    define PyGreenlet_Import() \
        { \
            _PyGreenlet_API = (void **)PyCapsule_Import("greenlet._C_API", 0); \
        }

#    define _PyGreenlet_FUNCTION(number, result, parameters) \
        (*(result(*) parameters)_PyGreenlet_API[number])

/* The type greenlet.greenlet, and the exceptions greenlet.error and greenlet.GreenletExit. */
#    define PyGreenlet_Type (*(PyTypeObject *)_PyGreenlet_API[PyGreenlet_Type_NUM])
#    define PyExc_GreenletError ((PyObject *)_PyGreenlet_API[PyExc_GreenletError_NUM])
#    define PyExc_GreenletExit ((PyObject *)_PyGreenlet_API[PyExc_GreenletExit_NUM])

/* PyGreenlet *PyGreenlet_New(PyObject *run, PyGreenlet *parent)
 *
 * greenlet(run, parent). Either may be NULL. A new reference, or NULL with an exception. */
#    define PyGreenlet_New \
        _PyGreenlet_FUNCTION(PyGreenlet_New_NUM, PyGreenlet *, (PyObject *, PyGreenlet *))

/* PyGreenlet *PyGreenlet_GetCurrent(void)
 *
 * getcurrent(). A new reference, or NULL with an exception. */
#    define PyGreenlet_GetCurrent \
        _PyGreenlet_FUNCTION(PyGreenlet_GetCurrent_NUM, PyGreenlet *, (void))

/* PyObject *PyGreenlet_Throw(PyGreenlet *g, PyObject *type, PyObject *value, PyObject *traceback)
 *
 * g.throw(type, value, traceback). The last two may be NULL. A new reference, or NULL with an
 * exception. */
#    define PyGreenlet_Throw \
        _PyGreenlet_FUNCTION( \
            PyGreenlet_Throw_NUM, PyObject *, (PyGreenlet *, PyObject *, PyObject *, PyObject *))

/* PyObject *PyGreenlet_Switch(PyGreenlet *g, PyObject *args, PyObject *kwargs)
 *
 * g.switch(*args, **kwargs). Either may be NULL. A new reference, or NULL with an exception. */
#    define PyGreenlet_Switch \
        _PyGreenlet_FUNCTION( \
            PyGreenlet_Switch_NUM, PyObject *, (PyGreenlet *, PyObject *, PyObject *))

/* int PyGreenlet_SetParent(PyGreenlet *g, PyGreenlet *parent)
 *
 * g.parent = parent. 0, or -1 with an exception. */
#    define PyGreenlet_SetParent \
        _PyGreenlet_FUNCTION(PyGreenlet_SetParent_NUM, int, (PyGreenlet *, PyGreenlet *))

/* PyGreenlet *PyGreenlet_GetParent(PyGreenlet *g)
 *
 * g.parent. A new reference; or NULL, without an exception if it is a main greenlet. */
#    define PyGreenlet_GetParent \
        _PyGreenlet_FUNCTION(PyGreenlet_GET_PARENT_NUM, PyGreenlet *, (PyGreenlet *))
#    define PyGreenlet_GET_PARENT PyGreenlet_GetParent

/* int PyGreenlet_MAIN(PyGreenlet *g), PyGreenlet_STARTED, PyGreenlet_ACTIVE
 *
 * Is it a main greenlet, has it been started, has it been started and not ended? -1 with an exception
 * for what is no greenlet. */
#    define PyGreenlet_MAIN _PyGreenlet_FUNCTION(PyGreenlet_MAIN_NUM, int, (PyGreenlet *))
#    define PyGreenlet_STARTED _PyGreenlet_FUNCTION(PyGreenlet_STARTED_NUM, int, (PyGreenlet *))
#    define PyGreenlet_ACTIVE _PyGreenlet_FUNCTION(PyGreenlet_ACTIVE_NUM, int, (PyGreenlet *))

#endif /* GREENLET_MODULE */

#ifdef __cplusplus
}
#endif

#endif /* Py_GREENLETOBJECT_H */
