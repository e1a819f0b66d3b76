"""Random programs of greenlets, which say all that they see.

    python random_program.py FIRST LAST [STEPS]

Runs the programs of these seeds, each of so many steps, and prints a line for each event. What is
printed depends on the seed and on how greenlets behave, not on addresses or time: two
implementations that behave alike print the same (differential.py compares them).

Two things are left out, in which the released greenlet has faults:

* A GreenletExit that becomes the argument of a parent which has not started: it passes the bare
  exception as the tuple of arguments, and crashes.
* A greenlet whose thread has ended: it forgets that this one was started, so that it has a `run`
  again, takes a parent of another thread, belongs to that, and can be started once more.
"""

import contextvars
import gc
import os
import random
import re
import sys
import threading
import time

import greenlet

VARIABLE = contextvars.ContextVar("VARIABLE")


class Failure(Exception):
    pass


class Derived(greenlet.greenlet):
    """Whose `run` is a method, and which has attributes."""

    def __init__(self, run, parent=None):
        super().__init__(parent=parent)
        self.body = run

    def run(self, *args, **kwargs):
        return self.body(*args, **kwargs)


class Looked(greenlet.greenlet):
    """The lookup of whose `run` is Python code."""

    def __init__(self, run, parent=None):
        super().__init__(None, parent)
        self.body = run
        self.lookups = 0

    def __getattribute__(self, name):
        if name == "run":
            self.lookups += 1
            if self.lookups == 2 and self.body.program.chance(3):
                raise Failure("no run today")
            return self.body
        return super().__getattribute__(name)


