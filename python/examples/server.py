"""A gevent server and ten clients in one process, on whichever greenlet is installed."""

from importlib.metadata import version
from urllib.request import urlopen

import gevent.monkey

gevent.monkey.patch_all()

import gevent
from gevent.pywsgi import WSGIServer


def answer(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    gevent.sleep(0.01)
    return [b"hello from " + environ["PATH_INFO"].encode()]


server = WSGIServer(("127.0.0.1", 0), answer, log=None)
server.start()
clients = [
    gevent.spawn(lambda n=n: urlopen(f"http://127.0.0.1:{server.server_port}/{n}").read())
    for n in range(10)
]
gevent.joinall(clients, raise_error=True)
print("greenlet", version("greenlet"), "gevent", version("gevent"))
for client in clients:
    print(client.value.decode())
