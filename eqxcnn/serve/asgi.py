"""Wrappers around the application that every request passes through."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from time import perf_counter
from typing import Any, TypeAlias

from .counters import Counters

__all__ = ["App", "count_requests", "drain_bodies"]

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
App: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]


def count_requests(app: App, counters: Counters, paths: Collection[str]) -> App:
    """Returns an application that counts answers by path and status, and records the response times of `/predict`."""

    async def counted(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began, path = perf_counter(), scope["path"] if scope["path"] in paths else "other"

        async def count(message: _Message) -> None:
            if message["type"] == "http.response.start":
                counters.requests[path, message["status"]] += 1
                counters.errors += message["status"] == 500
                if path == "/predict":
                    counters.seconds.add(perf_counter() - began)
            await send(message)

        await app(scope, receive, count)

    return counted


def drain_bodies(app: App, seconds: float) -> App:
    """Returns an application that reads and discards the rest of a request's body before it answers.

    If a server answers and closes the connection while the client is still sending, the connection is reset, and the
    client may not see the answer. If a body is still incomplete after `seconds`, the answer is sent anyway, and the
    connection is closed.
    """

    async def drained(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        is_read = not names & {b"content-length", b"transfer-encoding"}

        async def note_end() -> _Message:
            nonlocal is_read
            message = await receive()
            # After a disconnect, nothing is left to read.
            is_read = is_read or message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def drain(message: _Message) -> None:
            if message["type"] == "http.response.start" and not is_read:
                try:
                    async with asyncio.timeout(seconds):
                        while not is_read:
                            await note_end()
                except TimeoutError:
                    message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await app(scope, note_end, drain)

    return drained
