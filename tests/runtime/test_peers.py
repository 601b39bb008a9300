"""Messages between the processes of a run; threads of this process stand for the processes."""

import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from eqxcnn.errors import InputError
from eqxcnn.runtime import channel
from eqxcnn.runtime import peers as peers_module
from eqxcnn.runtime.peers import Peers
from eqxcnn.runtime.processes import _find_place, join_processes

CREATED = []


class Ended(Exception):
    """Raised instead of ending the process."""


@pytest.fixture(scope="module", autouse=True)
def recorded_ends():
    """Records each call that would end this process; a thread may make such a call after its test has finished."""
    found = []

    def end():
        found.append(threading.current_thread())
        raise Ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers_module, "_exit", end)
        patch.setattr(peers_module, "_OWN_ERROR", 0.0)
        patch.setattr(peers_module, "_HEARD", 0.0)
        patch.setattr(threading, "excepthook", lambda _: None)
        yield found
        for each in CREATED:
            each._left.update(range(each.count))
        time.sleep(0.1)


@pytest.fixture
def ends(recorded_ends):
    """A function that returns the names of the threads that would have ended their process during this test."""
    # Threads of an earlier test may still notice that a connection is closed.
    earlier = set(threading.enumerate()) - {threading.main_thread()}
    recorded_ends.clear()
    return lambda: [each.name for each in recorded_ends if each not in earlier]


def connect(count):
    """Returns the peers of `count` processes, and the sockets of each peer."""
    pairs = [socket.socketpair() for _ in range(count - 1)]
    sockets = [{index: pair[0] for index, pair in enumerate(pairs, 1)}, *({0: pair[1]} for pair in pairs)]
    with ThreadPoolExecutor(count) as pool:
        peers = list(pool.map(lambda index: Peers(index, count, sockets[index]), range(count)))
    CREATED.extend(peers)
    return peers, sockets


def run_all(function, peers):
    with ThreadPoolExecutor(len(peers)) as pool:
        return list(pool.map(function, peers))


def leave(peers):
    run_all(lambda each: each.leave(), peers)


def test_gather_returns_the_values_in_order():
    peers, _ = connect(3)
    found = run_all(lambda each: [each.gather((each.index, round)) for round in range(50)], peers)
    assert found == [[[[index, round] for index in range(3)] for round in range(50)]] * 3
    leave(peers)


def test_one_process_needs_no_others():
    alone = Peers()
    assert alone.is_first
    assert alone.gather({"a": 1}) == [{"a": 1}]
    assert alone.poll() == []
    alone.request(15)
    assert alone.poll() == [15]
    assert alone.poll() == []


@pytest.mark.parametrize("seed", range(4))
def test_requests_are_due_at_the_same_call_in_all_processes(seed):
    peers, _ = connect(3)

    def work(each):
        rng, due = random.Random(10 * seed + each.index), []
        for call in range(200):
            time.sleep(rng.choice([0, 0, 0.0005]))
            if rng.random() < 0.02:
                each.request(1 + 100 * each.index + call)
            due.append(each.poll())
        return due

    found = run_all(work, peers)
    assert found[0] == found[1] == found[2]
    assert len([reason for reasons in found[0] for reason in reasons]) > 3
    leave(peers)


def test_a_request_waits_for_no_process_that_is_ahead():
    # Process 1 has started three more calls, as asynchronous steps allow; both stop after them.
    peers, _ = connect(2)
    for _ in range(3):
        assert peers[1].poll() == []
    peers[0].request(15)
    found = [peers[0].poll() for _ in range(4)]
    assert found == [[], [], [], [15]]
    assert peers[1].poll() == [15]
    leave(peers)


def test_a_lost_process_ends_the_others(ends, capsys):
    peers, sockets = connect(3)
    peers[0].advice = "continue with --resume runs/x"
    sockets[2][0].shutdown(socket.SHUT_RDWR)
    wait_until(lambda: len(ends()) >= 3)
    printed = capsys.readouterr().err
    assert f"process 2 of the 3 of this run on {socket.gethostname()} has ended before its work was done" in printed
    assert "continue with --resume runs/x" in printed


def test_a_process_that_leaves_ends_nobody(ends):
    peers, sockets = connect(2)
    leave(peers)
    sockets[1][0].shutdown(socket.SHUT_RDWR)
    time.sleep(0.1)
    assert ends() == []


def test_an_error_ends_all_processes(ends, capsys):
    peers, _ = connect(2)
    with pytest.raises(Ended), peers[1].guard():
        raise InputError("the disk is full")
    wait_until(lambda: len(ends()) >= 3)
    assert "error: process 1: the disk is full" in capsys.readouterr().err


