"""`Agreement`: decides at which call of `poll` all processes of a run act on a request from one of them."""

import threading
from collections.abc import Callable

from .channel import Message

__all__ = ["Agreement"]


class Agreement:
    """Finds the call of `poll` at which all processes act on a request.

    A process starts steps without waiting for the results of earlier steps, so it may be some calls ahead of another
    process. Process 0 asks each process for its number of calls; the request is due at the largest of these numbers.
    After this question, a process starts no further call until it receives the largest number. A request carries a
    reason, the integer given to `Peers.request`. The threads that receive messages send the answers, because a main
    thread may be waiting for the result of a step that another process has not started yet.

    **Arguments:**

    - `count`: number of processes.
    - `send_up`: sends a message to process 0.
    - `send_down`: sends a message from process 0 to all processes.
    """

    #: The kinds of messages that `receive` accepts. A process sends two kinds to process 0: `request`, and `at`, which
    #: contains its number of calls. Process 0 sends two kinds to all processes: `freeze`, which asks for this number,
    #: and `go`, which contains the call at which a request is due.
    KINDS = ("request", "at", "freeze", "go")

    def __init__(self, count: int, send_up: Callable[[Message], None], send_down: Callable[[Message], None]) -> None:
        self._count, self._send_up, self._send_down = count, send_up, send_down
        self._changed = threading.Condition()
        self._polls, self._is_frozen, self._agreed = 0, False, list[tuple[int, int]]()
        self._requests, self._replies = list[int](), dict[int, int]()

    def poll(self) -> list[int]:
        """Returns the reasons of the requests that are due at this call."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_frozen)
            due = [reason for call, reason in self._agreed if call <= self._polls]
            self._agreed = [(call, reason) for call, reason in self._agreed if call > self._polls]
            self._polls += 1
        return due

    def receive(self, peer: int, message: Message) -> None:
        """Handles a message from the process `peer`."""
        getattr(self, f"_on_{message['kind']}")(peer, message)

    def _on_request(self, peer: int, message: Message) -> None:
        """Process 0: asks each process for its number of calls, unless it is still waiting for the answers to an
        earlier question."""
        with self._changed:
            self._requests.append(message["reason"])
            if len(self._requests) > 1:
                return
        self._send_down({"kind": "freeze"})

    def _on_freeze(self, peer: int, message: Message) -> None:
        with self._changed:
            self._is_frozen = True
            call = self._polls
        self._send_up({"kind": "at", "call": call})

    def _on_at(self, peer: int, message: Message) -> None:
        """Process 0: once all processes have answered, sends them the call at which the oldest request is due."""
        with self._changed:
            self._replies[peer] = message["call"]
            if len(self._replies) < self._count:
                return
            call, self._replies = max(self._replies.values()), {}
            reason = self._requests[0]
        self._send_down({"kind": "go", "call": call, "reason": reason})
        with self._changed:
            self._requests.pop(0)
            is_more = bool(self._requests)
        if is_more:
            self._send_down({"kind": "freeze"})

    def _on_go(self, peer: int, message: Message) -> None:
        with self._changed:
            self._is_frozen = False
            self._agreed.append((message["call"], message["reason"]))
            self._changed.notify_all()
