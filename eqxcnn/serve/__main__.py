"""`python -m eqxcnn.serve`: a trained classifier as an HTTP service."""

import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import jax
import tyro

from ..cli import run_command
from ..errors import InputError, printable
from ..plugins import IMPORT_HELP, take_imports
from ..ranges import Range, check_settings
from ..runtime.memory import keep_freed_memory
from ..saved_classifier import load
from .limits import Limits

if TYPE_CHECKING:
    import uvicorn

    from .app import Service

#: Limit on the total size of request line and headers, in bytes; a connection that exceeds it is closed.
_MAX_HEADERS = 32_768
#: Modules that the extra `serve` installs.
_EXTRA = ("starlette", "uvicorn", "python_multipart")


@dataclass(frozen=True, kw_only=True)
class Options(Limits):
    """Serves a trained classifier over HTTP, with a page to try it."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, the model folder inside it, the name of a model with trained weights, such as lenet, or
    hub:user/name for a model on the Hub."""
    host: str = "127.0.0.1"
    """Address to listen on. With the default, only this machine can connect; with 0.0.0.0, any machine."""
    port: Annotated[int, Range(0, 65_535)] = 8000
    """Port to listen on; 0 chooses a free one."""


def main(arguments: Sequence[str]) -> None:
    """Parses the flags, loads the classifier, and serves it until SIGINT or SIGTERM.

    **Raises:** `InputError` if the classifier cannot be loaded, or if the address cannot be used.
    """
    help_, arguments = f"{Options.__doc__} {IMPORT_HELP}", take_imports(arguments)
    options = tyro.cli(Options, prog="python -m eqxcnn.serve", description=help_, args=arguments)
    check_settings(options)
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        raise InputError(f"the service needs `{missing[0]}`, which is not installed: install `eqxcnn[serve]`")
    with listen(options.host, options.port) as listener:
        _serve(options, listener)


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on the address.

    The socket is opened before the network is loaded, so that a bad address is reported at once.

    **Raises:** `InputError` if the address cannot be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        # Python appends the address to the reason; `partition` removes the address.
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise InputError(
            f"`--host` (={host}) and `--port` (={port}) cannot be used: {reason}; choose another port, or 0 for a "
            "free one"
        ) from error


def make_server(service: "Service", limits: Limits) -> "uvicorn.Server":
    """Returns the HTTP server of a service; `run(sockets=[...])` starts it."""
    import uvicorn

    # The tests run with h11; `auto` would use another parser if one is installed. Warnings are not logged, because each
    # request that is not HTTP causes one. With a logging configuration, uvicorn would close other packages' handlers
    # and the streams that they write to.
    config = uvicorn.Config(
        service.app, http="h11", ws="none", lifespan="on", log_level="error", log_config=None,
        access_log=False, server_header=False,
        h11_max_incomplete_event_size=_MAX_HEADERS, timeout_graceful_shutdown=max(1, round(limits.timeout)),
    )  # fmt: skip
    return uvicorn.Server(config)


def _serve(options: Options, listener: socket.socket) -> None:
    from .app import Service
    from .predictor import Predictor

    # The form parser would log a warning for each invalid form. The answer to the request already reports this error.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    keep_freed_memory()
    # By default, JAX passes each call to another thread, which takes as long as a small network.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    failures: list[BaseException] = []

    def stop(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    service = Service(Predictor(load(options.run), options.max_batch), options, stop)
    server = make_server(service, options)
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"compiling {printable(str(options.run), 4096)}, then serving it at {address}", flush=True)
    try:
        # After the last answer, uvicorn repeats the signal that stopped it; Ctrl-C then raises `KeyboardInterrupt`.
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        sys.exit(130)
    if failures:
        raise failures[0]


if __name__ == "__main__":
    run_command(main)
