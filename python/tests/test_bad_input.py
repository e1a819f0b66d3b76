"""What cannot be done raises the right exception, and leaves everything as it was."""

import abc
import contextvars
import copy
import os
import pickle
import sys
import threading
import time
import unittest
import weakref

import greenlet
from greenlet import getcurrent


def in_thread(call):
    """Calls it in another thread, and raises here what it raised there."""
    result = []

    def main():
        try:
            result.append((call(), None))
        except BaseException as error:
            result.append((None, error))
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    # Only when the system's thread has ended has greenlet been told.
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):
        time.sleep(0.0001)
    value, error = result.pop()
    if error is not None:
        raise error
    return value


def echo(value=None):
    while True:
        value = getcurrent().parent.switch(value)


class Arguments(unittest.TestCase):
    def test_of_the_type(self):
        with self.assertRaisesRegex(TypeError, r"at most 2 arguments \(3 given\)"):
            greenlet.greenlet(1, None, 3)
        for arguments in (), (1,):
            with self.assertRaisesRegex(TypeError, "'body'"):
                greenlet.greenlet(*arguments, body=1)
        with self.assertRaisesRegex(TypeError, "given by name .'run'. and position"):
            greenlet.greenlet(1, run=1)
        for parent in 1, object(), "main":
            with self.assertRaisesRegex(TypeError, "Expected any type of greenlet"):
                greenlet.greenlet(echo, parent)

    def test_of_throw(self):
        it = greenlet.greenlet(echo)
        it.switch()
        with self.assertRaisesRegex(TypeError, "exceptions must be classes, or instances, not int"):
            it.throw(3)
        with self.assertRaisesRegex(TypeError, "third argument must be a traceback"):
            it.throw(KeyError, None, 3)
        with self.assertRaisesRegex(TypeError, "may not have a separate value"):
            it.throw(KeyError(), 3)
        with self.assertRaisesRegex(TypeError, r"^throw\(\) takes at most 3 arguments \(4 given\)$"):
            it.throw(1, 2, 3, 4)
        with self.assertRaisesRegex(TypeError, r"throw\(\) takes no keyword arguments"):
            it.throw(typ=KeyError)
        self.assertEqual(it.switch(5), 5)

    def test_of_attributes(self):
        it = greenlet.greenlet(echo)
        for name in "parent", "gr_context", "dead", "gr_frame", "_stack_saved":
            with self.assertRaises(AttributeError):
                delattr(it, name)
        for name in "dead", "gr_frame", "_stack_saved":
            with self.assertRaises(AttributeError):
                setattr(it, name, 1)
        with self.assertRaises(TypeError):
            it.gr_context = 1
        with self.assertRaises(TypeError):
            it.__dict__ = 1
        with self.assertRaises(TypeError):
            del it.__dict__
        with self.assertRaises(AttributeError):
            getcurrent().run
        with self.assertRaises(AttributeError):
            getcurrent().parent = it

    def test_of_functions(self):
        for call in greenlet.settrace, greenlet.enable_optional_cleanup:
            with self.assertRaises(TypeError):
                call()
        with self.assertRaises(TypeError):
            greenlet.getcurrent(1)

    def test_of_an_abstract_or_foreign_class(self):
        class Abstract(greenlet.greenlet, metaclass=abc.ABCMeta):
            @abc.abstractmethod
            def run(self):
                pass
        with self.assertRaisesRegex(TypeError, "abstract"):
            Abstract()
        with self.assertRaises(TypeError):
            greenlet.greenlet.__new__(int)
        with self.assertRaises(TypeError):
            greenlet.greenlet.switch(1)
        with self.assertRaises(TypeError):
            greenlet.greenlet.throw(None)

    def test_of_one_that_was_not_initialized(self):
        it = greenlet.greenlet.__new__(greenlet.greenlet)
        with self.assertRaisesRegex(AttributeError, "run"):
            it.switch()
        self.assertFalse(it.dead)
        it.run = echo
        self.assertEqual(it.switch(1), 1)

    def test_copies(self):
        for call in copy.copy, copy.deepcopy, pickle.dumps:
            with self.assertRaises(TypeError):
                call(greenlet.greenlet(echo))

    def test_cycles(self):
        first = greenlet.greenlet(echo)
        second = greenlet.greenlet(echo, first)
        third = greenlet.greenlet(echo, second)
        for parent in first, second, third:
            with self.assertRaisesRegex(ValueError, "cyclic parent chain"):
                first.parent = parent
        self.assertIs(first.parent, getcurrent())


