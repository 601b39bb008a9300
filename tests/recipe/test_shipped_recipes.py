"""The recipes that come with the package: what their files say, whom they serve, and that each can start."""

import re
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
from eqxcnn.registry import families, variant
from eqxcnn.training import Recipe, list_recipes, load_recipe, prepare
from eqxcnn.training.step import train_steps

every_recipe = pytest.mark.parametrize("name", list_recipes())
#: Deep networks, whose steps take seconds to trace; the zoo's own tests trace each family in any case.
DEEP = (
    "densenet_bc_100_12", "efficientnet_b0_catsdogs", "googlenet_catsdogs", "preact_resnet110", "preact_resnet164",
    "resnet110", "resnet56", "wrn_40_4",
)  # fmt: skip
#: Of each data set: height, width and channels of the images here, and how many classes there are.
SIZES = {"mnist": (28, 28, 1, 10), "cifar10": (32, 32, 3, 10), "cats_vs_dogs": (40, 52, 3, 2)}


@every_recipe
def test_a_recipe_opens_with_its_command_its_source_and_its_score(name):
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    assert re.match(r"# \w", text)
    assert re.search(rf"^#     python -m eqxcnn\.train --recipe {name}\b", text, re.MULTILINE)
    said = read_comment(name)
    # A paper and its year, a write-up, or another recipe that has one of these.
    others = [other for other in re.findall(r"`(\w+)`", said) if other in list_recipes()]
    assert re.search(r"[A-Z]\w+ (et al\. )?(19|20)\d\d, \"|write-up", said) or others
    measured = re.findall(r"docs/(results|benchmarks)\.md", said)
    published = re.search(r"\d %.* which was not reproduced here\.", said)
    assert bool(measured) + bool(published) + ("there is no score to compare with" in said) == 1
    for page_name in measured:
        assert name in re.findall(r"\w+", (ROOT / "docs" / f"{page_name}.md").read_text(encoding="utf-8"))
    assert extract_score(name)
    assert len(split_sentences(said)[0]) < 300


@every_recipe
def test_a_recipe_has_settings_that_there_are_each_once(name):
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    assert len(keys) == len(set(keys))
    assert set(keys) == set(yaml.safe_load(text)) <= {field.name for field in fields(Recipe)}
    recipe = load_recipe(name)
    assert recipe.model in zoo.list_models()
    assert recipe.data in SOURCES
    assert recipe.epochs is not None
    assert all(each < recipe.epochs for each in recipe.decay_milestones)
    # Where a paper's training is followed, its loss is: smoothing is on unless a recipe turns it off.
    assert "label_smoothing" in keys


@every_recipe
def test_the_card_of_a_recipes_model_names_a_recipe(name):
    assert variant(load_recipe(name).model).recipe


def test_every_family_has_a_recipe_or_a_reason_for_none():
    trained = {families()[load_recipe(name).model][0] for name in list_recipes()}
    assert {family for family, _ in families().values()} - trained == set(WITHOUT)
    # None of those has a variant for small images.
    assert {row.task for family, row in families().values() if family in WITHOUT} == {"imagenet"}


@pytest.mark.slow
def test_the_reasons_for_none_are_so():
    def cost(model, side):
        return sum(row.multiply_adds for row in zoo.summary(model, image_size=side))

    base = cost("efficientnet_b0", 64)
    assert (
        min(row.params for family, row in families().values() if family == "convnext")
        == variant("convnext_tiny").params
    )
    assert min(row.params for family, row in families().values() if family == "swin") == variant("swin_t").params
    assert cost("convnext_tiny", 64) > 10 * base
    assert cost("swin_t", 64) > 20 * base
    assert variant("inception_v3").smallest == 75
    others = [load_recipe(name) for name in list_recipes() if load_recipe(name).image_size == (64, 64)]
    assert cost("inception_v3", 75) > max(cost(recipe.model, 64) for recipe in others)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Of each data set, a folder with four pictures a class."""
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
    "name", [pytest.param(name, marks=pytest.mark.slow if name in DEEP else ()) for name in list_recipes()]
)
def test_a_recipe_can_start(name, tiny, monkeypatch):
    # A function that is traced inside another one takes no compiler options.
    monkeypatch.setattr("eqxcnn.training.preparation.jit_once", eqx.filter_jit)
    recipe = load_recipe(name)
    height, width, channels, classes = SIZES[recipe.data]
    small = replace(
        recipe, data=str(tiny / recipe.data), batch_size=4, steps_per_call=1, train_images=None,
        init_images=min(recipe.init_images, 4),
    )  # fmt: skip
    jobs = []

    def first_step():
        jobs.append(prepare(small))
        return train_steps(jobs[0].setup, jobs[0].make_start(), jnp.asarray(next(jobs[0].batches(0, 0))))

    # Traced from the first weights on: nothing is compiled or computed.
    after = eqx.filter_eval_shape(first_step)
    (job,) = jobs
    assert job.image_size == (recipe.image_size or (height, width))
    assert (job.info.channels, len(job.info.class_names)) == (channels, classes)
    before, after = (
        [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(train) if isinstance(leaf, jax.ShapeDtypeStruct)]
        for train in (job.template, after)
    )
    assert before == after


def test_the_page_is_what_the_files_say():
    written = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert written == render_page(), "bring it up to date: python -m benchmarks.recipes_page > docs/recipes.md"
    assert all(f"| `{name}` |" in written for name in list_recipes())


def test_sentences_end_where_they_end():
    text = (
        "A net. Lin et al. 2014 (arXiv:1312.4400), report 8.81 % (table 1); not here. See docs/x.md. `a` is 0.5 wide."
    )
    ends = ["A net.", "Lin et al. 2014 (arXiv:1312.4400), report 8.81 % (table 1); not here.", "See docs/x.md."]
    assert split_sentences(text) == [*ends, "`a` is 0.5 wide."]
