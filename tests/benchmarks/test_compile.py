import json

import jax
import optax
import pytest

from benchmarks import compile, trainer_step
from benchmarks.peers import linen
from eqxcnn import zoo
from eqxcnn.errors import InputError
from eqxcnn.training.step import train_step

#: Networks whose shapes take seconds to trace.
DEEP = ("densenet_bc_190_40", "preact_resnet1001", "preact_resnet164", "resnet110", "mobilenet_v2_cifar")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive if name in DEEP else ()) for name in linen.NETS]
)
def test_the_linen_networks_have_the_published_parameter_counts(name):
    images = jax.ShapeDtypeStruct((2, *zoo.card(name).input), "float32")
    variables = jax.eval_shape(linen.NETS[name].init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == zoo.card(name).params


def test_a_network_without_a_flax_version_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"`nets` \(='googlenet'\) must be among the networks written in Flax: mlp"):
        compile.main(["--nets", "googlenet", "--out", str(tmp_path / "compile.json")])


@pytest.mark.exhaustive
def test_every_call_traces_and_compiles_the_step(monkeypatch):
    traced = []
    monkeypatch.setattr(trainer_step, "train_step", lambda *args: traced.append(args) or train_step(*args))
    compile_step = trainer_step.make_compile_function("mlp", optax.sgd(0.1), 2)
    compile_step()
    compile_step()
    assert len(traced) == 2


@pytest.mark.slow
def test_each_network_is_compared_with_flax(tmp_path, monkeypatch):
    benchmarks = []
    monkeypatch.setattr(compile, "run_benchmark", lambda benchmark, *_: benchmarks.append(benchmark))
    compile.main(["--nets", "resnet20", "--out", str(tmp_path / "compile.json")])
    (benchmark,) = benchmarks
    assert list(benchmark.cases) == ["resnet20, eqxcnn", "resnet20, Flax linen"]
    assert [(ratio.label, ratio.target) for ratio in benchmark.ratios] == [
        ("resnet20, eqxcnn / resnet20, Flax linen", "<= 1.5")
    ]
    assert not benchmark.warm_up


@pytest.mark.exhaustive
def test_the_compile_benchmark_from_end_to_end(tmp_path):
    compile.main(["--nets", "resnet20", "--rounds", "2", "--out", str(tmp_path / "compile.json")])
    written = json.loads((tmp_path / "compile.json").read_text())
    assert written["targets"] == {"resnet20, eqxcnn / resnet20, Flax linen": "<= 1.5"}
    # A cached step would take a hundredth of this time.
    assert all(low > 0.5 for _, low, _ in written["times"].values())
