"""`async_jit` returns before the result is computed, and compiles with options for this machine."""

import re
import threading
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.runtime import compile
from eqxcnn.runtime.compile import FlatJit, async_jit


class Pair(eqx.Module):
    value: jax.Array
    text: str
    function: object


def test_leaves_that_are_not_arrays_pass_through():
    traced = []

    def step(first, pair, batch):
        traced.append(pair.text)
        return Pair(pair.function(pair.value) * first + batch, pair.text + "!", jnp.cos), None

    call = async_jit(step)
    out, nothing = call(2.0, Pair(jnp.zeros(3), "a", jnp.sin), np.ones(3, np.float32))
    np.testing.assert_array_equal(out.value, np.ones(3))
    assert (out.text, out.function, nothing) == ("a!", jnp.cos, None)
    again, _ = call(2.0, Pair(jnp.zeros(3), "a", jnp.sin), np.zeros(3, np.float32))
    np.testing.assert_array_equal(again.value, np.zeros(3))
    other, _ = call(3.0, Pair(jnp.full(3, 0.5), "b", jnp.sin), np.zeros(3, np.float32))
    np.testing.assert_allclose(other.value, 3 * np.sin(np.full(3, 0.5)), rtol=1e-6)
    assert traced == ["a", "b"]


def test_only_new_trees_are_flattened(monkeypatch):
    flattened, partition = [], compile.partition
    call = async_jit(lambda first, pair, batch: eqx.tree_at(lambda p: p.value, pair, pair.value * first + batch))
    first, second, batch = jnp.float32(1), jnp.float32(2), np.float32(1)
    result = call(first, Pair(jnp.float32(3), "a", None), batch)
    monkeypatch.setattr(compile, "partition", lambda tree: flattened.append(tree) or partition(tree))
    assert float(call(first, result, batch).value) == 5
    assert flattened == [batch]
    # Neither the result before the previous one nor another first argument is known.
    assert float(call(second, result, batch).value) == 9
    assert [tree is result or tree is second for tree in flattened] == [False, True, True, False]


def test_threads_do_not_see_each_others_arguments():
    @jax.tree_util.register_pytree_node_class
    class Interrupting:
        """An argument that lets the other thread run a whole call while JAX flattens the argument."""

        def __init__(self, value, interrupt):
            self.value, self.interrupt = value, interrupt

        def tree_flatten(self):
            self.interrupt()
            return (self.value,), None

        @classmethod
        def tree_unflatten(cls, _, children):
            return cls(*children, lambda: None)

    call = async_jit(lambda first, rest: first.value + rest.value)
    mine, other = Pair(jnp.float32(1), "a", None), Pair(jnp.float32(100), "a", None)
    results = {}

    def run_other():
        results["other"] = float(call(other, Pair(jnp.float32(2), "a", None)))

    def interrupt():
        thread = threading.Thread(target=run_other)
        thread.start()
        thread.join()

    results["mine"] = float(call(mine, Interrupting(jnp.float32(3), interrupt)))
    assert results == {"mine": 4, "other": 102}


def test_each_thread_waits_for_its_own_previous_call():
    call = async_jit(lambda first, x: first + x)
    results = {}

    def add_up(start):
        total, first = jnp.float32(start), jnp.float32(start)
        for _ in range(100):
            total = call(first, total)
        results[start] = float(total)

    threads = [threading.Thread(target=add_up, args=(start,)) for start in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {start: 101 * start for start in range(1, 5)}


@pytest.mark.parametrize("donate", [False, True])
def test_donated_memory_is_reused(donate):
    kept, given = jnp.ones(1000), jnp.ones(1000)
    async_jit(lambda kept, given: kept + given, donate=donate)(kept, given)
    assert (kept.is_deleted(), given.is_deleted()) == (False, donate)


@pytest.mark.parametrize("is_long", [False, True])
def test_a_call_waits_for_the_previous_one_and_for_itself_if_it_is_long(is_long, monkeypatch):
    monkeypatch.setattr(compile, "_LONG_CALL_SECONDS", 0.001 if is_long else 100)
    call = async_jit(lambda x: jax.lax.fori_loop(0, 150, lambda _, y: jnp.tanh(y @ x), x))
    x = jnp.eye(300)
    call(x)
    first = call(x)
    time.sleep(0.02)  # outputs become ready one after the other
    assert first.is_ready() == is_long
    second = call(x)
    time.sleep(0.02)
    assert first.is_ready()
    assert second.is_ready() == is_long


def test_only_options_that_the_compiler_knows_are_used():
    options = [("xla_no_such_option", 1), compile.DETERMINISTIC]
    assert compile._select_supported(options) == {"xla_gpu_deterministic_ops": True}


def test_options_of_one_function_do_not_reach_another(monkeypatch):
    chosen = []
    monkeypatch.setattr(compile, "AsyncJit", lambda function, donate, compiler_options: chosen.append(compiler_options))
    async_jit(abs, deterministic=True)
    chosen[0]["added"] = True
    async_jit(abs, deterministic=True)
    async_jit(abs)
    assert chosen[1] == {"xla_gpu_deterministic_ops": True, **chosen[2]}
    assert "added" not in chosen[1]
    assert "xla_gpu_deterministic_ops" not in chosen[2]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what is compiled for a CPU")
def test_matrix_products_use_all_cores_and_elementwise_operations_stay_with_xla():
    images, weight = jnp.ones((64, 784)), jnp.ones((128, 784))
    step = async_jit(lambda _, images, weight: jnp.exp(images @ weight.T) + 1)
    program = step.lower(0, images, weight).compile().compiled.as_text()
    assert re.search(r"%ynn_fusion = f32\[64,128\]\S* fusion\(.*op_name=\"jit\(<lambda>\)/dot_general\"", program)
    assert re.search(r"fusion\(%ynn_fusion\), kind=kLoop", program)


def test_a_flat_jit_flattens_the_same_tree_once_and_compiles_one_program_per_structure():
    traced = []

    def apply(tree, array):
        traced.append(tree["name"])
        return tree["weight"] * array

    call, trees = FlatJit(apply), [{"weight": jnp.float32(number), "name": "a"} for number in (2, 3)]
    assert [float(call(tree, np.float32(5))) for tree in (trees[0], trees[1], trees[0])] == [10, 15, 10]
    assert traced == ["a"]
    assert float(call({**trees[0], "name": "b"}, np.float32(5))) == 10
    assert traced == ["a", "b"]
    # Traced arrays are not kept.
    assert float(jax.grad(lambda weight: call({"weight": weight, "name": "a"}, jnp.float32(5)))(2.0)) == 5
    assert call._thread.latest[0]["name"] == "b"
    assert float(jax.jit(lambda weight: call({"weight": weight, "name": "a"}, jnp.float32(5)))(4.0)) == 20
