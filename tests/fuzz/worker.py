"""The process in which cases run: reads `ENTRANCE NUMBER` from standard input and answers with a line of JSON.

`python -m tests.fuzz.worker MODULE SEED FOLDER`; `tests.fuzz.watch` starts it.
"""

import faulthandler
import importlib
import json
import os
import random
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from .case import Entrance, RawOutput, Silent

_connections: list[str] = []


def run_case(entrance: Entrance, rng: random.Random, folder: Path, base: Any) -> dict[str, str]:
    """Runs one case and returns its verdict."""
    _connections.clear()
    answer = _attack(entrance, rng, folder, base)
    if _connections:
        answer = {"verdict": "network", "kind": "network", "detail": f"a connection to {_connections[0]}"}
    return answer


def _attack(entrance: Entrance, rng: random.Random, folder: Path, base: Any) -> dict[str, str]:
    os.chdir(folder)
    try:
        entrance.attack(rng, folder, base)
        return {"verdict": "accepted"}
    except (Silent, RawOutput) as error:
        verdict = "silent" if isinstance(error, Silent) else "raw output"
        detail = ascii(str(error))[:2_000]
        # Only the text before the colon, so that faults that differ only in their values are of one kind.
        return {"verdict": verdict, "kind": f"{verdict}: {str(error).partition(':')[0]}", "detail": detail}
    except BaseException as error:
        if type(error).__name__ == "InputError":
            return {"verdict": "refused"}
        text = "".join(traceback.format_exception(error))
        kind = f"{type(error).__name__} in {_innermost(error)}"
        return {"verdict": "traceback", "kind": kind, "detail": ascii(str(error))[:500] + "\n" + text[-4_000:]}


def _innermost(error: BaseException) -> str:
    """Returns the innermost function in a traceback, preferably the innermost function of the package."""
    frames = [f"{frame.filename}: {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    own = [frame for frame in frames if "/eqxcnn/" in frame]
    return (own or frames)[-1].rpartition("/eqxcnn/")[2]


def _close_the_network() -> None:
    """Records and refuses every connection to another machine, and every look-up of a host name."""

    def connect(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:
            return real(self, address)
        _connections.append(ascii(address)[:200])
        raise ConnectionRefusedError("the fuzzer keeps the network closed")

    def look_up(host: Any, *_: Any, **__: Any) -> Any:
        _connections.append(ascii(host)[:200])
        raise socket.gaierror("the fuzzer keeps the network closed")

    real = socket.socket.connect
    socket.socket.connect = connect  # type: ignore[method-assign]
    socket.getaddrinfo = look_up


def main() -> None:
    """Runs each case named on standard input and prints its result, until the input ends."""
    module, seed, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    # The output of the cases goes to standard error, which is a file.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    entrances: dict[str, Entrance] = importlib.import_module(module).ENTRANCES
    _close_the_network()
    bases: dict[Any, Any] = {}
    for line in sys.stdin:
        name, number = line.split()
        prepare = entrances[name].prepare
        if prepare not in bases:
            folder = work / f"base-{name}-{os.getpid()}"
            folder.mkdir()
            bases[prepare] = prepare(folder)
        folder = work / f"{name}-{number}"
        folder.mkdir()
        print(json.dumps({"verdict": "started"}), file=answers, flush=True)
        answer = run_case(entrances[name], random.Random(f"{seed}/{name}/{number}"), folder, bases[prepare])
        os.chdir(work)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