class Program:
    def __init__(self, seed, steps):
        self.random = random.Random(seed)
        self.steps = steps
        self.alive = {}                 # name: greenlet
        self.names = {}                 # id: name, of those that are in `alive` or run
        self.serial = 0
        self.threads = 0
        self.quiet = False

    # ---- what it says

    def say(self, *words):
        if not self.quiet:
            text = " ".join(map(str, words))
            print(re.sub(r"0x[0-9a-f]+|\(nil\)", "ADDRESS", text))

    def name(self, it):
        if it is None:
            return "none"
        for name, other in self.alive.items():
            if other is it:
                return name
        return getattr(it, "label", "?") if type(it) is not greenlet.greenlet else (
            it.__dict__.get("label", "?"))

    def show(self, value):
        if isinstance(value, greenlet.greenlet):
            return self.name(value)
        if isinstance(value, BaseException):
            return f"{type(value).__name__}({', '.join(map(str, value.args))})"
        if isinstance(value, tuple):
            return "(" + " ".join(map(self.show, value)) + ")"
        if isinstance(value, dict):
            return "{" + " ".join(f"{key}={self.show(item)}" for key, item in value.items()) + "}"
        return repr(value)

    # ---- what it does

    def chance(self, of):
        return self.random.randrange(of) == 0

    def pick(self):
        it = self.random.choice(list(self.alive.values())) if self.alive else None
        return None if self.is_lost(it) else it

    def make(self):
        self.serial += 1
        label = f"g{self.serial}"
        kind = self.random.choice([greenlet.greenlet, greenlet.greenlet, Derived, Looked])
        body = Body(self, label)
        parent = self.pick() if self.chance(3) else None
        try:
            made = kind(body, parent)
        except Exception as error:
            self.say("refused", self.show(error))
            return
        made.__dict__["label"] = label
        self.alive[label] = made
        self.say("new", label, kind.__name__, "under", self.name(made.parent))

    def value(self):
        return self.random.choice([
            ((), {}), ((self.random.randrange(100),), {}), ((1, "two"), {}), (((3,),), {}),
            ((), {"key": 4}), ((5,), {"key": 6}), ((None,), {}), (((),), {}),
        ])

    def next_alive(self, it):
        while it is not None and it.dead:
            it = it.parent
        return it

    def would_pass_garbage(self, it):
        """Would a GreenletExit that ends `it` become an argument?"""
        heir = self.next_alive(it.parent)
        return heir is not None and not heir and not heir.dead

    def is_lost(self, it):
        """Has the thread ended in which it, or what it was to be started by, was started?"""
        while it is not None:
            if it.dead and "(thread exited)" in repr(it):
                return True
            it = it.parent
        return False

    def attempt(self, what, call):
        try:
            result = call()
        except greenlet.GreenletExit:
            raise
        except Exception as error:
            self.say(self.here(), "raised by", what, self.show(error))
            if self.chance(3):
                raise
        else:
            self.say(self.here(), what, "returned", self.show(result))

    def here(self):
        return self.name(greenlet.getcurrent())

    def switch(self, depth):
        target = self.pick()
        if target is None:
            return
        args, kwargs = self.value()
        what = f"switch to {self.name(target)} with {self.show((args, kwargs))}"
        self.say(self.here(), what)
        self.attempt(what, lambda: self.deep(depth, lambda: target.switch(*args, **kwargs)))

    def throw(self):
        target = self.pick()
        if target is None:
            return
        kind = self.random.choice([Failure, greenlet.GreenletExit, ValueError, KeyError, None, 3])
        if kind in (greenlet.GreenletExit, None):
            victim = self.next_alive(target)
            if victim is None or (not victim and (victim is not target
                                                  or self.would_pass_garbage(victim))):
                return
        what = f"throw {kind} at {self.name(target)}"
        self.say(self.here(), what)
        if kind is None:
            self.attempt(what, target.throw)
        elif kind is ValueError:
            self.attempt(what, lambda: target.throw(kind("made"), None))
        elif kind is KeyError:
            self.attempt(what, lambda: target.throw(kind, "a value"))
        else:
            self.attempt(what, lambda: target.throw(kind))

    def drop(self):
        if self.alive:
            label = self.random.choice(list(self.alive))
            self.say(self.here(), "drops", label)
            it = self.alive.pop(label)
            del it
            self.say(self.here(), "has dropped", label)

    def reparent(self):
        child, parent = self.pick(), self.pick()
        if child is not None:
            what = f"parent of {self.name(child)} = {self.name(parent)}"

            def assign():
                child.parent = parent
            self.attempt(what, assign)

    def look(self):
        it = self.pick()
        if it is None:
            return
        depth = 0
        frame = it.gr_frame
        while frame is not None:
            depth, frame = depth + 1, frame.f_back
        run = type(it) is greenlet.greenlet and not it.dead and hasattr(it, "run")
        self.say("look", self.name(it), "dead" if it.dead else "", bool(it), "frames", depth,
                 "parent", self.name(it.parent), "run" if run else "",
                 "context" if it is not greenlet.getcurrent() and it.gr_context else "")
        self.say(re.sub(r"^<\S+ object at \S+ \(otid=\S+\)", "", repr(it)))

    def trace(self):
        def callback(event, args):
            origin, target = args
            self.say("trace", event, self.name(origin), "->", self.name(target))
            if self.chance(40):
                raise Failure("in a trace")
        if greenlet.gettrace() is None:
            greenlet.settrace(callback)
            self.say("traces")
        else:
            greenlet.settrace(None)
            self.say("traces no more")

    def context(self):
        if self.chance(2):
            VARIABLE.set(self.random.randrange(10))
        self.say("variable", VARIABLE.get(None))

    def rebind(self):
        it = self.pick()
        if it is not None and it is not greenlet.getcurrent():
            def assign():
                it.gr_context = contextvars.copy_context() if self.chance(2) else None
            self.attempt(f"context of {self.name(it)}", assign)

    def thread(self):
        """Another thread runs a program of its own meanwhile, and may leave greenlets behind."""
        if self.threads >= 2 or not self.chance(4):
            return
        self.threads += 1
        number = self.threads
        outer, inner = self.alive, {}
        keep = self.chance(2)
        budget, self.steps = self.steps, min(self.steps, 30)

        def main():
            greenlet.getcurrent().__dict__["label"] = f"main{number}"
            try:
                while self.steps > 0:
                    self.step(0)
            except BaseException as error:
                self.say("thread", number, "ended with", self.show(error))
            greenlet.settrace(None)
            if not keep:
                self.empty()

        self.say("thread", number)
        traced, self.alive = greenlet.gettrace(), inner
        if outer and self.chance(2):
            # One of another thread.
            label, it = self.random.choice(list(outer.items()))
            inner[label] = it
            del it
        thread = threading.Thread(target=main)
        thread.start()
        thread.join()
        # Only then has greenlet been told, and the interpreter has cleaned up.
        while os.path.exists(f"/proc/self/task/{thread.native_id}"):
            time.sleep(0.0001)
        while (threading.current_thread() is threading.main_thread()
               and greenlet._greenlet.get_pending_cleanup_count()):
            pass
        self.steps = budget - 30
        self.alive = outer
        for label, it in inner.items():
            outer.setdefault(label, it)
        inner.clear()
        del traced
        self.say("thread", number, "is over")

    def empty(self):
        while self.alive:
            label, it = self.alive.popitem()
            self.say("at last drops", label)
            del it

    def deep(self, depth, call):
        """With so many frames below, each second one of them in C."""
        if depth == 0:
            return call()
        if depth % 2:
            return self.deep(depth - 1, call)
        result = []
        sorted([0], key=lambda _: result.append(self.deep(depth - 1, call)))
        return result[0]

    def step(self, level):
        self.steps -= 1
        choice = self.random.randrange(100)
        if choice < 20:
            self.make()
        elif choice < 60:
            self.switch(self.random.choice([0, 0, 0, 1, 2, 5, 20]))
        elif choice < 68:
            self.throw()
        elif choice < 74:
            self.drop()
        elif choice < 79:
            self.reparent()
        elif choice < 86:
            self.look()
        elif choice < 88:
            self.trace()
        elif choice < 92:
            self.context()
        elif choice < 93:
            self.rebind()
        elif choice < 95:
            gc.collect()
        elif choice < 96:
            self.thread()
        elif level and choice < 98:
            return "return"
        elif level:
            raise Failure(f"of {self.here()}")
        return None


