import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import manual_step, mlp_epoch
from benchmarks.mlp_epoch import Training, WriteUp, prepared
from benchmarks.timing import Benchmark, Case, Ratio, is_noisy, measure, ratio_spread, run, spread
from eqxcnn.errors import InputError
from eqxcnn.runtime.compile import async_jit
from eqxcnn.training import load_recipe


class Clock:
    """Time that passes only in the calls made with it."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def __call__(self):
        return self.now

    def case(self, name, *seconds, scale=1.0):
        """A case whose calls take these seconds, one after the other, and only once somebody waits for them."""
        left = list(seconds)

        def call():
            self.order.append(name)
            return Pending(self, left.pop(0))

        return Case(call, scale)


class Pending:
    """A result under way."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def block_until_ready(self):
        self.clock.now += self.seconds
        return self


def benchmark(clock, arguments=()):
    cases = {
        "quick": clock.case("quick", 50, 1, 2, 3),
        "slow": clock.case("slow", 50, 2, 4, 6),
        "moody": clock.case("moody", 50, 1, 1, 9, scale=0.5),
    }
    ratios = (Ratio("quick", "slow", "<= 0.8"), Ratio("moody", "slow"))
    return Benchmark("toy", "A toy", arguments, "ms", cases, ratios)


def test_cases_take_turns_and_the_order_is_reversed_every_other_round():
    clock = Clock()
    measure(benchmark(clock).cases, 3, clock)
    warm_up, first, second, third = (clock.order[at : at + 3] for at in (0, 3, 6, 9))
    assert warm_up == first == third == ["quick", "slow", "moody"]
    assert second == ["moody", "slow", "quick"]


def test_a_time_is_that_of_the_finished_call_scaled_and_without_the_first():
    clock = Clock()
    assert measure(benchmark(clock).cases, 3, clock) == {
        "quick": [1, 2, 3],
        "slow": [2, 4, 6],
        "moody": [0.5, 0.5, 4.5],
    }


def test_what_runs_before_a_case_is_waited_for_each_time_and_not_counted():
    clock = Clock()
    lead = clock.case("lead", 7, 8).call
    case = clock.case("case", 1, 2)._replace(before=lead)
    assert measure({"case": case}, 2, clock, warm_up=False) == {"case": [1, 2]}
    assert clock.order == ["lead", "case"] * 2
    assert clock.now == 18


def test_spread_is_median_and_quartiles_to_four_digits():
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == [3.0, 2.0, 4.0]
    assert spread([12.34567, 12.34567]) == [12.35, 12.35, 12.35]


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    # The ratio of the medians would be 1.5.
    assert ratio_spread(Ratio("a", "b"), {"a": [1, 4, 3], "b": [2, 4, 1.5]}) == [1.0, 0.75, 1.5]


@pytest.mark.parametrize(
    ("ratio", "noisy"),
    [([1.0, 0.875, 1.125], False), ([1.0, 0.874, 1.125], True), ([40, 36, 46], False), ([40, 36, 47], True)],
)
def test_a_ratio_whose_middle_half_spans_more_than_a_quarter_of_it_is_noisy(ratio, noisy):
    assert is_noisy(ratio) == noisy


def test_the_file_and_the_table(tmp_path, capsys):
    clock, out = Clock(), tmp_path / "toy.json"
    run(benchmark(clock, ["--data", "/somewhere/mnist", "--out=/elsewhere/toy.json", "--rounds", "3"]), 3, out, clock)
    written = json.loads(out.read_text())
    environment = written.pop("environment")
    assert list(environment) == ["python", "jax", "jaxlib", "equinox", "optax", "processor", "cores", "devices"]
    assert environment["jax"] == jax.__version__
    assert written == {
        "name": "toy",
        "title": "A toy",
        "command": "python -m benchmarks.toy --data mnist --out=toy.json --rounds 3",
        "unit": "ms",
        "times": {"quick": [2000, 1500, 2500], "slow": [4000, 3000, 5000], "moody": [500, 500, 2500]},
        "ratios": {"quick / slow": [0.5, 0.5, 0.5], "moody / slow": None},
        "targets": {"quick / slow": "<= 0.8"},
        "rounds": 3,
    }
    printed = " ".join(capsys.readouterr().out.split())
    assert "quick / slow │ 0.5 │ 0.5 to 0.5 │ <= 0.8" in printed
    assert "moody / slow │ too noisy │ │ │" in printed
    assert "too noisy to tell moody / slow: the middle half of the rounds spans 0.188 to 0.5, more than 25%" in printed
    assert "too noisy to tell quick" not in printed


@pytest.mark.parametrize(
    ("rounds", "folder", "message"),
    [
        (1, ".", r"`rounds` \(=1\) must be 2 or more"),
        (2, "missing", r"`out` \(=.*\) lies in a folder that is not there"),
    ],
)
def test_what_cannot_be_told_or_written_is_not_measured(tmp_path, rounds, folder, message):
    clock = Clock()
    with pytest.raises(InputError, match=message):
        run(benchmark(clock), rounds, tmp_path / folder / "toy.json", clock)
    assert clock.order == []


@pytest.fixture(scope="module")
def job():
    return prepared(replace(load_recipe("mlp"), steps_per_call=3), 3)


