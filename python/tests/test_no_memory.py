"""When memory is refused, the result is a MemoryError or the right one, and nothing is lost.

CPython's `_testcapi.set_nomemory(first, end)` refuses the allocations from number `first` to number
`end`, that one excluded; without `end`, all from `first` on. Each program here runs in a process of
its own, once for each of the first allocations and both ways.

Refused stacks are in `test_stacks.py`.
"""

import importlib.util
import subprocess
import sys
import textwrap
import unittest

# A program defines `prepare()`; `attempt(state)`, which runs while memory is refused; and
# `check(state, result)`, which runs when there is memory again, and gets "refused" for a MemoryError.
HARNESS = """
import _thread, contextvars, faulthandler, gc, sys, time
from _testcapi import set_nomemory, remove_mem_hooks
import greenlet
from greenlet import getcurrent

faulthandler.enable()
sys.unraisablehook = lambda _: None
main = getcurrent()

class Argument:
    pass

argument = Argument()

def echo(value=None, **more):
    while True:
        value = main.switch(value)

def suspended(body=echo):
    it = greenlet.greenlet(body)
    it.switch()
    return it

def end(it):
    "Whatever memory there was, it is a greenlet that can be ended."
    it.throw()
    assert it.dead

{program}

before = sys.getrefcount(argument)
refusals = 0

def run(*numbers):
    global refusals, numbers_now
    numbers_now = numbers
    state = prepare()
    # Empties the free lists, which are memory that nobody can refuse.
    gc.collect()
    try:
        set_nomemory(*numbers)
        result = attempt(state)
    except MemoryError:
        result = "refused"
        refusals += 1
    finally:
        remove_mem_hooks()
    assert getcurrent() is main
    check(state, result)
    del state, result
    gc.collect()
    now = sys.getrefcount(argument)
    assert now == before, (numbers, now - before)
    left = [it for it in gc.get_objects() if isinstance(it, greenlet.greenlet) and not it.dead]
    assert left == [main], (numbers, left)

run(1 << 30)
for number in range({allocations}):
    run(number, number + 1)
    run(number)
print("refused" if refusals else "none was refused")
"""


# `PyType_Ready` fills the dict of a type by `PyDict_SetDefaultRef`. In CPython 3.13.0 that function
# goes on when the dict cannot grow, and counts an entry which is not there: whatever next grows or
# traverses the dict, as a collection does, reads beyond the entries.
SETDEFAULT = """
from _testcapi import set_nomemory, remove_mem_hooks

for size in range(20):
    it = {str(number): None for number in range(size)}
    set_nomemory(0)
    try:
        it.setdefault("more")
    except MemoryError:
        pass
    finally:
        remove_mem_hooks()
    assert len(it) == len(list(it))
"""


def setdefault_hides_a_refusal():
    if not importlib.util.find_spec("_testcapi"):
        return False
    return subprocess.run([sys.executable, "-c", SETDEFAULT], capture_output=True).returncode != 0