class Body:
    """What a greenlet runs."""

    def __init__(self, program, label):
        self.program = program
        self.label = label
        self.stubborn = program.chance(6)

    def __call__(self, *args, **kwargs):
        program = self.program
        program.say(self.label, "starts with", program.show((args, kwargs)))
        try:
            while program.steps > 0:
                try:
                    if program.step(1) == "return":
                        break
                except greenlet.GreenletExit as error:
                    program.say(self.label, "is killed:", program.show(error))
                    if self.stubborn:
                        self.stubborn = False
                        continue
                    if program.would_pass_garbage(greenlet.getcurrent()):
                        break
                    raise
                except Failure as error:
                    if program.chance(2):
                        raise
                    program.say(self.label, "goes on after", program.show(error))
        finally:
            program.say(self.label, "ends")
        return program.random.choice([None, 1, (2,), (), (3, 4), self.label])


def main():
    first, last = int(sys.argv[1]), int(sys.argv[2])
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    greenlet.getcurrent().__dict__["label"] = "main"
    sys.unraisablehook = lambda it: print("unraisable", type(it.exc_value).__name__, it.exc_value)
    sys.stderr = sys.stdout
    for seed in range(first, last):
        print("seed", seed)
        program = Program(seed, steps)
        while program.steps > 0:
            try:
                program.step(0)
            except BaseException as error:
                program.say("main catches", program.show(error))
        greenlet.settrace(None)
        program.empty()
        gc.collect()
        sys.stdout.flush()


if __name__ == "__main__":
    main()
