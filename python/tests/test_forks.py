"""A child process has the thread that has forked, and none of the others."""

import gc
import os
import sys
import threading
import unittest

import greenlet
from greenlet import getcurrent


def echo(value=None):
    while True:
        value = getcurrent().parent.switch(value)


class Forks(unittest.TestCase):
    def test_a_new_thread_of_the_child_is_no_thread_of_the_parent(self):
        # The C library gives it the identity of a thread that only the parent process has.
        there, done = threading.Event(), threading.Event()
        suspended, report = [], os.pipe()

        def in_parent():
            def body():
                suspended.append(getcurrent())
                there.set()
                done.wait()
            greenlet.greenlet(body).switch()

        def in_child():
            me = getcurrent()
            words = [me.parent is None, me is not suspended[0]]
            for it in suspended[0], suspended[0].parent:
                try:
                    it.switch()
                except greenlet.error as error:
                    words.append("different thread" in str(error))
            os.write(report[1], repr(words).encode())
        thread = threading.Thread(target=in_parent)
        thread.start()
        there.wait()
        if os.fork() == 0:
            other = threading.Thread(target=in_child)
            other.start()
            other.join()
            os._exit(0)
        _, status = os.wait()
        done.set()
        thread.join()
        os.close(report[1])
        with open(report[0]) as file:
            words = file.read()
        self.assertEqual((status, words), (0, "[True, True, True, True]"))

    def test_the_thread_that_forks_goes_on_in_the_child(self):
        it = greenlet.greenlet(echo)
        it.switch()
        if os.fork() == 0:
            os._exit(it.switch(7) if getcurrent() is it.parent else 1)
        self.assertEqual(os.waitstatus_to_exitcode(os.wait()[1]), 7)
        self.assertEqual(it.switch(1), 1)

    def test_the_child_collects_although_other_threads_were_in_greenlets(self):
        # Their thread states are freed in the child, and main greenlets are suspended on them.
        there, done = threading.Barrier(9), threading.Event()

        def body():
            there.wait()
            done.wait()
        threads = [threading.Thread(target=lambda: greenlet.greenlet(body).switch())
                   for _ in range(8)]
        for thread in threads:
            thread.start()
        there.wait()
        if os.fork() == 0:
            # Overwrites what was freed: small words, which are neither null nor addresses.
            word = (65).to_bytes(8, sys.byteorder)
            taken = [word * count for count in range(64, 4096, 8) for _ in range(2)]
            gc.collect()
            os._exit(7 if taken else 1)
        code = os.waitstatus_to_exitcode(os.wait()[1])
        done.set()
        for thread in threads:
            thread.join()
        self.assertEqual(code, 7)


if __name__ == "__main__":
    unittest.main()
