"""Stacks: their size, their end, and what happens when there is none."""

import gc
import os
import resource
import subprocess
import sys
import textwrap
import unittest

import greenlet


def run(program, **environment):
    """Runs a program in a process of its own. One that takes memory without end harms itself only."""
    def limit():
        resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    return subprocess.run([sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program)],
                          capture_output=True, text=True, timeout=120, preexec_fn=limit,
                          env=dict(os.environ, **environment))


class StackSize(unittest.TestCase):
    def setUp(self):
        self.addCleanup(greenlet.stack_size, greenlet.stack_size())

    def test_is_told_and_set(self):
        before = greenlet.stack_size()
        self.assertEqual(greenlet.stack_size(1 << 18), before)
        self.assertEqual(greenlet.stack_size(), 1 << 18)

    def test_refuses_what_no_stack_can_have(self):
        before = greenlet.stack_size()
        for size in -1, 0, 4096, 1 << 50, 1 << 62:
            with self.assertRaises(ValueError):
                greenlet.stack_size(size)
        for size in "1", 1.5, None:
            with self.assertRaises(TypeError):
                greenlet.stack_size(size)
        with self.assertRaises(OverflowError):
            greenlet.stack_size(1 << 80)
        with self.assertRaises(TypeError):
            greenlet.stack_size(1 << 20, 2)
        self.assertEqual(greenlet.stack_size(), before)

    def test_holds_for_those_that_start_from_then_on(self):
        def depth():
            # About a KiB of C stack a level, and as much as the size allows.
            count = 0

            def deeper(_):
                nonlocal count
                count += 1
                if count < 60:
                    sorted([0], key=deeper)
            sorted([0], key=deeper)
            return count

        for size in 1 << 19, 1 << 20, 1 << 23:
            greenlet.stack_size(size)
            self.assertEqual(greenlet.greenlet(depth).switch(), 60)

    def test_is_taken_from_the_environment(self):
        done = run("import greenlet; print(greenlet.stack_size())", GREENLET_STACK_SIZE="524288")
        self.assertEqual(done.stdout, "524288\n", done.stderr)

    def test_is_refused_from_the_environment_when_it_is_none(self):
        for value in "", "1k", "-1", "4095", "99999999999999999999999":
            done = run("import greenlet", GREENLET_STACK_SIZE=value)
            self.assertIn("ValueError: GREENLET_STACK_SIZE", done.stderr)


class NoStack(unittest.TestCase):
    def test_is_a_MemoryError_and_nothing_is_lost(self):
        done = run("""
            import greenlet, resource
            from greenlet import getcurrent
            def body(value):
                while True:
                    value = getcurrent().parent.switch(value)
            first = greenlet.greenlet(body)
            first.switch(0)
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), -1))
            greenlet.stack_size(64 << 20)
            kept = []
            argument = object()
            import sys
            references = sys.getrefcount(argument)
            while True:
                it = greenlet.greenlet(body)
                try:
                    it.switch(argument)
                except MemoryError as error:
                    print(error)
                    break
                kept.append(it)
            print(it.dead, bool(it), it.run is body, 0 < len(kept) < 7)
            # Each that is suspended has one or more; the one that failed has none.
            del kept[:]
            print(sys.getrefcount(argument) == references)
            print(first.switch(1))
            print(it.switch(2))
        """)
        self.assertEqual(done.stdout.splitlines(), [
            "cannot allocate a stack of 67108864 bytes for a greenlet", "False False True True", "True",
            "1", "2",
        ], done.stderr)

    def test_does_not_lose_what_was_thrown(self):
        done = run("""
            import greenlet, resource
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), -1))
            greenlet.stack_size(1 << 30)
            it = greenlet.greenlet(print)
            try:
                it.throw(KeyError)
            except MemoryError:
                print("refused", it.dead)
            greenlet.stack_size(1 << 20)
            try:
                it.throw(KeyError)
            except KeyError:
                print("thrown", it.dead)
        """)
        self.assertEqual(done.stdout, "refused False\nthrown True\n", done.stderr)


class Depth(unittest.TestCase):
    """Recursion ends in an exception, not in a fault."""

    PATTERNS = {
        "python": "def f(n): return f(n + 1)\ncall = lambda: f(0)",
        "repr": "a = []\nfor _ in range(100_000): a = [a]\ncall = lambda: repr(a)",
        "getattr": "class C:\n    def __getattr__(self, name): return getattr(self, name + 'x')\n"
                   "call = lambda: C().y",
        "eq": "class C:\n    def __eq__(self, other): return self == other\ncall = lambda: C() == C()",
        "map": "def f(x): return list(map(f, [x]))\ncall = lambda: f(0)",
        "json": "import json\na = []\nfor _ in range(100_000): a = [a]\ncall = lambda: json.dumps(a)",
        "call": "class C:\n    def __call__(self): return self()\ncall = lambda: C()()",
        "str": "class C:\n    def __str__(self): return str(self)\ncall = lambda: str(C())",
    }
    # The C stack of `sorted` in itself is deep, and before 3.12 nothing counts it.
    if sys.version_info >= (3, 12):
        PATTERNS["sorted"] = "def f(x): return sorted([x], key=f)\ncall = lambda: f(0)"

    def test_is_a_RecursionError(self):
        for name, pattern in self.PATTERNS.items():
            with self.subTest(name):
                done = run(pattern + textwrap.dedent("""
                    import greenlet
                    def body():
                        try:
                            call()
                        except RecursionError:
                            print("too deep")
                    greenlet.greenlet(body).switch()
                    greenlet.greenlet(body).switch()
                """))
                self.assertEqual(done.stdout, "too deep\n" * 2, done.stderr[-600:])

    def test_long_chains_are_freed_on_a_greenlets_stack(self):
        done = run("""
            import greenlet
            def body():
                a = None
                for _ in range(200_000):
                    a = (a,)
                del a
                print("freed")
            greenlet.greenlet(body).switch()
        """)
        self.assertEqual(done.stdout, "freed\n", done.stderr[-600:])


class Overflow(unittest.TestCase):
    def test_names_the_greenlet_where_that_was_asked_for(self):
        # By the C library, whose recursion nobody counts.
        done = run("""
            import ctypes, faulthandler, greenlet
            faulthandler.enable()
            greenlet.report_stack_overflow()
            compiled = ctypes.create_string_buffer(1024)
            compile_pattern = ctypes.CDLL(None).regcomp
            nested = b"(" * 50_000 + b")" * 50_000
            def overflow_it():
                compile_pattern(compiled, nested, 1)
            greenlet.stack_size(65536)
            it = greenlet.greenlet(overflow_it)
            print(hex(id(it)), flush=True)
            it.switch()
        """)
        self.assertLess(done.returncode, 0)
        self.assertIn(f"the greenlet at {done.stdout.strip()} has overflowed its stack", done.stderr)
        self.assertIn("in overflow_it", done.stderr)


class Reuse(unittest.TestCase):
    def test_stacks_of_ended_greenlets_serve_again(self):
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()

        def some(count):
            its = [greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch())
                   for _ in range(count)]
            for it in its:
                it.switch()

        some(2000)
        gc.collect()
        before = resident()
        for _ in range(20):
            some(2000)
        gc.collect()
        self.assertLess(resident() - before, 4 << 20)


if __name__ == "__main__":
    unittest.main()
