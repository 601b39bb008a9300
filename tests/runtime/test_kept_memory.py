"""The process that allocates is one of its own: the setting is the whole process's."""

import platform
import subprocess
import sys

import pytest

from eqxcnn.runtime.memory import _HUGE_PAGES

FAULTS = """
import resource, sys
import jax, jax.numpy as jnp
from eqxcnn.runtime.memory import keep_freed_memory

if "keep" in sys.argv:
    assert keep_freed_memory()
double = jax.jit(lambda x: 2 * x)
x = jnp.ones(2**23)
for _ in range(30):
    double(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    double(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is nothing to set without glibc")
def test_arrays_are_made_of_memory_that_earlier_ones_left():
    def faults(*arguments):
        command = [sys.executable, "-c", FAULTS, *arguments]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    # 32 MiB twenty times are 160,000 pages of 4 KiB. A heap takes a few calls until a hole of that size stays in it.
    given_back = faults()
    assert given_back > 80_000
    assert faults("keep") < given_back / 4


HUGE = """
import jax, jax.numpy as jnp
from eqxcnn.runtime.memory import keep_freed_memory

def huge():
    (line,) = (line for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages"))
    return int(line.split()[1])

assert keep_freed_memory()
assert keep_freed_memory()  # a second time changes nothing
before = huge()
x = jnp.ones(2**24).block_until_ready()
print(huge() - before)
"""


@pytest.mark.skipif(not _HUGE_PAGES.exists() or "[never]" in _HUGE_PAGES.read_text(), reason="Linux has no huge pages")
def test_arrays_lie_in_huge_pages():
    out = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, check=True, text=True).stdout
    # Of 64 MiB; the kernel may be short of some.
    assert int(out) > 32 * 1024
