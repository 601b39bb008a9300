"""Measurements and reports of benchmarks, and the benchmarks of `mlp` and `scratch`."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import manual_step, mlp_epoch
from benchmarks.mlp_epoch import EpochTrainer, WriteUpLoop, prepare_job
from benchmarks.timing import Benchmark, Case, Ratio, is_noisy, measure, ratio_spread, run_benchmark, spread
from eqxcnn.errors import InputError
from eqxcnn.runtime.compile import async_jit
from eqxcnn.training import load_recipe


class Clock:
    """A clock that advances only while a caller waits for the result of one of the clock's cases."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def __call__(self):
        return self.now

    def case(self, name, *seconds, scale=1.0):
        """Returns a case whose call number `n`, counted from 0, takes `seconds[n]`."""
        remaining = list(seconds)

        def call():
            self.order.append(name)
            return PendingResult(self, remaining.pop(0))

        return Case(call, scale)


class PendingResult:
    """A result that is not computed yet."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def block_until_ready(self):
        self.clock.now += self.seconds
        return self


def make_benchmark(clock, arguments=()):
    cases = {
        "fast": clock.case("fast", 50, 1, 2, 3),
        "slow": clock.case("slow", 50, 2, 4, 6),
        "unsteady": clock.case("unsteady", 50, 1, 1, 9, scale=0.5),
    }
    ratios = (Ratio("fast", "slow", "<= 0.8"), Ratio("unsteady", "slow"))
    return Benchmark("toy", "A toy", arguments, "ms", cases, ratios)


def test_cases_take_turns_in_an_order_that_alternates():
    clock = Clock()
    measure(make_benchmark(clock).cases, 3, clock)
    warm_up, first, second, third = (clock.order[start : start + 3] for start in (0, 3, 6, 9))
    assert warm_up == first == third == ["fast", "slow", "unsteady"]
    assert second == ["unsteady", "slow", "fast"]


def test_times_include_waiting_and_the_scale_and_exclude_the_warm_up():
    clock = Clock()
    assert measure(make_benchmark(clock).cases, 3, clock) == {
        "fast": [1, 2, 3],
        "slow": [2, 4, 6],
        "unsteady": [0.5, 0.5, 4.5],
    }


def test_the_call_before_a_case_is_awaited_and_not_timed():
    clock = Clock()
    before = clock.case("before", 7, 8).call
    case = clock.case("case", 1, 2)._replace(before=before)
    assert measure({"case": case}, 2, clock, warm_up=False) == {"case": [1, 2]}
    assert clock.order == ["before", "case"] * 2
    assert clock.now == 18


def test_spread_is_median_and_quartiles_to_four_digits():
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == [3.0, 2.0, 4.0]
    assert spread([12.34567, 12.34567]) == [12.35, 12.35, 12.35]


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    # The ratio of the medians would be 1.5.
    assert ratio_spread(Ratio("a", "b"), {"a": [1, 4, 3], "b": [2, 4, 1.5]}) == [1.0, 0.75, 1.5]


def test_the_numerator_with_the_smallest_median_counts():
    seconds = {"a": [1, 9, 9], "b": [4, 4, 4], "c": [2, 2, 2]}
    assert ratio_spread(Ratio(("a", "b"), "c", name="a or b"), seconds) == [2, 2, 2]


@pytest.mark.parametrize(
    ("ratio", "noisy"),
    [([1.0, 0.875, 1.125], False), ([1.0, 0.874, 1.125], True), ([40, 36, 46], False), ([40, 36, 47], True)],
)
def test_a_ratio_is_noisy_if_its_quartiles_differ_by_more_than_a_quarter_of_it(ratio, noisy):
    assert is_noisy(ratio) == noisy


def test_the_results_file_and_the_printed_table(tmp_path, capsys):
    clock, out = Clock(), tmp_path / "toy.json"
    arguments = ["--data", "/somewhere/mnist", "--out=/elsewhere/toy.json", "--rounds", "3"]
    run_benchmark(make_benchmark(clock, arguments), 3, out, clock)
    written = json.loads(out.read_text())
    environment = written.pop("environment")
    assert list(environment) == ["python", "jax", "jaxlib", "equinox", "optax", "processor", "cores", "devices"]
    assert environment["jax"] == jax.__version__
    assert written == {
        "name": "toy",
        "title": "A toy",
        "command": "python -m benchmarks.toy --data mnist --out=toy.json --rounds 3",
        "unit": "ms",
        "times": {"fast": [2000, 1500, 2500], "slow": [4000, 3000, 5000], "unsteady": [500, 500, 2500]},
        "ratios": {"fast / slow": [0.5, 0.5, 0.5], "unsteady / slow": None},
        "targets": {"fast / slow": "<= 0.8"},
        "rounds": 3,
    }
    printed = " ".join(capsys.readouterr().out.split())
    assert "fast / slow │ 0.5 │ 0.5 to 0.5 │ <= 0.8" in printed
    assert "unsteady / slow │ too noisy │ │ │" in printed
    assert (
        "unsteady / slow is too noisy to report: half of its rounds range from 0.188 to 0.5, more than 25%" in printed
    )
    assert "fast / slow is too noisy" not in printed


@pytest.mark.parametrize(
    ("rounds", "folder", "message"),
    [
        (1, ".", r"`rounds` \(=1\) must be 2 or more"),
        (2, "missing", r"`out` \(=.*\) must be in an existing folder"),
    ],
)
def test_invalid_options_are_refused_before_the_measurement(tmp_path, rounds, folder, message):
    clock = Clock()
    with pytest.raises(InputError, match=message):
        run_benchmark(make_benchmark(clock), rounds, tmp_path / folder / "toy.json", clock)
    assert clock.order == []


@pytest.fixture(scope="module")
def job():
    return prepare_job(replace(load_recipe("mlp"), steps_per_call=3), 3)


def test_a_call_of_the_steps_takes_an_epoch_or_one_step(job, monkeypatch):
    shapes = []

    def fake_steps(setup, train, batches):
        shapes.append(batches.shape)
        return replace(train, sums=replace(train.sums, loss=jnp.ones(()), count=train.sums.count + 1))

    monkeypatch.setattr(mlp_epoch, "async_jit", lambda function, donate: fake_steps if donate else None)
    EpochTrainer(job)()
    EpochTrainer(replace(job, steps_per_call=1))()
    assert shapes == [(3, 64), (1, 64), (1, 64), (1, 64)]


def test_the_write_ups_loop_gets_float64_batches(job):
    calls = []

    def fake_update(params, x, y, rate):
        calls.append((type(x), x.dtype, x.shape, y.dtype, y.shape, rate))
        return params, jnp.float32(0)

    WriteUpLoop(job, fake_update)()
    assert calls == [(np.ndarray, np.float64, (64, 784), np.int64, (64,), 0.01)] * 3


def test_an_unknown_data_set_is_refused():
    with pytest.raises(InputError, match="`no_such_set`"):
        prepare_job(load_recipe("mlp"), 1, "no_such_set")


def test_zero_batches_are_refused():
    with pytest.raises(InputError, match=r"`batches` \(=0\) must be 1 or more"):
        prepare_job(load_recipe("mlp"), 0)


@pytest.fixture
def run_main(monkeypatch):
    """Calls a benchmark's `main`, with or without the measurement, and returns its `Benchmark`."""

    def run(module, *arguments, with_measurement=True):
        benchmarks = []

        def capture(benchmark, *options):
            benchmarks.append(benchmark)
            if with_measurement:
                run_benchmark(benchmark, *options)

        monkeypatch.setattr(module, "run_benchmark", capture)
        module.main(arguments)
        return benchmarks[0]

    return run


