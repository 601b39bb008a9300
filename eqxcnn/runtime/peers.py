"""`Peers`: exchanges values and requests between the processes of a run, such as a request to stop after the same
step."""

import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import jax

from ..cli import explain_error
from .agreement import Agreement
from .channel import Channel, Message
from .interrupts import Interrupted

__all__ = ["Peers"]

_INTERRUPTED = "interrupted before there was anything to save"
#: Seconds that process 0 waits before it prints an error of another process. In this time, process 0 may print the same
#: error itself.
_OWN_ERROR = 3.0
#: Seconds that a failed process waits, so that process 0 receives its error.
_HEARD = 10.0
#: Seconds that a process waits for the others after it has finished.
_LEAVING = 10.0
#: Seconds within which the other processes notice that a process has disappeared.
_NOTICED = 5.0


class Peers:
    """Connects this process with the other processes of a run.

    All processes call `gather` and `poll` equally often and in the same order. If one process fails or disappears, the
    others print one sentence and end, since they would otherwise wait forever for its values.

    **Arguments:**

    - `index`, `count`: the number of this process, counted from 0, and the number of processes.
    - `sockets`: connections by process index. Process 0 has a connection to each other process; each other process has
      only a connection to process 0.
    - `log`: the file that contains the output of this process; `None` for process 0.
    - `screen`: the file descriptor on which process 1 prints a message if process 0 has disappeared.
    """

    def __init__(
        self,
        index: int = 0,
        count: int = 1,
        sockets: Mapping[int, socket.socket] | None = None,
        log: Path | None = None,
        screen: int = 2,
    ) -> None:
        self.index, self.count, self.log = index, count, log
        #: Ends the error message about a lost process with advice. Once there is a run folder, the advice says how to
        #: resume.
        self.advice = "start it again"
        self._has_entered = False
        self._screen, self._hosts = screen, [""] * count
        self._changed = threading.Condition()
        self._gathers, self._values, self._gathered = 0, dict[int, dict[int, Any]](), dict[int, list[Any]]()
        self._agreement, self._left = Agreement(count, self._send_up, self._send_down), set[int]()
        self._channel = Channel(sockets or {}, self._receive, self._lose)
        self._channel.start()
        if count > 1:
            self._hosts = self.gather(socket.gethostname())

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which writes the run's files and prints the output."""
        return self.index == 0

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in the order of the processes; waits for all processes.

        **Arguments:**

        - `value`: anything that JSON can hold.
        """
        return [value] if self.count == 1 else self._gather(value)

    def _gather(self, value: Any, timeout: float | None = None) -> list[Any]:
        """See `gather`; returns an empty list if not all values have arrived within `timeout` seconds."""
        with self._changed:
            number = self._gathers
            self._gathers += 1
        # Process 0 converts its value to JSON and back too, so that all processes get the same types.
        self._send_up({"kind": "value", "number": number, "value": json.loads(json.dumps(value))})
        with self._changed:
            self._changed.wait_for(lambda: number in self._gathered, timeout)
            return self._gathered.pop(number, [])

    def request(self, reason: int) -> None:
        """Makes `poll` return `reason` in every process, at the same call."""
        self._send_up({"kind": "request", "reason": reason})

    def poll(self) -> list[int]:
        """Returns the reasons for the requests that are due at this call. They are the same in all processes; see
        `Agreement`."""
        return self._agreement.poll()

    def fail(self, sentence: str) -> NoReturn:
        """Ends all processes with exit code 1 because of an error in this process. Process 0 must have printed its
        error before this call."""
        if self.is_first:
            self._channel.send({"kind": "end", "sentence": sentence})
        else:
            self._channel.send({"kind": "fail", "sentence": sentence})
            time.sleep(_HEARD)
        _exit()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Ends all processes if the `with` block raises an error in this process; does nothing for a single process."""
        if self.count == 1:
            yield
            return
        try:
            yield
        except (SystemExit, Interrupted):
            raise
        except BaseException as error:
            sentence = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else explain_error(error)
            if sentence is None:
                # If a process disappears, steps fail in all other processes. During this wait, `_lose` ends this
                # process with a clearer message.
                time.sleep(_NOTICED)
                traceback.print_exc()
                sentence = f"{type(error).__name__}: see its log"
            elif self.is_first:
                print(f"error: {sentence}", file=sys.stderr)
            self.fail(sentence)

    def leave(self) -> None:
        """Tells the others that this process has finished; called when it exits."""
        if getattr(sys, "last_value", None) is not None:
            self.fail(f"{type(sys.last_value).__name__}: see its log")
        # JAX aborts a process that still computes when another process has ended.
        for array in jax.live_arrays():
            # The computation of an array may have failed, or a later step may have reused its memory.
            with suppress(RuntimeError, ValueError):
                array.block_until_ready()
        self._gather(None, timeout=_LEAVING)
        message = {"kind": "bye", "process": self.index}
        with self._changed:
            self._left.update(range(self.count))
        self._channel.send(message)

    def enter_run(self, folder: Path) -> None:
        """Makes later error messages say how to resume the run, and moves the log of this process into the run's
        folder.

        The log is moved only once: it stays in the folder of the first run or seed sweep.
        """
        self.advice = f"continue with --resume {folder}, in as many processes as you like"
        if self.log is None or self._has_entered:
            return
        self._has_entered = True
        number = 1
        while (target := folder / f"process-{self.index}{f'-{number}' if number > 1 else ''}.log").exists():
            number += 1
        folder.mkdir(parents=True, exist_ok=True)
        # An open file can be renamed; later output still goes to it.
        self.log = self.log.rename(target)

    def _send_up(self, message: Message) -> None:
        """Sends a message to process 0."""
        if self.is_first:
            self._receive(0, message)
        else:
            self._channel.send(message)

    def _send_down(self, message: Message) -> None:
        """Sends a message from process 0 to all processes."""
        self._channel.send(message)
        self._receive(0, message)

    def _receive(self, peer: int, message: Message) -> None:
        if message["kind"] in Agreement.KINDS:
            self._agreement.receive(peer, message)
        else:
            getattr(self, f"_on_{message['kind']}")(peer, message)

    def _on_value(self, peer: int, message: Message) -> None:
        """Process 0: stores a value, and sends all values once they are complete."""
        number = message["number"]
        with self._changed:
            values = self._values.setdefault(number, {})
            values[peer] = message["value"]
            if len(values) < self.count:
                return
            del self._values[number]
        self._send_down({"kind": "values", "number": number, "values": [values[each] for each in range(self.count)]})

    def _on_values(self, peer: int, message: Message) -> None:
        with self._changed:
            self._gathered[message["number"]] = message["values"]
            self._changed.notify_all()

    def _on_fail(self, peer: int, message: Message) -> None:
        """Process 0: ends all processes because one of them has failed."""
        # Most errors occur in all processes; process 0 then prints its own error and ends during this wait.
        time.sleep(_OWN_ERROR)
        self._end(f"process {peer}: {message['sentence']}")

    def _on_bye(self, peer: int, message: Message) -> None:
        with self._changed:
            self._left.add(message["process"])

    def _on_end(self, peer: int, message: Message) -> None:
        print(f"error: {message['sentence']}", file=sys.stderr)
        _exit()

    def _lose(self, peer: int) -> None:
        with self._changed:
            if peer in self._left:
                return
        where = f" on {self._hosts[peer]}" if self._hosts[peer] else ""
        self._end(
            f"process {peer} of the {self.count} of this run{where} has ended before its work was done, so all others "
            f"end too: {self.advice}"
        )

    def _end(self, sentence: str) -> NoReturn:
        if self.is_first:
            self._channel.send({"kind": "end", "sentence": sentence})
        print(f"error: {sentence}", file=sys.stderr)
        if self.index == 1:
            # Process 0 has disappeared, so process 1 prints the message.
            os.write(self._screen, f"error: {sentence}\n".encode())
        _exit()


def _exit() -> NoReturn:
    """Ends this process at once: its main thread may be waiting for a process that has left."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
