"""Tests of the shipped recipes: their comments, their models, the recipes page and the first step of each."""

import re
import warnings
from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.recipes_page import (
    RECIPES,
    ROOT,
    WITHOUT,
    extract_score,
    read_comment,
    render_page,
    split_sentences,
)  # fmt: skip
from eqxcnn import zoo
from eqxcnn.data import SOURCES
from eqxcnn.recipe.command_line import parse_flags
from eqxcnn.registry import families, variant
from eqxcnn.training import Recipe, list_recipes, load_recipe, prepare
from eqxcnn.training.step import train_steps

parametrize_recipes = pytest.mark.parametrize("name", list_recipes())
#: Fewer layers for deep networks, whose steps take seconds to trace: all blocks of a stage are alike.
SHALLOW = {
    "densenet_40_12": "layers=(2, 2, 2)",
    "densenet_bc_100_12": "layers=(2, 2, 2)",
    "preact_resnet110": "depths=(1, 1, 1)",
    "preact_resnet164": "depths=(1, 1, 1)",
    "resnet56": "depth=1",
    "resnet110": "depth=1",
    "wrn_40_4": "depths=(1, 1, 1)",
}
#: Deep networks whose depth is no argument. `tests/models/test_lowering.py` traces the steps of all families.
DEEP = (
    "efficientnet_b0_catsdogs", "googlenet_catsdogs", "mnasnet0_5_catsdogs", "mobilenet_v3_small_catsdogs",
    "regnet_y_400mf_catsdogs",
)  # fmt: skip
#: Recipes that differ from another one in the depth or width of the network.
ALIKE = ("densenet_bc_100_12", "preact_resnet164", "resnet56", "resnet110", "wrn_16_8", "wrn_28_10")
#: Image height, width, channels and number of classes used here for each data set.
SIZES = {"mnist": (28, 28, 1, 10), "cifar10": (32, 32, 3, 10), "cats_vs_dogs": (40, 52, 3, 2)}


@parametrize_recipes
def test_recipe_comment_has_command_source_and_score(name):
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    assert re.match(r"# \w", text)
    assert re.search(rf"^#     python -m eqxcnn\.train --recipe {name}\b", text, re.MULTILINE)
    comment = read_comment(name)
    # A paper with its year, a write-up, or another recipe that cites one of these.
    others = [other for other in re.findall(r"`(\w+)`", comment) if other in list_recipes()]
    assert re.search(r"[A-Z]\w+ (et al\. )?(19|20)\d\d, \"|write-up", comment) or others
    measured = re.findall(r"docs/(results|benchmarks|zoo)\.md", comment)
    published = re.search(r"\d %.* which was not reproduced here\.", comment)
    assert bool(measured) + bool(published) + ("there is no score to compare with" in comment) == 1
    for page_name in measured:
        assert name in re.findall(r"\w+", (ROOT / "docs" / f"{page_name}.md").read_text(encoding="utf-8"))
    assert extract_score(name)
    assert len(split_sentences(comment)[0]) < 300


@parametrize_recipes
def test_recipe_settings_exist_and_are_unique(name):
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    assert len(keys) == len(set(keys))
    assert set(keys) == set(yaml.safe_load(text)) <= {field.name for field in fields(Recipe)}
    recipe = load_recipe(name)
    assert recipe.model in zoo.list_models()
    assert recipe.data in SOURCES
    assert recipe.epochs is not None
    assert all(milestone < recipe.epochs for milestone in recipe.decay_milestones)
    # Label smoothing is on by default, so a recipe that follows a paper must set it explicitly.
    assert "label_smoothing" in keys


@parametrize_recipes
def test_model_card_of_a_recipe_names_a_recipe(name):
    assert variant(load_recipe(name).model).recipe


def test_every_family_has_a_recipe_or_a_stated_reason():
    trained = {families()[load_recipe(name).model][0] for name in list_recipes()}
    assert {family for family, _ in families().values()} - trained == set(WITHOUT)
    # Families without a recipe have no variant for small images.
    assert {row.task for family, row in families().values() if family in WITHOUT} == {"imagenet"}


@pytest.mark.exhaustive
def test_stated_reasons_for_missing_recipes_hold():
    def count_multiply_adds(model, side):
        return sum(row.multiply_adds for row in zoo.summary(model, image_size=side))

    base = count_multiply_adds("efficientnet_b0", 64)
    assert (
        min(row.params for family, row in families().values() if family == "convnext")
        == variant("convnext_tiny").params
    )
    assert min(row.params for family, row in families().values() if family == "swin") == variant("swin_t").params
    assert count_multiply_adds("convnext_tiny", 64) > 10 * base
    assert count_multiply_adds("swin_t", 64) > 20 * base
    assert variant("inception_v3").smallest == 75
    others = [load_recipe(name) for name in list_recipes() if load_recipe(name).image_size == (64, 64)]
    assert count_multiply_adds("inception_v3", 75) > max(count_multiply_adds(recipe.model, 64) for recipe in others)


@pytest.fixture(scope="module")
def tiny_data_sets(tmp_path_factory):
    """For each data set, a folder with four images per class."""
    root, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    for data, (height, width, channels, classes) in SIZES.items():
        for label in range(classes):
            folder = root / data / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
                Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.exhaustive if name in DEEP + ALIKE else ()) for name in list_recipes()],
)
def test_recipe_can_start(name, tiny_data_sets, monkeypatch):
    # A jitted function takes no compiler options when another function traces it.
    monkeypatch.setattr("eqxcnn.training.preparation.jit_once", eqx.filter_jit)
    recipe = load_recipe(name)
    height, width, channels, classes = SIZES[recipe.data]
    small = replace(
        recipe, architecture=(*recipe.architecture, *([SHALLOW[name]] if name in SHALLOW else [])),
        data=str(tiny_data_sets / recipe.data), batch_size=4, steps_per_call=1, train_images=None,
        init_images=min(recipe.init_images, 4), init_from=None,  # tests/training/test_warm_start.py
    )  # fmt: skip
    jobs = []

    def run_first_step():
        jobs.append(prepare(small))
        return train_steps(jobs[0].setup, jobs[0].make_start(), jnp.asarray(next(jobs[0].batches(0, 0))))

    # Traces initialization and the first step; nothing is compiled or computed.
    after = eqx.filter_eval_shape(run_first_step)
    (job,) = jobs
    assert job.image_size == (recipe.image_size or (height, width))
    assert (job.info.channels, len(job.info.class_names)) == (channels, classes)
    before, after = (
        [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(train) if isinstance(leaf, jax.ShapeDtypeStruct)]
        for train in (job.template, after)
    )
    assert before == after


def test_recipes_page_is_up_to_date():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert page == render_page(), "bring it up to date: python -m benchmarks.recipes_page > docs/recipes.md"
    assert all(f"| `{name}` |" in page for name in list_recipes())


def test_split_sentences_ignores_periods_in_abbreviations_and_numbers():
    text = (
        "A net. Lin et al. 2014 (arXiv:1312.4400), report 8.81 % (table 1); not here. See docs/x.md. `a` is 0.5 wide."
    )
    ends = ["A net.", "Lin et al. 2014 (arXiv:1312.4400), report 8.81 % (table 1); not here.", "See docs/x.md."]
    assert split_sentences(text) == [*ends, "`a` is 0.5 wide."]


def test_a_part_of_an_epoch_is_parsed_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_flags(["--recipe", "airbench94"]).schedule.epochs == 9.9