def test_a_call_is_an_epoch_or_a_step(job, monkeypatch):
    stacked = []

    def steps(setup, train, batches):
        stacked.append(batches.shape)
        return replace(train, sums=replace(train.sums, loss=jnp.ones(()), count=train.sums.count + 1))

    monkeypatch.setattr(mlp_epoch, "async_jit", lambda function, donate: steps if donate else None)
    Training(job)()
    Training(replace(job, steps_per_call=1))()
    assert stacked == [(3, 64), (1, 64), (1, 64), (1, 64)]


def test_the_write_ups_loop_gets_what_its_reader_would_give_it(job):
    seen = []

    def recorded(params, x, y, rate):
        seen.append((type(x), x.dtype, x.shape, y.dtype, y.shape, rate))
        return params, jnp.float32(0)

    WriteUp(job, recorded)()
    assert seen == [(np.ndarray, np.float64, (64, 784), np.int64, (64,), 0.01)] * 3


def test_a_set_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="`no_such_set`"):
        prepared(load_recipe("mlp"), 1, "no_such_set")


def test_no_batches_are_refused():
    with pytest.raises(InputError, match=r"`batches` \(=0\) must be 1 or more"):
        prepared(load_recipe("mlp"), 0)


@pytest.fixture
def measured(monkeypatch):
    """Makes a benchmark's `main` run, measuring or not, and gives back what it measured."""

    def main(module, *arguments, measure=True):
        given = []
        monkeypatch.setattr(module, "run", lambda *each: given.append(each[0]) or (run(*each) if measure else None))
        module.main(arguments)
        return given[0]

    return main


def test_a_set_by_name_and_few_steps_for_an_epoch(measured, monkeypatch):
    jitted = []
    monkeypatch.setattr(mlp_epoch, "async_jit", lambda *f, **donate: jitted.append(f) or async_jit(*f, **donate))
    given = measured(mlp_epoch, "--batches", "22", "--data", "digits", measure=False)
    assert given.title == "An epoch of `mlp`: 22 batches of 64, digits"
    assert {name: case.scale for name, case in given.cases.items()} == {
        "write-up, jit": 1,
        "ours, one call an epoch": 1,
        "ours, one call a step": 1,
        "write-up, no jit (20 steps, scaled)": 1.1,
        "ours, no jit (20 steps, scaled)": 1.1,
    }
    loop, ours, one_by_one, _, few = (case.call for case in given.cases.values())
    assert [each.job.steps_per_call for each in (ours, one_by_one, few)] == [22, 1, 1]
    assert len(jitted) == 2
    assert (len(ours.job.train.labels), ours.job.steps_per_epoch, few.job.steps_per_epoch) == (1438, 22, 20)
    assert np.isclose(np.mean(loop()), ours(), rtol=1e-5)


def test_the_mlp_benchmark_from_end_to_end(measured, tmp_path):
    given = measured(mlp_epoch, "--batches", "3", "--rounds", "2", "--out", str(tmp_path / "mlp.json"))
    written = json.loads((tmp_path / "mlp.json").read_text())
    assert "3 batches of 64, random pixels in MNIST's shape" in written["title"]
    assert written["targets"] == {"ours, one call an epoch / write-up, jit": "<= 0.8"}
    assert list(written["ratios"]) == [
        "ours, one call an epoch / write-up, jit",
        "write-up, no jit (3 steps, scaled) / write-up, jit",
        "ours, no jit (3 steps, scaled) / ours, one call an epoch",
    ]
    assert (written["unit"], written["rounds"], len(written["times"])) == ("s", 2, 5)
    assert all(0 < low <= median <= high for median, low, high in written["times"].values())
    # All have learnt the same in a warm-up and two rounds, and go on from there.
    calls = [case.call for case in given.cases.values()]
    now, later = ([np.mean(call()) for call in calls] for _ in range(2))
    np.testing.assert_allclose((now, later), ([now[0]] * 5, [later[0]] * 5), rtol=1e-5)
    assert later[0] < now[0]


def test_the_manual_benchmark_from_end_to_end(measured, tmp_path):
    sizes = ("--batches", "2", "--steps", "3")
    given = measured(manual_step, *sizes, "--rounds", "2", "--out", str(tmp_path / "manual.json"))
    written = json.loads((tmp_path / "manual.json").read_text())
    assert written["targets"] == {
        "by hand, batch 64 / autodiff, batch 64": "<= 1.25",
        "by hand, batch 1, 3 steps a call / autodiff, batch 1, 3 steps a call": "<= 1.25",
    }
    assert list(written["ratios"]) == list(written["targets"])
    assert (written["unit"], written["rounds"]) == ("ms", 2)
    jobs = [case.call.job for case in given.cases.values()]
    assert [job.recipe.gradients for job in jobs] == ["by_hand", "autodiff", "by_hand", "autodiff"]
    steps = [(job.recipe.batch_size, job.steps_per_epoch, job.steps_per_call) for job in jobs]
    assert steps == [(64, 2, 1), (64, 2, 1), (1, 3, 3), (1, 3, 3)]
    assert [case.scale for case in given.cases.values()] == [1 / 2, 1 / 2, 1 / 3, 1 / 3]
    losses = [case.call() for case in given.cases.values()]
    np.testing.assert_allclose(losses[::2], losses[1::2], rtol=1e-4)
