"""The command `python -m eqxcnn.serve`: flags, addresses and signals."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from eqxcnn.errors import InputError
from eqxcnn.serve.__main__ import main
from tests.serve.test_service import ONE, best
from tests.serve.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch", "--port", "0"], "there is no folder `nosuch`"),
        (["lenet", "--port", "70000"], r"`port` \(=70000\) must be from 0 to 65535"),
        (["lenet", "--max-batch", "0"], r"`max_batch` \(=0\) must be from 1 to 4096"),
        (["lenet", "--timeout", "0"], r"`timeout` \(=0.0\) must be above 0 and at most 3600"),
        (["lenet", "--timeout", "nan"], r"`timeout` \(=nan\)"),
        (["lenet", "--host", "no host"], r"`--host` \(=no host\) and `--port` \(=8000\) cannot be used"),
        (["lenet", "--host", "x" * 300], r"`--host` \(=x"),
    ],
)
def test_flags_that_cannot_be_used(arguments, message):
    with pytest.raises(InputError, match=message):
        main(arguments)


def test_a_port_that_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=rf"`--port` \(={port}\) cannot be used: Address already in use; choose"):
            main(["lenet", "--port", str(port)])


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr("eqxcnn.serve.__main__.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs `starlette`, which is not installed: install `eqxcnn\[serve\]`"):
        main(["lenet"])


def test_a_network_that_cannot_be_compiled_ends_the_command(monkeypatch, capsys):
    def fail(predictor):
        raise MemoryError("the device is full")

    monkeypatch.setattr("eqxcnn.serve.predictor.Predictor.compile", fail)
    with pytest.raises(MemoryError, match="the device is full"):
        main(["lenet", "--port", "0"])
    assert "compiling lenet, then serving it at http://127.0.0.1:" in capsys.readouterr().out


def is_open(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_ends_the_command_after_the_requests_in_work(number, code):
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "eqxcnn.serve", "lenet", "--port", "0", "--max-batch", "1"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"compiling lenet, then serving it at (http://127\.0\.0\.1:(\d+))\n", line)
        assert found, line + process.stderr.read()
        with httpx.Client(base_url=found[1], timeout=60, trust_env=False) as client:
            wait_until(lambda: client.get("/health").status_code == 200, 120)
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(ONE)}\r\n\r\n".encode()
            with socket.create_connection(("127.0.0.1", int(found[2])), timeout=60) as half_sent:
                half_sent.sendall(head + ONE[:20])
                assert best(client.post("/predict", content=ONE)) == "1"
                process.send_signal(number)
                wait_until(lambda: not is_open(int(found[2])))
                half_sent.sendall(ONE[20:])
                answer = half_sent.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert process.wait(60) == code
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()
