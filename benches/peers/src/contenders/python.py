"""The workloads for Python's greenlet; see remote.rs.

Each line of the input is a workload and its arguments, each line of the output what came of it
in JSON: nothing of a workload that is not here. With arguments, they are the one line.
"""

import json
import os
import random
import sys
import time

try:
    from greenlet import GreenletExit, getcurrent, greenlet
except ImportError as error:
    unavailable = f"{sys.executable}: {error}"
else:
    unavailable = None


class Owned:
    def __del__(self):
        pass


class SmallError(Exception):
    pass


def nest(frames, switch, x):
    return switch(x) if frames <= 1 else nest(frames - 1, switch, x)


def owning(frames, switch, x):
    if frames == 0:
        return switch(x)
    owned = Owned()
    return owning(frames - 1, switch, x)


def start(body):
    """A greenlet that has run up to its first switch."""
    made = greenlet(body)
    made.switch(0)
    return made


def clock():
    return time.process_time_ns()


def adder():
    switch = getcurrent().switch

    def body(x):
        while True:
            x = switch(x + 1)

    return body


def flat(ops):
    switch = start(adder()).switch
    x = 0
    begin = clock()
    for _ in range(ops):
        x = switch(x)
    elapsed = clock() - begin
    assert x == ops
    return elapsed


def message(ops):
    main = getcurrent().switch

    def body(x):
        while True:
            x = main(x)

    switch = start(body).switch
    x = bytes(256)
    begin = clock()
    for _ in range(ops):
        x = switch(x)
    return clock() - begin


def deep_adder(frames):
    switch = getcurrent().switch

    def body(x):
        while True:
            x = nest(frames, switch, x + 1)

    return body


def deep(frames, ops):
    switch = start(deep_adder(frames)).switch
    x = 0
    begin = clock()
    for _ in range(ops):
        x = switch(x)
    elapsed = clock() - begin
    assert x == ops
    return elapsed


def deep_on_both(frames, ops):
    switch = start(deep_adder(frames)).switch
    x = 0
    begin = clock()
    for _ in range(ops):
        x = nest(frames, switch, x)
    elapsed = clock() - begin
    assert x == ops
    return elapsed


def ring(size, ops):
    main = getcurrent()
    members = []

    def member(index):
        def body(_):
            hops = main.switch()
            switch = members[(index + 1) % size].switch
            while True:
                hops = switch(hops - 1) if hops else main.switch()

        return body

    members.extend([start(member(index)) for index in range(size)])
    members[0].switch(2 * size)
    begin = clock()
    members[0].switch(ops)
    return clock() - begin


def round_robin(count, frames, passes):
    body = deep_adder(frames) if frames else adder()
    order = [start(body) for _ in range(count)]
    random.shuffle(order)
    x = 0
    for repeated in [1, passes]:
        begin = clock()
        for _ in range(repeated):
            for each in order:
                x = each.switch(x)
    elapsed = clock() - begin
    assert x == (1 + passes) * count
    return elapsed


def pooled(ops):
    def body(x):
        return x + 1

    x = 0
    begin = clock()
    for _ in range(ops):
        x = greenlet(body).switch(x)
    elapsed = clock() - begin
    assert x == ops
    return elapsed


def kill(frames, ops):
    main = getcurrent().switch

    def body(x):
        owning(frames, main, x)

    elapsed = 0
    while ops > 0:
        victims = [start(body) for _ in range(min(ops, 64))]
        ops -= len(victims)
        begin = clock()
        for victim in victims:
            victim.throw(GreenletExit)
        elapsed += clock() - begin
    return elapsed


def throw(ops):
    main = getcurrent().switch

    def body(x):
        while True:
            try:
                x = main(x)
            except SmallError as error:
                x = error.args[0] + 1

    throw = start(body).throw
    x = 0
    begin = clock()
    for _ in range(ops):
        x = throw(SmallError(x))
    elapsed = clock() - begin
    assert x == ops
    return elapsed


def panic(ops):
    def body(x):
        raise SmallError(x)

    x = 0
    begin = clock()
    for _ in range(ops):
        try:
            greenlet(body).switch(x)
        except SmallError as error:
            x = error.args[0] + 1
    elapsed = clock() - begin
    assert x == ops
    return elapsed


def populate(count):
    """Nanoseconds, and the bytes that it took."""
    body = adder()
    resident, page_tables = memory()
    begin = clock()
    everybody = [start(body) for _ in range(count)]
    elapsed = clock() - begin
    after = memory()
    # Without taking down what may be a million.
    answer({"ns": elapsed, "resident": after[0] - resident, "page_tables": after[1] - page_tables})
    os._exit(0)


def memory():
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return [int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmPTE")]


def answer(result):
    print(json.dumps(result), flush=True)


WORKLOADS = [
    flat,
    message,
    deep,
    deep_on_both,
    ring,
    round_robin,
    pooled,
    kill,
    throw,
    panic,
    populate,
]


def main():
    by_name = {workload.__name__: workload for workload in WORKLOADS}
    for line in [" ".join(sys.argv[1:])] if sys.argv[1:] else sys.stdin:
        if unavailable:
            answer({"skip": unavailable})
            continue
        name, *arguments = line.split()
        workload = by_name.get(name)
        answer({"ns": workload(*map(int, arguments))} if workload else {})


main()
