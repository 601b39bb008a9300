"""Messages between the processes of a run: one TCP connection from each of them to process 0."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from ..errors import InputError, printable

__all__ = ["Channel", "Message", "accept_peers", "connect"]

Message: TypeAlias = dict[str, Any]

#: Seconds between two attempts to reach process 0.
_RETRY = 0.5
#: A program that connects but sends nothing can delay the processes by at most this number of seconds.
_GREETING_SECONDS = 5.0
#: Largest size of a message in bytes.
_MAX_MESSAGE = 16 << 20
#: A machine that stops answering counts as lost after `_IDLE + _PROBES * _INTERVAL` seconds.
_IDLE, _INTERVAL, _PROBES = 10, 5, 4


class Channel:
    """Sends and receives messages, and reports which process has left.

    **Arguments:**

    - `sockets`: the connection to each peer, by its index.
    - `on_message`: called with a peer's index and each of its messages.
    - `on_lost`: called with a peer's index when its connection ends. A separate thread for each peer runs `on_message`
      and `on_lost`.
    """

    def __init__(
        self,
        sockets: Mapping[int, socket.socket],
        on_message: Callable[[int, Message], object],
        on_lost: Callable[[int], object],
    ) -> None:
        self._sockets = dict(sockets)
        self._locks = {peer: threading.Lock() for peer in sockets}
        self._on_message, self._on_lost = on_message, on_lost

    def start(self) -> None:
        """Starts to receive messages."""
        for peer in self._sockets:
            threading.Thread(target=self._receive, args=(peer,), name=f"process {peer}", daemon=True).start()

    def send(self, message: Message) -> None:
        """Sends a message to all peers. Ignores a connection that has ended, since `on_lost` is called for it."""
        data = (json.dumps(message) + "\n").encode()
        for peer, connection in self._sockets.items():
            with self._locks[peer], suppress(OSError):
                connection.sendall(data)

    def _receive(self, peer: int) -> None:
        # If this thread fails, the other processes would wait forever. So an error is handled like a lost connection.
        try:
            # `readline` raises `OSError` if the machine no longer answers.
            with suppress(OSError), self._sockets[peer].makefile("rb") as lines:
                while line := lines.readline(_MAX_MESSAGE):
                    self._on_message(peer, json.loads(line))
        finally:
            self._on_lost(peer)


def accept_peers(port: int, count: int, greeting: Message, timeout: float) -> dict[int, socket.socket]:
    """Waits, as process 0, until the other processes have connected; returns the connections by their index.

    **Arguments:**

    - `port`: the port of process 0, on all its addresses.
    - `count`: number of processes, this one included.
    - `greeting`: what the processes must have in common, such as the version of the package.

    **Raises:** `InputError` if not all processes have connected after `timeout` seconds, or if a process has a
        different greeting.
    """
    try:
        server = socket.create_server(("", port), backlog=count)
    except OSError as error:
        raise InputError(
            f"process 0 cannot use port {port} ({error.strerror}): give another `--coordinator`"
        ) from error
    found: dict[int, socket.socket] = {}
    end = time.monotonic() + timeout
    with server:
        while missing := sorted(set(range(1, count)) - set(found)):
            try:
                server.settimeout(max(end - time.monotonic(), 0.001))
                connection, _ = server.accept()
            except TimeoutError as error:
                raise InputError(
                    f"process {', '.join(map(str, missing))} of {count} did not connect to process 0 within "
                    f"{timeout:.0f} s: check that all were started, and that they can reach port {port} of this machine"
                ) from error
            hello = _read_greeting(connection)
            index = hello.pop("process", None)
            if index not in missing or hello.keys() != greeting.keys():
                connection.close()
                continue
            refusal = _compare(index, hello, greeting)
            connection.sendall(json.dumps({"refusal": refusal}).encode() + b"\n")
            if refusal is not None:
                raise InputError(refusal)
            _prepare(connection)
            found[index] = connection
    return found


def connect(host: str, port: int, index: int, greeting: Message, timeout: float) -> socket.socket:
    """Connects process `index` to process 0, which may start later.

    **Raises:** `InputError` if process 0 cannot be reached within `timeout` seconds, or refuses the greeting.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            connection = socket.create_connection((host, port), max(end - time.monotonic(), 0.001))
            connection.sendall(json.dumps({"process": index, **greeting}).encode() + b"\n")
            connection.settimeout(max(end - time.monotonic(), 0.001))
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline(_MAX_MESSAGE))
            break
        except (OSError, ValueError) as error:  # process 0 has not started yet, or another program answers
            if time.monotonic() + _RETRY > end:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                raise InputError(
                    f"process {index} could not connect to process 0 at {host}:{port} within {timeout:.0f} s "
                    f"({reason}): check the address, and that process 0 was started"
                ) from error
            time.sleep(_RETRY)
    if answer["refusal"] is not None:
        raise InputError(answer["refusal"])
    _prepare(connection)
    return connection


def _read_greeting(connection: socket.socket) -> Message:
    """Returns the first message of a connection, or an empty message if none arrives or it is not a JSON object."""
    connection.settimeout(_GREETING_SECONDS)
    try:
        with connection.makefile("rb") as lines:
            message = json.loads(lines.readline(1000))
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) else {}


def _compare(index: int, hello: Message, greeting: Message) -> str | None:
    """Returns a sentence about the first difference between process `index` and process 0, or `None`."""
    for name, value in greeting.items():
        if hello[name] != value:
            return (
                f"process {index} has {name} {printable(str(hello[name]))}, and process 0 has {printable(str(value))}: "
                "start all processes in the same way"
            )
    return None


def _prepare(connection: socket.socket) -> None:
    """Makes the operating system detect a lost machine, and send short messages without delay."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Not every system has these options; a system without them uses its default times.
    for name, value in (("TCP_KEEPIDLE", _IDLE), ("TCP_KEEPINTVL", _INTERVAL), ("TCP_KEEPCNT", _PROBES)):
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
