"""A server in a thread, and a classifier."""

import asyncio
import threading
from contextlib import contextmanager

import httpx
import pytest

import eqxcnn
from eqxcnn.serve.__main__ import listen, make_server
from eqxcnn.serve.app import Service
from eqxcnn.serve.limits import Limits
from eqxcnn.serve.predictor import Predictor
from tests.serve.waiting import wait_until


@contextmanager
def running(classifier, *, is_compiled=True, **limits):
    """Yields a service and a client of its server on a free port."""
    failures, chosen = [], Limits(**{"max_batch": 4, **limits})
    service = Service(Predictor(classifier, chosen.max_batch), chosen, failures.append)
    if not is_compiled:
        service._compile_and_run = asyncio.Event().wait
    server, listener = make_server(service, chosen), listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        if is_compiled:
            wait_until(lambda: client.get("/health").status_code == 200, 120)
        yield service, client
    server.should_exit = True
    thread.join(30)
    listener.close()
    assert not thread.is_alive()
    assert failures == []


@pytest.fixture(scope="package")
def lenet():
    return eqxcnn.load("lenet")