class Threads(unittest.TestCase):
    def test_switch_to_one_of_another_thread(self):
        it = greenlet.greenlet(echo)
        it.switch()
        argument = object()
        references = sys.getrefcount(argument)
        with self.assertRaisesRegex(greenlet.error, "Cannot switch to a different thread"):
            in_thread(lambda: it.switch(argument))
        with self.assertRaisesRegex(greenlet.error, "Cannot switch to a different thread"):
            in_thread(lambda: it.throw(KeyError, argument))
        self.assertEqual(sys.getrefcount(argument), references)
        self.assertEqual(it.switch(1), 1)

    def test_switch_to_one_of_a_thread_that_has_ended(self):
        def make():
            it = greenlet.greenlet(echo)
            it.switch()
            return it
        it = in_thread(make)
        with self.assertRaises(greenlet.error):
            it.switch()
        with self.assertRaises(greenlet.error):
            it.throw(KeyError)

    def test_start_of_one_whose_parent_is_in_another_thread(self):
        it = greenlet.greenlet(lambda: getcurrent().parent)
        with self.assertRaises(greenlet.error):
            in_thread(it.switch)
        self.assertFalse(it.dead)
        self.assertIs(it.switch(), getcurrent())

    def test_parent_in_another_thread(self):
        it = greenlet.greenlet(echo)
        it.switch()
        with self.assertRaisesRegex(ValueError, "on a different thread"):
            it.parent = in_thread(getcurrent)
        self.assertIs(it.parent, getcurrent())

    def test_context_of_one_that_runs_in_another_thread(self):
        main = getcurrent()

        def look():
            with self.assertRaises(ValueError):
                main.gr_context
            with self.assertRaises(ValueError):
                main.gr_context = contextvars.copy_context()
        in_thread(look)

    def test_drop_in_another_thread_kills_it_in_its_own(self):
        seen = []

        def body():
            try:
                getcurrent().parent.switch()
            finally:
                seen.append(threading.get_ident())
        its = [greenlet.greenlet(body)]
        its[0].switch()
        in_thread(its.clear)
        getcurrent()
        self.assertEqual(seen, [threading.get_ident()])


    def test_everything_but_a_switch_works_on_one_of_another_thread(self):
        it = greenlet.greenlet(echo)
        it.switch()
        main = getcurrent()

        def look():
            self.assertIs(it.gr_frame.f_code, echo.__code__)
            self.assertIsNone(main.gr_frame)
            self.assertIs(it.parent, main)
            self.assertFalse(it.dead)
            self.assertTrue(it)
            self.assertIsNone(it.gr_context)
            repr(it)
            with self.assertRaisesRegex(ValueError, "on a different thread"):
                it.parent = getcurrent()
            with self.assertRaisesRegex(AttributeError, "after the start"):
                it.run = print
        in_thread(look)
        self.assertEqual(it.switch(1), 1)

    def test_end_under_a_parent_in_another_thread(self):
        # The parent is one that has not started, so that it belongs to no thread so far.
        parent = greenlet.greenlet(echo)

        def other():
            it = greenlet.greenlet(lambda: 1)
            with self.assertRaisesRegex(ValueError, "on a different thread"):
                started = greenlet.greenlet(echo)
                started.switch()
                started.parent = parent
            it.parent = parent
            with self.assertRaises(greenlet.error):
                it.switch()
            return it
        it = in_thread(other)
        self.assertFalse(it.dead)
        self.assertEqual(it.switch(), 1)
        self.assertTrue(it.dead)