@unittest.skipUnless(importlib.util.find_spec("_testcapi"), "this CPython has no _testcapi")
class NoMemory(unittest.TestCase):
    def try_all(self, program, allocations=40):
        source = HARNESS.format(program=textwrap.dedent(program), allocations=allocations)
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True,
                              timeout=120)
        self.assertEqual((done.returncode, done.stdout), (0, "refused\n"), done.stderr[-2000:])

    def test_to_create_one(self):
        self.try_all("""
            class Derived(greenlet.greenlet):
                pass

            def prepare():
                return None

            def attempt(_):
                return (Derived(echo, main), greenlet.greenlet(run=echo, parent=main),
                        greenlet.greenlet(echo), greenlet.greenlet(echo, main))

            def check(_, made):
                if made != "refused":
                    for it in made:
                        assert it.switch(argument) is argument
                        end(it)
        """)

    def test_to_start_one(self):
        self.try_all("""
            def prepare():
                return greenlet.greenlet(echo)

            def attempt(it):
                return it.switch(argument, more=argument)

            def check(it, result):
                assert result in (argument, "refused"), result
                if not it:
                    # It has not begun, or its first steps had no memory.
                    assert result == "refused"
                if not it.dead:
                    assert it.switch(argument) is argument
                    end(it)
        """)

    def test_to_start_one_whose_run_is_looked_up(self):
        self.try_all("""
            class Derived(greenlet.greenlet):
                @property
                def run(self):
                    return [echo, [argument, {}]][0]

            def prepare():
                return Derived()

            def attempt(it):
                return it.switch(argument)

            def check(it, result):
                assert result in (argument, "refused"), result
                if not it.dead:
                    assert it.switch(argument) is argument
                    end(it)
        """)

    def test_to_resume_one(self):
        self.try_all("""
            def prepare():
                return suspended()

            def attempt(it):
                return it.switch(argument, argument, more=argument)

            def check(it, result):
                wanted = ((argument, argument), {"more": argument})
                assert result in (wanted, "refused"), result
                if not it.dead:
                    assert it.switch(argument) is argument
                    end(it)
        """)

    def test_to_throw_into_one(self):
        self.try_all("""
            def body():
                while True:
                    try:
                        main.switch()
                    except KeyError as error:
                        main.switch(error)

            def prepare():
                return suspended(body)

            def attempt(it):
                return it.throw(KeyError, argument)

            def check(it, result):
                if result != "refused":
                    assert type(result) is KeyError and result.args == (argument,), result
                    result.__traceback__ = None
                if not it.dead:
                    end(it)
        """)

    def test_to_throw_into_a_new_one(self):
        self.try_all("""
            def prepare():
                return greenlet.greenlet(echo)

            def attempt(it):
                try:
                    it.throw(KeyError, argument)
                except KeyError as error:
                    # CPython 3.11 has a fault of its own where such a block has no memory.
                    remove_mem_hooks()
                    assert error.args == (argument,)
                    return "thrown"

            def check(it, result):
                assert result in ("thrown", "refused"), result
                assert it.dead or it.switch(argument) is argument
                end(it)
        """)

    def test_to_return_to_a_parent_that_must_be_started(self):
        self.try_all("""
            class Parent(greenlet.greenlet):
                @property
                def run(self):
                    return [echo, [argument, {}]][0]

            def prepare():
                parent = Parent()
                return greenlet.greenlet(lambda value: value, parent), parent

            def attempt(pair):
                return pair[0].switch(argument)

            def check(pair, result):
                it, parent = pair
                assert result in (argument, "refused"), result
                end(it)
                if not parent.dead:
                    assert parent.switch(argument) is argument
                    end(parent)
        """)

    def test_to_kill_one(self):
        # Its `finally` is run once: by a GreenletExit, or by the MemoryError in its place.
        self.try_all("""
            def body(ended, value):
                try:
                    main.switch()
                except BaseException as error:
                    ended[type(error) is MemoryError] += 1
                    raise

            def prepare():
                ended = [0, 0]
                it = greenlet.greenlet(body)
                it.switch(ended, argument)
                return ended, [it]

            def attempt(pair):
                pair[1].clear()

            def check(pair, _):
                global refusals
                ended, its = pair
                assert sum(ended) == 1 and not its, pair
                refusals += ended[1]
        """)

    def test_to_look_at_one(self):
        self.try_all("""
            def prepare():
                return suspended()

            def attempt(it):
                return repr(it), it.gr_frame, it.parent, it.dead, it.__dict__, it._stack_saved

            def check(it, result):
                if result != "refused":
                    text, frame, parent, dead, attributes, _ = result
                    assert "suspended active started" in text
                    # CPython clears the error where there is no memory for a frame object.
                    assert frame is None or frame.f_code is echo.__code__
                    assert (parent, dead, attributes) == (main, False, {})
                    del frame, result
                assert it.gr_frame.f_code is echo.__code__
                assert it.switch(argument) is argument
                end(it)
        """)

    def test_to_give_one_a_context(self):
        self.try_all("""
            variable = contextvars.ContextVar("variable")

            def body():
                while True:
                    main.switch(variable.get(None))

            context = contextvars.copy_context()
            context.run(variable.set, argument)

            def prepare():
                return suspended(body)

            def attempt(it):
                it.gr_context = context.copy()
                return it.switch()

            def check(it, result):
                assert result in (argument, None, "refused"), result
                assert variable.get(None) is None
                if not it.dead:
                    assert it.switch() is (None if it.gr_context is None else argument)
                    end(it)
        """)

    def test_to_trace_one(self):
        # A callback that fails is not called again, and what it raises takes the place of the
        # result.
        self.try_all("""
            def callback(event, pair):
                [event, pair, {}]

            def prepare():
                return suspended()

            def attempt(it):
                greenlet.settrace(callback)
                return it.switch(argument)

            def check(it, result):
                assert greenlet.gettrace() in (callback, None)
                assert greenlet.gettrace() is callback or result == "refused"
                greenlet.settrace(None)
                assert result in (argument, "refused"), result
                if not it.dead:
                    assert it.switch(argument) is argument
                    end(it)
        """)

    def test_to_use_greenlet_in_a_new_thread(self):
        self.try_all("""
            def thread(ended, result):
                try:
                    set_nomemory(*numbers_now)
                    result[0] = getcurrent().dead
                except MemoryError:
                    result[0] = "refused"
                finally:
                    remove_mem_hooks()
                    # With memory there is one, whatever went before.
                    result[1] = getcurrent().parent is None
                    ended.release()

            def prepare():
                ended = _thread.allocate_lock()
                ended.acquire()
                return ended

            def attempt(ended):
                # The thread has the numbers; there is memory to start it.
                remove_mem_hooks()
                result = [None, None]
                _thread.start_new_thread(thread, (ended, result))
                ended.acquire()
                return result

            def check(_, result):
                global refusals
                assert result in ([False, True], ["refused", True]), result
                refusals += result[0] == "refused"
                # It is cleaned up after when this thread next takes the GIL.
                while greenlet._greenlet.get_total_main_greenlets() > 1:
                    time.sleep(0)
        """)

    def test_to_end_one_of_a_thread_that_has_ended(self):
        # A frame that somebody keeps must stay where it is; to find out takes memory.
        self.try_all("""
            import os
            kept = []

            def inner():
                main_of_thread.switch()

            def outer():
                mark = ["kept"]
                kept.append(sys._getframe())
                inner()

            def thread(its):
                global main_of_thread
                main_of_thread = getcurrent()
                its.append(greenlet.greenlet(outer))
                its[0].switch()
                main_of_thread = None
                its.append(_thread.get_native_id())

            def prepare():
                its = []
                _thread.start_new_thread(thread, (its,))
                while len(its) < 2 or os.path.exists(f"/proc/self/task/{its[1]}"):
                    time.sleep(0)
                return its[0]

            def attempt(it):
                return it.dead

            def check(it, result):
                global refusals
                assert result in (True, "refused"), result
                assert it.dead
                for _ in range(3):
                    greenlet.greenlet(lambda: sorted([3, 1, 2])).switch()
                frame = kept.pop()
                assert frame.f_code is outer.__code__
                assert frame.f_locals["mark"] == ["kept"]
                refusals += 1
        """)

    @unittest.skipUnless(importlib.util.find_spec("_ctypes"), "this CPython has no ctypes")
    def test_of_the_c_api(self):
        # By ctypes, which itself needs memory for a call.
        self.try_all("""
            import ctypes
            from ctypes import c_int, c_void_p, py_object
            get_pointer = ctypes.PYFUNCTYPE(c_void_p, py_object, ctypes.c_char_p)(
                ("PyCapsule_GetPointer", ctypes.pythonapi))
            table = ctypes.cast(get_pointer(greenlet._greenlet._C_API, b"greenlet._C_API"),
                                ctypes.POINTER(c_void_p))

            def function(number, result, count):
                pointer = ctypes.PYFUNCTYPE(result, *[py_object] * count)(table[number])

                def call(*arguments):
                    try:
                        return pointer(*arguments)
                    except ctypes.ArgumentError as error:
                        if "MemoryError" in str(error):
                            raise MemoryError
                        raise
                return call
            new, get_current, throw, switch, set_parent = (
                function(3, py_object, 2), function(4, py_object, 0), function(5, py_object, 4),
                function(6, py_object, 3), function(7, c_int, 2))

            def body(*arguments, **more):
                got = arguments, more
                while True:
                    try:
                        got = main.switch(got)
                    except KeyError as error:
                        got = error.args

            def prepare():
                return suspended(body), (argument, 1), {"more": argument}, []

            def attempt(state):
                it, arguments, more, results = state
                results.append(switch(it, arguments, more))
                results.append(throw(it, KeyError, argument, None))
                made = new(body, it)
                results.append(set_parent(made, get_current()))
                results.append(switch(made, arguments, {}))
                end(made)

            def check(state, result):
                it, arguments, more, results = state
                wanted = [(arguments, more), (argument,), 0, (arguments, {})]
                assert results == wanted[:len(results)], results
                assert result == "refused" or len(results) == len(wanted), results
                if not it.dead:
                    assert switch(it, (argument,), {}) is argument
                    end(it)
        """, allocations=80)

    @unittest.skipIf(setdefault_hides_a_refusal(),
                     "dict.setdefault of this CPython corrupts a dict that cannot grow")
    @unittest.skipUnless(importlib.util.find_spec("_ctypes"), "this CPython has no ctypes")
    def test_to_import_it(self):
        # What the extension does when it is loaded, and up to CPython 3.12 what CPython does after
        # that: since 3.13 its loader faults there, whatever the module.
        # Nobody has a greenlet then, so each attempt is in a process of its own.
        source = textwrap.dedent("""
            import faulthandler, os, sys
            from importlib.machinery import ExtensionFileLoader, ModuleSpec
            import _imp, ctypes
            from _testcapi import set_nomemory, remove_mem_hooks

            faulthandler.enable()
            path = sys.argv[1]
            spec = ModuleSpec("greenlet._greenlet", ExtensionFileLoader("greenlet._greenlet", path),
                              origin=path)
            initialize = ctypes.PyDLL(path).PyInit__greenlet
            initialize.restype = ctypes.py_object

            def load():
                return _imp.create_dynamic(spec) if sys.version_info < (3, 13) else initialize()

            def attempt(numbers):
                try:
                    set_nomemory(*numbers)
                    module = load()
                except MemoryError:
                    module = None
                finally:
                    remove_mem_hooks()
                again = module or load()
                it = again.greenlet(lambda value: again.getcurrent().parent.switch(value))
                assert it.switch(7) == 7 and it and it.parent is again.getcurrent()
                assert isinstance(it.throw(), again.GreenletExit) and it.dead
                assert again.greenlet.GreenletExit is again.GreenletExit
                return module is None

            refused = 0
            for number in range(int(sys.argv[2])):
                for numbers in (number, number + 1), (number,):
                    if os.fork() == 0:
                        os._exit(3 + attempt(numbers))
                    code = os.waitstatus_to_exitcode(os.wait()[1])
                    assert code in (3, 4), (numbers, code)
                    refused += code == 4
            print("refused" if refused else "none was refused")
        """)
        path = importlib.util.find_spec("greenlet._greenlet").origin
        done = subprocess.run([sys.executable, "-c", source, path, "160"], capture_output=True,
                              text=True, timeout=120)
        self.assertEqual((done.returncode, done.stdout), (0, "refused\n"), done.stderr[-2000:])


if __name__ == "__main__":
    unittest.main()
