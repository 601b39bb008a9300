import dataclasses

import pytest

from eqxcnn import zoo
from eqxcnn.errors import InputError
from eqxcnn.recipe.files import to_yaml
from eqxcnn.recipe.recipe import GROUPS
from eqxcnn.recipe.settings_page import docstrings
from eqxcnn.registry import variant
from eqxcnn.training import Recipe, list_recipes, load_recipe


def test_every_shipped_recipe_loads():
    assert "lenet" in list_recipes()
    for name in list_recipes():
        assert load_recipe(name).model


def test_recipes_named_by_model_cards_train_their_model():
    for name in zoo.list_models():
        if recipe := variant(name).recipe:
            assert load_recipe(recipe).model == name


def test_yaml_round_trip(tmp_path):
    recipe = Recipe(
        model="cifar_cnn", epochs=3, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), image_size=(32, 48),
        augment=("flip_horizontal", "random_crop(padding=2)"), weight_decay=5e-4, shuffle=False,
    )  # fmt: skip
    path = tmp_path / "r.yaml"
    path.write_text(to_yaml(recipe))
    assert load_recipe(path) == recipe


def test_yaml_numbers_in_every_notation(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("learning_rate: 1e-3\nweight_decay: 0\nmean: [0, 1]\nstd: [1, 5e-1]\nimage_size: [28, 30]\n")
    recipe = load_recipe(path)
    assert (recipe.learning_rate, recipe.weight_decay) == (1e-3, 0.0)
    assert (recipe.mean, recipe.std, recipe.image_size) == ((0.0, 1.0), (1.0, 0.5), (28, 30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("validation: tset", "`validation` .='tset'. must be a number or one of 'test'"),
        ("learnign_rate: 1", "`learnign_rate` in the recipe .* is not a setting; did you mean `learning_rate`"),
        ("model: lenett", "no model named `lenett`; did you mean `lenet`"),
        ("epochs: many", "`epochs` .='many'. must be a number or nothing"),
        ("optimizer: adm", "`optimizer` .='adm'. must be one of 'adam', 'adamw', 'lamb'"),
        ("test_views: two", "`test_views` .='two'. must be one of 'one', 'mirror', 'mirror_and_shifts'"),
        ("precision: bf17", "`precision` .='bf17'. must be one of 'float32', 'bf16'"),
        ("image_size: [28]", "`image_size`.*a list of 2, each a whole number"),
        ("augment: [1]", "`augment`.*a list, each a string"),
        ("architecture: [widths]", "`architecture` .='widths'. cannot be read: write `argument=value`"),
        (
            "architecture: [use_bias=os.name]",
            "`use_bias` in `architecture` .='os.name'. is not a number, a string in quotes",
        ),
        ("architecture: [hidden=1, hidden=2]", "`architecture` .='hidden=2'. .* each argument once"),
        ("architecture: [hiden=1]", "`lenet` has no argument `hiden`"),
        ("- 1", "must hold lines such as"),
        ("a: [", "is not valid YAML"),
        ("learning_rate: 1" + "0" * 400, "a number has 401 characters: write at most 30"),
    ],
)
def test_invalid_yaml_is_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


def test_missing_recipe_error_suggests_the_nearest():
    with pytest.raises(InputError, match=r"no recipe named `lenett`; did you mean `lenet`"):
        load_recipe("lenett")
    with pytest.raises(InputError, match=r"`nowhere\.yaml` cannot be read: No such file"):
        load_recipe("nowhere.yaml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": -1.0}, "`learning_rate` .=-1.0. must be above 0"),
        ({"learning_rate": float("nan")}, "`learning_rate` .=nan. must be above 0"),
        ({"batch_size": 0}, "`batch_size` .=0. must be from 1 to 1000000"),
        ({"epochs": 0}, "`epochs` .=0. must be above 0"),
        ({"validation": 1.0}, "`validation` .=1.0. must be 0 or more and below 1"),
        ({"train_images": 0}, "`train_images` .=0. must be from 1 to"),
        ({"seed": -1}, r"`seed` .=-1. must be from 0 to 4294967295"),
        ({"seed": 2**32}, r"`seed` .=4294967296. must be from 0 to 4294967295"),
        ({"mean": (0.5,)}, "`mean` and `std` go together"),
        ({"mean": (0.5,), "std": (0.0,)}, "`std` .=.0.0,.. must be from 0.0001 to 1000 in every item"),
        ({"image_size": (8, 8)}, "`image_size` .=8x8. is too small for `lenet`.*12x12; for a network that you pass"),
        ({"warmup_fraction": 1.0}, "`warmup_fraction` .=1.0. must be 0 or more and below 1"),
        ({"lookahead_every": -1}, "`lookahead_every` .=-1. must be from 0 to"),
        (
            {"schedule": "constant", "final_lr_factor": 0.5},
            "`final_lr_factor` .=0.5. needs a schedule that falls",
        ),
        ({"schedule": "step", "final_lr_factor": 0.5}, "`schedule` .='step'. does not"),
        ({"schedule": "multistep"}, "`decay_milestones` is empty"),
        ({"layer_decay": 1.5}, "`layer_decay` .=1.5. must be above 0 and at most 1"),
        ({"clip_norm": -1.0}, "`clip_norm` .=-1.0. must be from 0 to"),
        ({"batch_size": True}, "`batch_size` .=True. must be a whole number"),
    ],
)
def test_invalid_values_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Recipe(**values)


def test_every_setting_has_a_docstring():
    texts = {name: text for group in GROUPS.values() for name, text in docstrings(group).items()}
    assert list(texts) == [field.name for field in dataclasses.fields(Recipe)]
    assert all(text.endswith(".") for text in texts.values())


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("warmup_share", "warmup_fraction", 0.2),
        ("first_factor", "initial_lr_factor", 0.5),
        ("last_factor", "final_lr_factor", 0.1),
        ("mix_switch", "mix_switch_probability", 0.3),
    ],
)
def test_old_setting_names_load_with_a_warning(tmp_path, old, new, value):
    path = tmp_path / "r.yaml"
    path.write_text(f"schedule: linear\n{old}: {value}\n")
    with pytest.warns(FutureWarning, match=f"`{old}` .* is now called `{new}`"):
        assert load_recipe(path) == Recipe(schedule="linear", **{new: value})
    path.write_text(f"{old}: {value}\n{new}: {value}\n")
    both = f"sets both `{new}` and its old name `{old}`: keep one"
    with pytest.raises(InputError, match=both), pytest.warns(FutureWarning):
        load_recipe(path)
    path.write_text(f"{new}: {value}\n{old}: {value}\n")
    with pytest.raises(InputError, match=both):
        load_recipe(path)