def test_one_process_keeps_its_errors():
    with pytest.raises(InputError, match=r"^bad$"), Peers().guard():
        raise InputError("bad")


def wait_until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def test_strangers_are_turned_away():
    port, greeting = free_port(), {"version": "1"}
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(channel.accept_peers, port, 2, greeting, 20.0)
        for hello in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"\xff\n",
            b'{"process": 7, "version": "1"}\n',
            b"[]\n",
            b'{"process": 1}\n',
        ):
            with retry(lambda: socket.create_connection(("127.0.0.1", port), 5)) as stranger:
                stranger.sendall(hello)
                assert stranger.recv(100) == b""
        channel.connect("127.0.0.1", port, 1, greeting, 10.0).close()
        assert list(accepting.result(10)) == [1]


def retry(function):
    for _ in range(100):
        try:
            return function()
        except OSError:
            time.sleep(0.05)
    raise TimeoutError


def test_another_version_is_refused_in_both_processes():
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(channel.accept_peers, port, 2, {"version of eqxcnn": "1"}, 20.0)
        message = "process 1 has version of eqxcnn 2, and process 0 has 1"
        with pytest.raises(InputError, match=message):
            channel.connect("127.0.0.1", port, 1, {"version of eqxcnn": "2"}, 10.0)
        with pytest.raises(InputError, match=message):
            accepting.result(10)


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"process 0 cannot use port {port}"):
            channel.accept_peers(port, 2, {}, 1.0)


LAUNCHERS = {
    "by hand": ({}, ("node:1234", 4, 2), ("node:1234", 4, 2)),
    "Kubeflow": (
        {"JAX_COORDINATOR_ADDRESS": "job-0:6666", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "1"},
        (None, None, None),
        ("job-0:6666", 3, 1),
    ),
    "Slurm": (
        {
            "SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "node[003-004]", "SLURM_NTASKS": "8", "SLURM_PROCID": "5",
            "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8",
        },
        (None, None, None),
        ("node003:61517", 8, 5),
    ),
    "Open MPI": (
        {
            "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2",
            "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        },
        (None, None, None),
        ("10.96.0.1:", 2, 1),
    ),
    "MPICH": ({"PMI_SIZE": "4", "PMI_RANK": "3"}, ("node:1234", None, None), ("node:1234", 4, 3)),
}  # fmt: skip


@pytest.fixture
def no_launcher(monkeypatch):
    """Removes the environment variables of any launcher that started these tests."""
    for name in list(peers_module.os.environ):
        if name.startswith(("JAX_COORD", "JAX_NUM_PROC", "JAX_PROCESS", "SLURM_", "OMPI_", "PMI_", "KUBERNETES_")):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_launcher")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_tell_the_place_of_a_process(launcher, monkeypatch):
    variables, arguments, (coordinator, count, index) = LAUNCHERS[launcher]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    place = _find_place(*arguments, timeout=1.0)
    assert place is not None
    assert place.coordinator.startswith(coordinator)
    assert (place.count, place.index) == (count, index)


@pytest.mark.usefixtures("no_launcher")
@pytest.mark.parametrize("address", [None, "node:1234"])
def test_each_process_of_a_machine_has_a_device_of_its_own(monkeypatch, address):
    variables, _, _ = LAUNCHERS["Open MPI"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _find_place(address, None, None, timeout=1.0).local_devices == [1]


@pytest.mark.usefixtures("no_launcher")
def test_a_single_process_joins_nobody(monkeypatch):
    assert join_processes().count == 1
    # A step of one task, and a batch script, which has the variables of the job but not those of a step.
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert join_processes().count == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert join_processes().count == 1


@pytest.mark.usefixtures("no_launcher")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("node:1", 2, None), "give `--coordinator HOST:PORT --processes N --process I`"),
        ((None, 2, 1), "give `--coordinator HOST:PORT --processes N --process I`"),
        (("node", 2, 1), r"the coordinator's address \(='node'\) must be `host:port`"),
        (("node:99999", 2, 1), "must be `host:port`"),
        (("node:1", 2, 2), r"`process` \(=2\) must be from 0 to 1"),
    ],
)
def test_an_incomplete_place_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        join_processes(*arguments)


@pytest.mark.usefixtures("no_launcher")
def test_a_launcher_that_counts_in_words_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    with pytest.raises(InputError, match=r"JAX_NUM_PROCESSES .*'two'.* must be a whole number"):
        join_processes("node:1")
