"""An HTTP load generator, and a process that serves a classifier."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import NamedTuple
from urllib.request import urlopen

__all__ = ["Load", "Server", "make_request", "run_clients", "serve"]

#: Seconds until the service must be ready; it compiles the network first.
_MAX_START = 900


class Server(NamedTuple):
    """A running service: its port on 127.0.0.1 and its process id."""

    port: int
    process: int

    @property
    def megabytes(self) -> float:
        """The resident memory of the process (Linux only)."""
        pages = int(Path(f"/proc/{self.process}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def serve(run: Path | str, *flags: str) -> Iterator[Server]:
    """Starts `python -m eqxcnn.serve`, waits until it is ready, and stops it at the end."""
    command = [sys.executable, "-m", "eqxcnn.serve", str(run), "--port", "0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"`{' '.join(command)}` ended with exit code {process.wait()}")
        port, deadline = int(line.rsplit(":", 1)[1]), monotonic() + _MAX_START
        while not _is_ready(port):
            if monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"`{' '.join(command)}` is not ready")
            sleep(0.1)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(60)


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            return answer.status == 200
    except OSError:  # includes status 503
        return False


def make_request(body: bytes, content_type: str = "image/png", path: str = "/predict") -> bytes:
    """Returns the bytes of a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode("latin-1") + body


@dataclass
class Load:
    """Measurements of all clients: answers by status, seconds of each request, and total seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    total: float = 0.0


def run_clients(
    port: int, clients: int, next_request: Callable[[], bytes | None], *, keeps_seconds: bool = True
) -> Load:
    """Sends all requests from several clients; each client has one connection and sends one request at a time.

    **Arguments:**

    - `next_request`: returns the next request, or `None` at the end.
    - `keeps_seconds`: whether to keep the seconds of each request.
    """
    load = Load()

    async def run() -> None:
        await asyncio.gather(*(_run_client(port, next_request, load, keeps_seconds) for _ in range(clients)))

    began = perf_counter()
    asyncio.run(run())
    load.total = perf_counter() - began
    return load


async def _run_client(port: int, next_request: Callable[[], bytes | None], load: Load, keeps_seconds: bool) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (request := next_request()) is not None:
        began = perf_counter()
        try:
            head = await _exchange(reader, writer, request)
        except (asyncio.IncompleteReadError, ConnectionError):
            # The server closes a connection that stays idle for seconds while `next_request` is working.
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = await _exchange(reader, writer, request)
        load.statuses[int(head.split()[1])] += 1
        if keeps_seconds:
            load.seconds.append(perf_counter() - began)
        if "connection: close" in head:
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """Sends a request, reads its answer, and returns the head of the answer in lower case."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
    return head
