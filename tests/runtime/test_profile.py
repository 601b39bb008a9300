from pathlib import Path

import jax.numpy as jnp
import pytest

from eqxcnn.runtime.profile import Profiler


@pytest.fixture
def trace(monkeypatch):
    """Records the calls of `jax.profiler` without starting the profiler."""
    calls = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder, **_: calls.append(f"start {folder}"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append("stop"))
    return calls


def run(profiler, calls, steps, trace):
    for index in range(calls):
        profiler.before_call()
        trace.append(f"call {index}")
        profiler.after_call(jnp.zeros(()), steps)


def test_calls_are_traced_from_the_second_one_until_there_are_enough_steps(trace):
    with Profiler(Path("profile"), 15) as profiler:
        run(profiler, 4, 10, trace)
    assert trace == ["call 0", "start profile", "call 1", "call 2", "stop", "call 3"]


def test_a_short_run_stops_the_trace_at_its_end(trace):
    with Profiler(Path("profile"), 100) as profiler:
        run(profiler, 2, 10, trace)
    assert trace == ["call 0", "start profile", "call 1", "stop"]


def test_zero_steps_trace_nothing(trace):
    with Profiler(Path("profile"), 0) as profiler:
        run(profiler, 3, 10, trace)
    assert trace == ["call 0", "call 1", "call 2"]
