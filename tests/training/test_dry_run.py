"""Tests of dry runs, profiler traces and deterministic runs."""

import gzip
import json
import warnings
from dataclasses import replace

import jax
import pytest

from eqxcnn.errors import InputError
from eqxcnn.runtime import compile
from eqxcnn.training import Recipe, dry_run, fit

RUN = Recipe(model="mlp", data="digits", train_images=320, batch_size=32, epochs=1)


@pytest.mark.slow
def test_dry_run_reports_parameters_steps_and_memory():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = dry_run(RUN)
    assert (result.parameters, result.steps, result.steps_per_call) == (101_770, 9, 1)
    # Weights, Adam's two moments (buffers donated) and all images of the training split.
    lower_bound = 3 * 4 * 101_770 + 1438 * 28 * 28
    assert lower_bound < result.memory < 4 * lower_bound
    # Weights and the 359 test images, but no moments.
    assert 4 * 101_770 + 359 * 28 * 28 < result.eval_memory < result.memory
    assert result.compile_seconds > 0 < result.step_seconds < 5
    assert str(result).startswith("101,770 parameters; compiled in ")


def test_dry_run_accepts_one_call_per_epoch():
    result = dry_run(replace(RUN, steps_per_call=9))
    assert result.steps_per_call == 9


def test_dry_run_needs_compilation():
    with pytest.raises(InputError, match="measures compiled steps"):
        dry_run(Recipe(model="mlp", jit=False))


@pytest.mark.slow
def test_profile_writes_a_trace(tmp_path):
    result = fit(
        Recipe(model="mlp", data="digits", train_images=320, batch_size=32, epochs=1, profile=2), runs=tmp_path
    )
    (trace,) = (result.folder / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("train_steps" in str(event.get("name")) for event in events)
    # The trace has been stopped, so another can start.
    jax.profiler.start_trace(tmp_path / "another")
    jax.profiler.stop_trace()


@pytest.mark.slow
def test_deterministic_sets_the_compiler_option_and_keeps_the_bytes(tmp_path):
    assert compile._select_supported([compile.DETERMINISTIC]) == {"xla_gpu_deterministic_ops": True}
    runs = [
        fit(Recipe(model="mlp", train_images=320, epochs=1, deterministic=deterministic), runs=tmp_path)
        for deterministic in (True, False)
    ]
    first, second = ((run.folder / "model" / "model.safetensors").read_bytes() for run in runs)
    assert first == second
