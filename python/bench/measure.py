"""Measures the installed greenlet: CPU time of each workload, one line of JSON.

    python measure.py [WORKLOAD…]

compare.py runs it by turns on two greenlets.
"""

import gc
import json
import os
import sys
from time import process_time_ns

import greenlet
from greenlet import getcurrent


def deep_python(depth, call):
    return call() if depth == 0 else deep_python(depth - 1, call)


def deep_c(depth, call):
    """So many calls of `map`, each with a call of Python in it."""
    if depth == 0:
        return call()
    for result in map(lambda n: deep_c(n, call), [depth - 1]):
        return result


def echo():
    parent = getcurrent().parent
    while True:
        parent.switch()


def timed(count, loop):
    """Nanoseconds for each of `count`."""
    gc.collect()
    gc.disable()
    before = process_time_ns()
    loop(count)
    spent = process_time_ns() - before
    gc.enable()
    return spent / count


def switches(it):
    def loop(count):
        switch = it.switch
        for _ in range(count):
            switch()
    return loop


def round_trip(deep=None, depth=0, both=False):
    def body():
        return deep(depth, echo) if deep else echo()

    def measure():
        it = greenlet.greenlet(body)
        it.switch()
        # There and back.
        return timed(60_000 if not deep else 20_000, switches(it)) / 2
    if both:
        return lambda: deep(depth, measure)
    return measure


def nothing():
    pass


def create():
    def loop(count):
        new, body = greenlet.greenlet, nothing
        for _ in range(count):
            new(body).switch()
    return timed(20_000, loop)


def killed(end):
    def loop(count):
        for _ in range(count):
            it = greenlet.greenlet(echo)
            it.switch()
            end(it)
    return timed(10_000, loop)


def catching():
    parent = getcurrent().parent
    while True:
        try:
            parent.switch()
        except KeyError:
            pass


def throw():
    it = greenlet.greenlet(catching)
    it.switch()

    def loop(count):
        for _ in range(count):
            it.throw(KeyError)
    return timed(20_000, loop)


def many():
    its = [greenlet.greenlet(echo) for _ in range(10_000)]
    for it in its:
        it.switch()

    def loop(count):
        for _ in range(count // len(its)):
            for it in its:
                it.switch()
    return timed(100_000, loop) / 2


def cold():
    """In a process of its own, so that no stack was used before."""
    its = [greenlet.greenlet(echo) for _ in range(10_000)]

    def loop(_):
        for it in its:
            it.switch()
    return timed(10_000, loop)


def memory():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return sum(int(lines[name].split()[0]) for name in ("VmRSS", "VmPTE")) * 1024


def bytes_each(depth):
    def measure():
        def body():
            return deep_c(depth, echo)
        its = [greenlet.greenlet(body) for _ in range(10_000)]
        gc.collect()
        before = memory()
        for it in its:
            it.switch()
        return (memory() - before) / len(its)
    return measure


def gevent_spawn():
    import gevent

    def loop(count):
        for _ in range(count):
            gevent.spawn(int).join()
    return timed(10_000, loop)


def gevent_sleep():
    import gevent

    def loop(count):
        for _ in range(count):
            gevent.sleep(0)
    return timed(20_000, loop)


def gevent_queue():
    import gevent
    from gevent.queue import Queue
    there, back = Queue(), Queue()

    def serve():
        while True:
            back.put(there.get())

    def loop(count):
        for _ in range(count):
            there.put(1)
            back.get()
    server = gevent.spawn(serve)
    result = timed(10_000, loop)
    server.kill()
    return result


def gevent_request():
    import socket

    import gevent.monkey
    gevent.monkey.patch_socket()
    from gevent.pywsgi import WSGIServer

    def answer(_, start_response):
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    server = WSGIServer(("127.0.0.1", 0), answer, log=None)
    server.start()

    def loop(count):
        with socket.create_connection(("127.0.0.1", server.server_port)) as client:
            for _ in range(count):
                client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
                while not client.recv(65536).endswith(b"ok"):
                    # The head comes alone. Without this the body waits 40 ms for a delayed ACK, and the
                    # time is mostly that of waking from idle.
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    result = timed(1_000, loop)
    server.stop()
    return result


WORKLOADS = {
    "switch": round_trip(),
    "switch, 200 Python frames deep": round_trip(deep_python, 200),
    "switch, 200 C frames deep": round_trip(deep_c, 200),
    "switch, both 200 C frames deep": round_trip(deep_c, 200, both=True),
    "create, run, finish": create,
    "create, run, finish, 200 C frames deep": lambda: deep_c(200, create),
    "create, start, kill": lambda: killed(lambda it: it.throw()),
    "create, start, drop": lambda: killed(lambda it: None),
    "throw, caught, back": throw,
    "switch among 10,000": many,
    "first start of 10,000": cold,
    "bytes of 10,000 suspended, each": bytes_each(0),
    "bytes, 10 C frames deep": bytes_each(10),
    "bytes, 50 C frames deep": bytes_each(50),
    "gevent: spawn, join": gevent_spawn,
    "gevent: sleep(0)": gevent_sleep,
    "gevent: Queue, there and back": gevent_queue,
    "gevent: request to pywsgi": gevent_request,
}


def main():
    sys.setrecursionlimit(5000)
    result = {}
    for name in sys.argv[1:] or WORKLOADS:
        # Each in a process of its own.
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, str(WORKLOADS[name]()).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            text = file.read()
        os.wait()
        if text:
            result[name] = float(text)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