class Dead(unittest.TestCase):
    def setUp(self):
        self.it = greenlet.greenlet(lambda: None)
        self.it.switch()

    def test_passes_on_what_it_is_sent(self):
        self.assertTrue(self.it.dead)
        self.assertFalse(self.it)
        self.assertEqual(self.it.switch(), ())
        self.assertEqual(self.it.switch(1), 1)
        self.assertEqual(self.it.switch(1, a=2), ((1,), {"a": 2}))

    def test_passes_on_what_is_thrown(self):
        with self.assertRaises(KeyError):
            self.it.throw(KeyError)
        self.assertIsInstance(self.it.throw(), greenlet.GreenletExit)
        error = greenlet.GreenletExit("text")
        self.assertIs(self.it.throw(error), error)

    def test_has_no_run_and_no_frame(self):
        with self.assertRaises(AttributeError):
            self.it.run
        with self.assertRaises(AttributeError):
            self.it.run = print
        self.assertIsNone(self.it.gr_frame)
        self.assertIsNone(self.it.gr_context)
        self.assertEqual(self.it._stack_saved, 0)

    def test_may_be_a_parent_and_have_another(self):
        child = greenlet.greenlet(lambda: 1, self.it)
        self.assertEqual(child.switch(), 1)
        other = greenlet.greenlet(lambda: 2)
        other.switch()
        self.it.parent = other
        self.assertEqual(self.it.switch(3), 3)
        with self.assertRaisesRegex(ValueError, "cyclic parent chain"):
            other.parent = self.it

    def test_one_whose_thread_has_ended_is_no_parent(self):
        def make():
            it = greenlet.greenlet(echo)
            it.switch()
            return it
        it = in_thread(make)
        child = greenlet.greenlet(echo)
        child.switch()
        with self.assertRaises(ValueError):
            child.parent = it
        with self.assertRaises(greenlet.error):
            greenlet.greenlet(echo, it).switch()
        self.assertIs(child.parent, getcurrent())
        self.assertEqual(child.switch(1), 1)


class FramesOfTheDead(unittest.TestCase):
    def test_stay_readable_when_their_thread_has_ended(self):
        def body():
            mark = ["kept"]
            getcurrent().parent.switch(mark)

        def make():
            it = greenlet.greenlet(body)
            it.switch()
            return it

        it = in_thread(make)
        frame = it.gr_frame
        if frame is None:
            # The thread is already cleaned up after.
            return
        self.assertTrue(it.dead)
        del it
        for _ in range(100):
            other = greenlet.greenlet(lambda: sorted([3, 1, 2]))
            other.switch()
        self.assertEqual(frame.f_locals["mark"], ["kept"])
        self.assertEqual(frame.f_code, body.__code__)


    def test_stay_readable_when_the_end_has_stopped_half_way(self):
        # The parent's `run` is looked up by the greenlet that ends.
        class Parent(greenlet.greenlet):
            @property
            def run(self):
                mark = ["kept"]
                kept.append(sys._getframe())
                main.switch()

        def busy(number):
            sorted([3, 1, 2], key=lambda it: it)
            main.switch()
        main, kept = getcurrent(), []
        for _ in range(20):
            child = greenlet.greenlet(lambda: 1, Parent())
            child.switch()
            self.assertTrue(child.dead)
            del child
        others = [greenlet.greenlet(busy) for _ in range(50)]
        for number, other in enumerate(others):
            other.switch(number)
        for frame in kept:
            self.assertEqual(frame.f_locals["mark"], ["kept"])


class ParentThatCannotStart(unittest.TestCase):
    def test_gets_over_to_the_next(self):
        class Bad(greenlet.greenlet):
            @property
            def run(self):
                raise KeyError("no run")
        bad = Bad()
        it = greenlet.greenlet(lambda: 1, bad)
        with self.assertRaisesRegex(KeyError, "no run"):
            it.switch()
        self.assertTrue(it.dead)
        self.assertFalse(bad.dead)

    def test_may_be_lost_while_it_is_looked_up(self):
        class Vanishing(greenlet.greenlet):
            @property
            def run(self):
                child.parent = main
                raise KeyError("gone")
        main = getcurrent()
        child = greenlet.greenlet(lambda: 1, Vanishing())
        with self.assertRaisesRegex(KeyError, "gone"):
            child.switch()
        self.assertTrue(child.dead)

    def test_receives_a_GreenletExit_as_its_argument(self):
        # greenlet 3.5.6 passes the exception as if it were the tuple of arguments.
        got = []
        parent = greenlet.greenlet(got.append)

        def body():
            error = greenlet.GreenletExit()
            error.attribute = 1
            raise error
        greenlet.greenlet(body, parent).switch()
        self.assertEqual(list(map(type, got)), [greenlet.GreenletExit])


class Ends(unittest.TestCase):
    def test_dropping_the_last_reference_while_it_is_looked_up(self):
        class Vanishing(greenlet.greenlet):
            @property
            def run(self):
                its.clear()
                return echo
        its = [Vanishing()]
        self.assertEqual(its[0].switch(1), 1)

    def test_weak_references_die_with_it(self):
        it = greenlet.greenlet(echo)
        it.switch()
        reference = weakref.ref(it)
        del it
        self.assertIsNone(reference())

    def test_run_that_is_no_function(self):
        it = greenlet.greenlet(3)
        with self.assertRaises(TypeError):
            it.switch()
        self.assertTrue(it.dead)


if __name__ == "__main__":
    unittest.main()
