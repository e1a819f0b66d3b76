"""A million greenlets in random states, dropped in random order: resident memory stays flat.

    python leaks.py [COUNT]

Ends with `N passed, N failed`.
"""

import gc
import random
import resource
import sys
import threading

import greenlet
from greenlet import getcurrent

ROUND = 10_000
ALLOWED = 8 << 20


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def waits(*_, **__):
    while True:
        getcurrent().parent.switch()


def ends(*_, **__):
    return 1


def fails(*_, **__):
    raise KeyError


def deep(*_, **__):
    return sorted([1, 2], key=waits)


def knows_itself(*_, **__):
    me = getcurrent()
    # In a list: CPython does not track a dictionary for a value that is no object of the collector's
    # when it is put in, as an active greenlet is none, here and in the released greenlet.
    me.itself = [me]
    me.parent.switch()


class Derived(greenlet.greenlet):
    """Whose frame has a reference to it, as that of each method has."""

    def run(self, *args):
        waits()


def one(chosen, those):
    body = chosen.choice([waits, ends, fails, deep, knows_itself, None])
    it = Derived() if body is None else greenlet.greenlet(body)
    those.append(it)
    if chosen.randrange(8) == 0 and len(those) > 1:
        it.parent = those[-2]
    for _ in range(chosen.randrange(3)):
        try:
            it.switch(chosen.random(), key=[1]) if body is not None else it.switch([2])
        except KeyError:
            pass
    if chosen.randrange(10) == 0:
        try:
            it.throw(KeyError)
        except KeyError:
            pass


def in_thread(seed):
    those, chosen = [], random.Random(seed)
    for _ in range(20):
        one(chosen, those)
    drop(those, chosen)


def has_itself(it):
    return it and (type(it) is Derived or hasattr(it, "itself"))


def drop(those, chosen):
    """In random order; first a kill of each suspended one that has itself, which the collector
    would leave alone. What one ends with may start its parent, which then is another of them."""
    while any(map(has_itself, those)):
        for it in filter(has_itself, those):
            it.throw()
    chosen.shuffle(those)
    while those:
        those.pop()


def round_of(seed):
    those, chosen = [], random.Random(seed)
    for _ in range(ROUND):
        one(chosen, those)
    drop(those, chosen)
    thread = threading.Thread(target=in_thread, args=[seed])
    thread.start()
    thread.join()
    gc.collect()


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    # The first rounds find out how much is in use at once.
    for seed in range(5):
        round_of(seed)
    before = resident()
    for seed in range(5, max(6, count // ROUND)):
        round_of(seed)
    grown = resident() - before
    print(f"{count} greenlets, {grown >> 10} KiB more than before")
    failed = grown > ALLOWED
    print(f"{1 - failed} passed, {failed + 0} failed")
    sys.exit(failed)


if __name__ == "__main__":
    main()
