import json
from dataclasses import replace

import pytest

from benchmarks import airbench_parts
from benchmarks.airbench_parts import PARTS, TrainingResult
from eqxcnn.errors import InputError
from eqxcnn.training import load_recipe

WHOLE = load_recipe("airbench94").replace(
    model="airbench94_narrow", batch_size=256, learning_rate=0.375, precision="float32"
)


def test_each_part_is_the_only_one_left_out():
    frozen = ("whiten.weight=0", "whiten.bias=1 for 3 epochs")
    assert WHOLE.learning_rate_factors == (*frozen, "*norm*.bias=64")
    recipes = {part: replace(WHOLE, **changes) for part, changes in PARTS.items()}
    assert recipes["whitening"] == replace(WHOLE, init_images=0, learning_rate_factors=("*norm*.bias=64",))
    assert recipes["bias learning rate x64"] == replace(WHOLE, learning_rate_factors=frozen)
    assert recipes["alternating flip"].augment == ("flip_horizontal", WHOLE.augment[1])
    assert WHOLE.augment[0] == "alternating_flip"
    assert (WHOLE.lookahead_every, WHOLE.test_views) == (5, "mirror_and_shifts")


def test_a_line_for_each_part_of_means_over_the_seeds(tmp_path, monkeypatch):
    trained = []

    def train(recipe):
        trained.append(recipe)
        lost = 0 if recipe.lookahead_every else 2
        return TrainingResult(100.0 + recipe.seed, 80.0 - lost + recipe.seed, 79.0 - lost + recipe.seed)

    monkeypatch.setattr(airbench_parts, "train", train)
    out = tmp_path / "parts.json"
    flags = ["--data", "digits", "--epochs", "1", "--seeds", "2", "--parts", "lookahead"]
    airbench_parts.main([*flags, "--out", str(out)])
    whole = replace(WHOLE, data="digits", epochs=1.0)
    without = replace(whole, lookahead_every=0)
    assert trained == [whole, replace(whole, seed=1), without, replace(without, seed=1)]
    (table,) = json.loads(out.read_text())["tables"]
    assert table["lines"] == [
        ["nothing", "80.50", "-", "79.50", "1.00", "100"],
        ["lookahead", "78.50", "2.00", "77.50", "1.00", "100"],
    ]


@pytest.mark.slow
def test_a_run_is_tested_with_all_views_and_with_one():
    recipe = replace(WHOLE, data="digits", init_images=1000, batch_size=64, epochs=1.0, train_images=1100)
    recipe = replace(recipe, mean=(0.3,), std=(0.4,), architecture=("widths=(8, 8, 8)",))
    seconds, accuracy, one_view = airbench_parts.train(recipe)
    assert 1 < seconds < 100
    assert 0 <= accuracy != one_view <= 100


@pytest.mark.parametrize(
    ("flag", "message"), [("--parts", "`parts` \\(='x'\\) must be among"), ("--seeds", "must be 1 or more")]
)
def test_invalid_flags_are_refused(flag, message):
    with pytest.raises(InputError, match=message):
        airbench_parts.main([flag, {"--parts": "x", "--seeds": "0"}[flag]])