def test_an_epoch_of_a_named_data_set_is_scaled_up_from_a_few_uncompiled_steps(run_main, monkeypatch):
    compiled = []
    monkeypatch.setattr(mlp_epoch, "async_jit", lambda *f, **donate: compiled.append(f) or async_jit(*f, **donate))
    benchmark = run_main(mlp_epoch, "--batches", "22", "--data", "digits", with_measurement=False)
    assert benchmark.title == "An epoch of `mlp`: 22 batches of 64, digits"
    assert {name: case.scale for name, case in benchmark.cases.items()} == {
        "write-up, jit": 1,
        "ours, one call per epoch": 1,
        "ours, one call per step": 1,
        "write-up, no jit (20 steps, scaled)": 1.1,
        "ours, no jit (20 steps, scaled)": 1.1,
    }
    _, ours, single_steps, _, uncompiled = (case.call for case in benchmark.cases.values())
    assert [case.job.steps_per_call for case in (ours, single_steps, uncompiled)] == [22, 1, 1]
    assert len(compiled) == 2
    assert len(ours.job.splits.train.labels) == 1438
    assert (ours.job.steps_per_epoch, uncompiled.job.steps_per_epoch) == (22, 20)


@pytest.mark.exhaustive
def test_all_cases_of_the_mlp_benchmark_learn_the_same(run_main, tmp_path):
    benchmark = run_main(mlp_epoch, "--batches", "2", "--rounds", "2", "--out", str(tmp_path / "mlp.json"))
    written = json.loads((tmp_path / "mlp.json").read_text())
    assert "2 batches of 64, images of random pixels in MNIST's shape" in written["title"]
    assert written["targets"] == {"ours, one call per epoch / write-up, jit": "<= 0.8"}
    assert list(written["ratios"]) == [
        "ours, one call per epoch / write-up, jit",
        "write-up, no jit (2 steps, scaled) / write-up, jit",
        "ours, no jit (2 steps, scaled) / ours, one call per epoch",
    ]
    assert (written["unit"], written["rounds"], len(written["times"])) == ("s", 2, 5)
    assert all(0 < low <= median <= high for median, low, high in written["times"].values())
    # All cases have trained for three epochs, so their next losses agree.
    losses = [np.mean(case.call()) for case in benchmark.cases.values()]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    assert benchmark.cases["ours, one call per epoch"].call() < losses[0]


@pytest.mark.slow
def test_the_manual_benchmark_compares_equal_steps(run_main):
    benchmark = run_main(manual_step, "--batches", "2", "--steps", "3", with_measurement=False)
    assert {ratio.label: ratio.target for ratio in benchmark.ratios} == {
        "by hand, batch 64 / autodiff, batch 64": "<= 1.25",
        "by hand, batch 1, 3 steps per call / autodiff, batch 1, 3 steps per call": "<= 1.25",
    }
    jobs = [case.call.job for case in benchmark.cases.values()]
    assert [job.recipe.gradients for job in jobs] == ["by_hand", "autodiff", "by_hand", "autodiff"]
    steps = [(job.recipe.batch_size, job.steps_per_epoch, job.steps_per_call) for job in jobs]
    assert steps == [(64, 2, 1), (64, 2, 1), (1, 3, 3), (1, 3, 3)]
    assert [case.scale for case in benchmark.cases.values()] == [1 / 2, 1 / 2, 1 / 3, 1 / 3]
    by_hand, autodiff = (
        benchmark.cases[f"{kind}, batch 1, 3 steps per call"].call() for kind in ("by hand", "autodiff")
    )
    np.testing.assert_allclose(by_hand, autodiff, rtol=1e-4)
