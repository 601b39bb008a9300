"""The parent process: sends cases to a worker process, and ends a worker that hangs or takes too much memory."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).resolve().parents[2]
#: Seconds to import the package and to prepare the cases.
_PREPARE_SECONDS = 300.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
#: A case may take this many times its limit of processor time, because it may wait or the machine may be busy.
_PATIENCE = 4
_FRAME = re.compile(r'File "([^"]*)", line \d+ in (\S+)')


@dataclass(frozen=True)
class Verdict:
    """The verdict of a case: `refused`, `accepted`, or a fault with its kind and details."""

    name: str
    kind: str = ""
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether the case shows a fault."""
        return self.name not in ("refused", "accepted")


@dataclass
class Watch:
    """Runs cases one after another in a worker process, which is restarted if it dies.

    - `module`: the module whose `ENTRANCES` are attacked.
    - `seed`: the seed of all cases.
    - `work`: the folder in which each case gets a folder of its own.
    - `seconds`, `memory`: limits of a case: processor time in seconds, and memory of the whole process in bytes.
    - `spent`: the seconds that the last case took, without the preparation of its entrance.
    """

    module: str
    seed: int
    work: Path
    seconds: float = 10.0
    memory: int = 4_000_000_000
    spent: float = field(default=0.0, init=False)
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def run(self, entrance: str, number: int) -> Verdict:
        """Runs one case."""
        folder = self.work / f"{entrance}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        process = self._process
        # Compiled programs of earlier cases stay in memory.
        if process is None or process.poll() is not None or _resident_bytes(process.pid) > self.memory / 2:
            self.stop()
            process = self._start()
        requests = _pipe(process.stdin)
        try:
            requests.write(f"{entrance} {number}\n".encode())
        except BrokenPipeError:
            return self._describe_death(process)
        for limit in (_PREPARE_SECONDS, self.seconds):
            started = time.monotonic()
            verdict = self._wait(process, limit)
            self.spent = time.monotonic() - started
            if verdict.name != "started":
                return verdict
        raise AssertionError("a worker announces a case once")

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        closed = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "EQXCNN_KEEP_MEMORY": "0", "JAX_PLATFORMS": "cpu"}
        caches = {"HF_HOME": str(self.work / "hub"), "EQXCNN_CACHE": str(self.work / "cache")}
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker", self.module, str(self.seed), str(self.work)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # `select` does not see buffered bytes
                env={**os.environ, **closed, **caches, "PYTHONPATH": str(_ROOT)},
                cwd=self.work,
            )
        return self._process

    def _wait(self, process: "subprocess.Popen[bytes]", limit: float) -> Verdict:
        """Waits for the worker's next answer, within the limits of time and memory."""
        end, busy = time.monotonic() + _PATIENCE * limit, _processor_seconds(process.pid) + limit
        answers = _pipe(process.stdout)
        while not select.select([answers], [], [], 0.02)[0]:
            if _resident_bytes(process.pid) > self.memory:
                return self._kill(process, "memory")
            if time.monotonic() > end or _processor_seconds(process.pid) > busy:
                return self._kill(process, "hang")
        line = answers.readline()
        if not line:
            return self._describe_death(process)
        answer = json.loads(line)
        return Verdict(answer["verdict"], answer.get("kind", ""), answer.get("detail", ""))

    def _kill(self, process: "subprocess.Popen[bytes]", verdict: str) -> Verdict:
        """Makes a worker write its traceback, and then ends the worker."""
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)
        process.kill()
        process.wait()
        return Verdict(verdict, f"{verdict} in {self._frame()}", self._last_words())

    def _describe_death(self, process: "subprocess.Popen[bytes]") -> Verdict:
        code = process.wait()
        return Verdict("crash", f"exit code {code} in {self._frame()}", self._last_words())

    @property
    def _errors(self) -> Path:
        return self.work / "stderr.txt"

    def _last_words(self) -> str:
        """Returns the end of the worker's error output, without the long list of modules that follows a crash."""
        return self._errors.read_text(errors="replace").partition("Extension modules:")[0][-3_000:]

    def _frame(self) -> str:
        """Returns the innermost function of the package in the traceback that `faulthandler` wrote."""
        dump = self._last_words().rpartition("Current thread")[2].partition("\n\n")[0]
        frames = [f"{file}: {function}" for file, function in _FRAME.findall(dump)]
        own = [frame for frame in frames if "/eqxcnn/" in frame]
        return ((own or frames) + ["unknown"])[0].rpartition("/eqxcnn/")[2]


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _processor_seconds(pid: int) -> float:
    try:
        # The name before the numbers is in parentheses, and may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):  # it has ended
        return 0
