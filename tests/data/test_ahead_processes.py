"""Processes that decode images: they leave signals to the main process, and end when it dies."""

import subprocess
import sys
import time

import pytest

# Reads batches in two processes, sends them the signals that a terminal or a scheduler sends to all processes, reads
# more than was decoded before, prints their numbers, and dies.
_SCRIPT = """
import multiprocessing, os, signal, sys
import numpy as np
from eqxcnn.data import DecodeAhead, Preprocess, open_source

def order(epoch):
    return np.arange(8)

def run():
    split = open_source(sys.argv[1]).stream("train", preprocess=Preprocess((4, 4), 1))
    reader = DecodeAhead(split.images, split.labels, order, 8, processes=2)
    batches = reader.batches(0, 0, [(8,)] * 500)
    next(batches)
    workers = [worker.pid for worker in multiprocessing.active_children()]
    for worker in workers:
        os.kill(worker, signal.SIGINT)
        os.kill(worker, signal.SIGTERM)
    print(*workers, len(list(batches)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

"""


@pytest.mark.slow
def test_processes_leave_signals_to_the_main_process_and_end_with_it(make_classes, tmp_path):
    folder, script = make_classes(tmp_path / "set"), tmp_path / "script.py"
    script.write_text(f"{_SCRIPT}if __name__ == '__main__':\n    run()\n")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=120)
    *workers, count = map(int, done.stdout.split())
    assert (len(workers), count) == (2, 499)
    assert "KeyboardInterrupt" not in done.stderr
    for _ in range(100):
        if not any(map(_is_running, workers)):
            return
        time.sleep(0.1)
    pytest.fail("a decoding process outlived the main process")


def _is_running(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_to_have_one(make_classes, tmp_path):
    folder, script = make_classes(tmp_path / "set"), tmp_path / "script.py"
    script.write_text(f"{_SCRIPT}run()\n")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=120)
    assert "exit code 1): in a script, train under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
