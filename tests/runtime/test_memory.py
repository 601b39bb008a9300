"""`keep_freed_memory` changes the whole process, so each test starts a new process."""

import os
import platform
import subprocess
import sys

import pytest

from eqxcnn.runtime import memory
from eqxcnn.runtime.memory import _HUGE_PAGES, keep_freed_memory

# The file alone: importing the whole package takes longer than the tests.
LOAD = f"""
import importlib.util
import jax, jax.numpy as jnp

spec = importlib.util.spec_from_file_location("memory", {memory.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
keep_freed_memory = module.keep_freed_memory
"""

PAGE_FAULTS = """
import resource, sys

assert keep_freed_memory() == ("keep" in sys.argv)
double = jax.jit(lambda x: 2 * x)
x = jnp.ones(2**23)
for _ in range(30):
    double(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    double(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(code, *arguments, keep):
    """Returns the number that a new process prints, with `EQXCNN_KEEP_MEMORY` set to `keep`."""
    environment = {**os.environ, "EQXCNN_KEEP_MEMORY": keep}
    done = subprocess.run(
        [sys.executable, "-c", LOAD + code, *arguments], capture_output=True, check=True, text=True, env=environment
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_reused_unless_the_environment_forbids_it():
    # 32 MiB twenty times are 160,000 pages of 4 KiB. The heap takes a few calls to keep a gap of that size.
    default = run(PAGE_FAULTS, keep="0")
    assert default > 80_000
    assert run(PAGE_FAULTS, "keep", keep="1") < default / 4


def test_the_environment_variable_leaves_the_allocator_alone(monkeypatch):
    monkeypatch.setenv("EQXCNN_KEEP_MEMORY", "0")
    monkeypatch.setattr("eqxcnn.runtime.memory.ctypes.CDLL", lambda _: pytest.fail("the C library was opened"))
    assert not keep_freed_memory()


HUGE = """
def huge_kilobytes():
    (line,) = (line for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages"))
    return int(line.split()[1])

assert keep_freed_memory()
assert keep_freed_memory()  # a second time changes nothing
before = huge_kilobytes()
x = jnp.ones(2**24).block_until_ready()
print(huge_kilobytes() - before)
"""


@pytest.mark.skipif(not _HUGE_PAGES.exists() or "[never]" in _HUGE_PAGES.read_text(), reason="Linux has no huge pages")
def test_arrays_lie_in_huge_pages():
    # Of 64 MiB; the kernel may be short of huge pages.
    assert run(HUGE, keep="1") > 32 * 1024
