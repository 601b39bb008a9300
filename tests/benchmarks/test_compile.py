import json

import jax
import pytest

from benchmarks import compile
from benchmarks.peers import linen
from benchmarks.trainer_step import make_compile_function
from eqxcnn import zoo
from eqxcnn.errors import InputError

#: Networks whose shapes take seconds to trace.
DEEP = ("densenet_bc_190_40", "preact_resnet1001", "preact_resnet164", "resnet110")


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


def test_a_step_is_compiled_anew_at_every_call(monkeypatch):
    compiled = []

    def count_compilations(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    compile_step = make_compile_function("mlp", compile.optax.sgd(0.1), 2)
    jax.monitoring.register_event_duration_secs_listener(count_compilations)
    try:
        compile_step()
        first = len(compiled)
        compile_step()
        assert len(compiled) == 2 * first >= 2
    finally:
        jax.monitoring.unregister_event_duration_listener(count_compilations)


@pytest.mark.slow
def test_the_compile_benchmark_from_end_to_end(tmp_path):
    compile.main(["--nets", "resnet20", "--rounds", "2", "--out", str(tmp_path / "compile.json")])
    written = json.loads((tmp_path / "compile.json").read_text())
    assert written["targets"] == {"resnet20, eqxcnn / resnet20, Flax linen": "<= 1.5"}
    # A cached step would take a hundredth of this time.
    assert all(low > 0.5 for _, low, _ in written["times"].values())
