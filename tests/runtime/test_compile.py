"""What `compiled` adds to `eqx.filter_jit`: it does not wait for what it has begun, and chooses who multiplies."""

import re
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxcnn.runtime import compile
from eqxcnn.runtime.compile import async_jit


class Pair(eqx.Module):
    value: jax.Array
    words: str
    function: object


def test_what_is_no_array_goes_in_and_comes_out():
    traced = []

    def step(first, pair, batch):
        traced.append(pair.words)
        return Pair(pair.function(pair.value) * first + batch, pair.words + "!", jnp.cos), None

    call = async_jit(step)
    out, nothing = call(2.0, Pair(jnp.zeros(3), "a", jnp.sin), np.ones(3, np.float32))
    np.testing.assert_array_equal(out.value, np.ones(3))
    assert (out.words, out.function, nothing) == ("a!", jnp.cos, None)
    again, _ = call(2.0, Pair(jnp.zeros(3), "a", jnp.sin), np.zeros(3, np.float32))
    np.testing.assert_array_equal(again.value, np.zeros(3))
    other, _ = call(3.0, Pair(jnp.full(3, 0.5), "b", jnp.sin), np.zeros(3, np.float32))
    np.testing.assert_allclose(other.value, 3 * np.sin(np.full(3, 0.5)), rtol=1e-6)
    assert traced == ["a", "b"]


def test_trees_that_are_known_are_not_taken_apart_again_and_others_are(monkeypatch):
    taken, split = [], compile._split
    call = async_jit(lambda first, pair, batch: eqx.tree_at(lambda p: p.value, pair, pair.value * first + batch))
    first, second, batch = jnp.float32(1), jnp.float32(2), np.float32(1)
    made = call(first, Pair(jnp.float32(3), "a", None), batch)
    monkeypatch.setattr(compile, "_split", lambda tree: taken.append(tree) or split(tree))
    assert float(call(first, made, batch).value) == 5
    assert taken == [batch]
    # The last one is known, the one before is not; nor is another first argument.
    assert float(call(second, made, batch).value) == 9
    assert [each is made or each is second for each in taken] == [False, True, True, False]


@pytest.mark.parametrize("donate", [False, True])
def test_memory_is_used_again_where_it_was_given_away(donate):
    kept, given = jnp.ones(1000), jnp.ones(1000)
    async_jit(lambda kept, given: kept + given, donate=donate)(kept, given)
    assert (kept.is_deleted(), given.is_deleted()) == (False, donate)


@pytest.mark.parametrize("is_long", [False, True])
def test_a_call_waits_for_the_one_before_and_for_itself_if_that_takes_long(is_long, monkeypatch):
    monkeypatch.setattr(compile, "_LONG", 0.001 if is_long else 100)
    call = async_jit(lambda x: jax.lax.fori_loop(0, 100, lambda _, each: jnp.tanh(each @ x), x))
    x = jnp.eye(500)
    call(x)
    first = call(x)
    time.sleep(0.02)  # the outputs are told to be there one after the other
    assert first.is_ready() == is_long
    second = call(x)
    time.sleep(0.02)
    assert first.is_ready()
    assert second.is_ready() == is_long


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what is compiled for a CPU")
def test_matrix_products_go_to_the_library_that_has_them_on_all_cores_and_elementwise_operations_do_not():
    images, weight = jnp.ones((64, 784)), jnp.ones((128, 784))
    step = async_jit(lambda _, images, weight: jnp.exp(images @ weight.T) + 1)
    program = step.lower(0, images, weight).compile().compiled.as_text()
    assert re.search(r"%ynn_fusion = f32\[64,128\]\S* fusion\(.*op_name=\"jit\(<lambda>\)/dot_general\"", program)
    assert re.search(r"fusion\(%ynn_fusion\), kind=kLoop", program)
