"""Joins the processes of a run that a launcher has started, on one machine or many."""

import atexit
import os
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

from ..errors import InputError
from .channel import accept_peers, connect
from .peers import Peers

__all__ = ["current_peers", "join_processes"]

#: Environment variables set by each launcher: the number of processes, the index of this process, and its index on its
#: machine. The rows belong to launchers for JAX such as Kubeflow Trainer, to `srun`, to Open MPI, and to Intel MPI and
#: MPICH.
_VARIABLES = (
    ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", ""),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
)

#: Packages whose versions must be the same in all processes.
_PACKAGES = ("eqxcnn", "jax", "jaxlib")

_joined: Peers | None = None


@dataclass(frozen=True)
class _Place:
    """The address of process 0, the number of processes, and the index of this process.

    `local_devices` are the devices that this process may use, or `None` for all.
    """

    coordinator: str
    count: int
    index: int
    local_devices: list[int] | None = None


def current_peers() -> Peers:
    """Returns the processes that this process has joined; this process alone if `join_processes` was not called."""
    if _joined is None and jax.process_count() > 1:
        raise InputError(
            "the processes of this run were joined by `jax.distributed.initialize`: call "
            "`eqxcnn.training.join_processes()` instead, which calls it"
        )
    return Peers() if _joined is None else _joined


def join_processes(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: float = 300.0,
    logs: Path | str = "runs",
) -> Peers:
    """Joins the processes that a launcher (`srun`, `mpirun`, Kubernetes, or a TPU pod) has started.

    Call this before anything else that uses JAX. The devices of all processes then share each batch of a run. Only
    process 0 prints: the output of the others goes to log files. Without a launcher and without arguments, the run
    stays in this process.

    **Arguments:**

    - `coordinator`: address of process 0 as `host:port`; by default set by the launcher.
    - `processes`, `process`: number of processes, and the index of this process, counted from 0; by default set by the
      launcher.
    - `timeout`: seconds within which all processes must have started.
    - `logs`: folder for the log files of the processes other than process 0.

    **Raises:** `InputError` if the processes cannot reach each other, or have different versions of the package.
    """
    global _joined
    if _joined is not None:
        return _joined
    place = _find_place(coordinator, processes, process, timeout)
    if place is None:
        return Peers()
    host, _, port = place.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"the coordinator's address (={place.coordinator!r}) must be `host:port`")
    log, screen = (None, 2) if place.index == 0 else _redirect_output(Path(logs), place.index)
    greeting = {**{f"version of {name}": _version(name) for name in _PACKAGES}, "number of processes": place.count}
    if place.index == 0:
        sockets = accept_peers(int(port), place.count, greeting, timeout)
    else:
        sockets = {0: connect(host.strip("[]"), int(port), place.index, greeting, timeout)}
    _joined = Peers(place.index, place.count, sockets, log, screen)
    _start_jax(_joined, host, place, timeout)
    atexit.register(_joined.leave)
    return _joined


def _start_jax(peers: Peers, host: str, place: _Place, timeout: float) -> None:
    """Initializes JAX so that it can use the devices of all processes."""
    # The processes are connected before JAX starts, because JAX ends a process with a core dump if it cannot reach the
    # others.
    (port, *_) = peers.gather(_free_port() if peers.is_first else None)
    # Processes on CPUs cannot exchange arrays without this setting.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX's own SIGTERM handler would replace the default handler; SIGTERM would then no longer end a process that is
    # not training yet.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        f"{host}:{port}", place.count, place.index, place.local_devices, initialization_timeout=max(int(timeout), 1)
    )


def _find_place(coordinator: str | None, count: int | None, index: int | None, timeout: float) -> _Place | None:
    """Returns this process's place from the arguments or the launcher's variables; `None` for a single process."""
    coordinator, local_devices = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"), None
    told = next((names for names in _VARIABLES if all(name in os.environ for name in names[:2])), None)
    if told is not None:
        count = _read_number(told[0]) if count is None else count
        index = _read_number(told[1]) if index is None else index
        # Each process uses one device, as JAX does for the launchers that it supports.
        local_devices = [_read_number(told[2])] if told[2] in os.environ else None
    is_alone = coordinator is None and count is None and index is None and not _is_in_cluster()
    if is_alone or count == 1:
        return None
    if coordinator is None or count is None or index is None:
        coordinator, count, index, local_devices = _ask_jax(coordinator, count, index, timeout)
    if coordinator is None or count is None or index is None:
        raise InputError(
            "the address of process 0, the number of processes or the index of this process is not known: give "
            "`--coordinator HOST:PORT --processes N --process I`"
        )
    if count == 1:
        return None
    if not 0 <= index < count:
        raise InputError(f"`process` (={index}) must be from 0 to {count - 1}, one less than `processes`")
    return _Place(coordinator, count, index, local_devices)


def _is_in_cluster() -> bool:
    """Returns whether this process runs in a pod of an indexed Kubernetes job, or on a host of a TPU pod."""
    is_job = "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" in os.environ
    return is_job or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def _ask_jax(
    coordinator: str | None, count: int | None, index: int | None, timeout: float
) -> tuple[str | None, int | None, int | None, list[int] | None]:
    """Fills in missing values with the values that JAX detects from the launcher's environment.

    **Returns:** the address of process 0, the number of processes, the index of this process, and the numbers of its
        local devices.
    """
    # JAX's only public function for this is `jax.distributed.initialize`, which aborts the process if it cannot
    # connect.
    try:
        from jax._src.clusters import ClusterEnv

        return ClusterEnv.auto_detect_unset_distributed_params(  # pyright: ignore[reportReturnType]
            coordinator, count, index, None, None, int(timeout)
        )
    except (ImportError, RuntimeError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the launcher does not give the address of process 0 ({error}): give `--coordinator HOST:PORT`"
        ) from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _read_number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise InputError(f"the environment variable {name} (={text!r}) must be a whole number")
    return int(text)


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def _redirect_output(folder: Path, index: int) -> tuple[Path, int]:
    """Redirects the output of this process to a log file. Returns the file's path, and a file descriptor of the
    screen."""
    path = folder / f"process-{index}-{socket.gethostname()}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError as error:
        raise InputError(f"the log file `{path}` cannot be written: {error.strerror}") from error
    sys.stdout.flush()
    sys.stderr.flush()
    screen = os.dup(2)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
    return path, screen
