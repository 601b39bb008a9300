"""`python -m eqxcnn.serve`: a trained classifier as an HTTP service."""

import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..cli import run_command
from ..errors import InputError, printable
from ..plugins import IMPORT_HELP, take_imports
from ..ranges import Range, check_settings
from ..saved_classifier import load
from .limits import Limits

if TYPE_CHECKING:
    import uvicorn

    from .app import Service

#: Bytes of an incomplete request line with its headers, at which a connection is refused.
_MAX_HEADERS = 32_768
#: Modules of the extra `serve`.
_EXTRA = ("starlette", "uvicorn", "python_multipart")


@dataclass(frozen=True)
class Options:
    """Serves a trained classifier over HTTP, with a page to try it."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, the model folder inside it, or the name of a model with trained weights, such as lenet."""
    host: str = "127.0.0.1"
    """Address to listen on; by default only this machine can connect, with 0.0.0.0 every machine."""
    port: Annotated[int, Range(0, 65_535)] = 8000
    """Port to listen on; 0 chooses a free one."""
    max_batch: Annotated[int, Range(1, 4096)] = Limits.max_batch
    """Images that the network classifies at once; one program is compiled for each power of two up to it."""
    max_pixels: Annotated[int, Range(1, 10**9)] = Limits.max_pixels
    """Pixels of an image, checked before it is decoded."""
    max_bytes: Annotated[int, Range(1, 10**9)] = Limits.max_bytes
    """Bytes in the body of a request."""
    queue: Annotated[int, Range(1, 10**6)] = Limits.queue
    """Requests in work, and images that wait for the network; further ones are answered with status 503."""
    timeout: Annotated[float, Range(0, 3600, excludes_low=True)] = Limits.timeout
    """Seconds until a request is answered with an error, and seconds to finish requests after SIGTERM."""


def main(arguments: Sequence[str]) -> None:
    """Parses the flags, loads the classifier, and serves it until SIGINT or SIGTERM.

    **Raises:** `InputError` for a classifier that cannot be loaded, and for an address that cannot be used.
    """
    help_, arguments = f"{Options.__doc__} {IMPORT_HELP}", take_imports(arguments)
    options = tyro.cli(Options, prog="python -m eqxcnn.serve", description=help_, args=arguments)
    check_settings(options)
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        raise InputError(f"the service needs `{missing[0]}`, which is not installed: install `eqxcnn[serve]`")
    with listen(options.host, options.port) as listener:
        _serve(options, listener)


def listen(host: str, port: int) -> socket.socket:
    """Opens the address before the network is loaded, which takes longer."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        # Python adds the address in parentheses.
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise InputError(
            f"`--host` (={host}) and `--port` (={port}) cannot be used: {reason}; choose another port, or 0 for a "
            "free one"
        ) from error


def make_server(service: "Service", limits: Limits) -> "uvicorn.Server":
    """Returns the HTTP server of a service; `run(sockets=[...])` starts it."""
    import uvicorn

    # h11 is the parser that the tests run with; `auto` would take another one where it is installed. Warnings are left
    # out, because there is one for each request that is not HTTP. With a configuration for logging, uvicorn would close
    # the handlers of other packages, and the streams that these write to.
    config = uvicorn.Config(
        service.app, http="h11", ws="none", lifespan="on", log_level="error", log_config=None,
        access_log=False, server_header=False,
        h11_max_incomplete_event_size=_MAX_HEADERS, timeout_graceful_shutdown=max(1, round(limits.timeout)),
    )  # fmt: skip
    return uvicorn.Server(config)


def _serve(options: Options, listener: socket.socket) -> None:
    from .app import Service
    from .predictor import Predictor

    # It warns about each form that it refuses, and the answer says so too.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    failures: list[BaseException] = []

    def stop(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    limits = Limits(options.max_batch, options.max_pixels, options.max_bytes, options.queue, options.timeout)
    service = Service(Predictor(load(options.run), options.max_batch), limits, stop)
    server = make_server(service, limits)
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"{printable(str(options.run), 4096)} is compiled, then served at {address}", flush=True)
    try:
        # After the last answer, uvicorn raises the signal that stopped it once more.
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        sys.exit(130)
    if failures:
        raise failures[0]


if __name__ == "__main__":
    run_command(main)
