"""Looking at a run before or while it goes: dry runs, traces, and runs that are held to the same bits."""

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


def test_a_dry_run_knows_the_run_and_its_memory():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = dry_run(RUN)
    assert (found.parameters, found.steps, found.steps_per_call) == (101_770, 9, 1)
    # Weights and Adam's two moments, given back in the same place, beside all images of the training split.
    least = 3 * 4 * 101_770 + 1438 * 28 * 28
    assert least < found.memory < 4 * least
    # Weights and half a thousand images, but no moments.
    assert 4 * 101_770 + 359 * 28 * 28 < found.eval_memory < found.memory
    assert found.compile_seconds > 0 < found.step_seconds < 5
    assert str(found).startswith("101,770 parameters; compiled in ")


def test_an_epoch_of_one_call_will_do():
    found = dry_run(replace(RUN, steps_per_call=9))
    assert found.steps_per_call == 9


def test_a_dry_run_compiles():
    with pytest.raises(InputError, match="measures compiled steps"):
        dry_run(Recipe(model="mlp", jit=False))


def test_a_trace_of_some_steps_is_written(tmp_path):
    result = fit(
        Recipe(model="mlp", data="digits", train_images=320, batch_size=32, epochs=1, profile=2), runs=tmp_path
    )
    (trace,) = (result.folder / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("train_steps" in str(event.get("name")) for event in events)
    # Tracing is over: another may begin.
    jax.profiler.start_trace(tmp_path / "another")
    jax.profiler.stop_trace()


def test_deterministic_is_an_option_that_the_compiler_knows(tmp_path):
    assert compile._select_supported([compile.DETERMINISTIC]) == {"xla_gpu_deterministic_ops": True}
    runs = [
        fit(Recipe(model="mlp", train_images=320, epochs=1, deterministic=deterministic), runs=tmp_path)
        for deterministic in (True, True, False)
    ]
    first, second, third = ((run.folder / "model" / "model.safetensors").read_bytes() for run in runs)
    assert first == second == third
