"""Model cards, and the addresses of models on the Hub."""

import re
from pathlib import Path

import jax
import pytest
import yaml

import eqxcnn
from eqxcnn import catalog, zoo
from eqxcnn.catalog import families
from eqxcnn.errors import InputError
from eqxcnn.hub.card import build_card, describe_data
from eqxcnn.hub.trained import open_trained
from eqxcnn.hub_models import HubAddress, explain_problems, find_address, resolve_run
from eqxcnn.recipe import Recipe
from eqxcnn.recipe.files import to_yaml

ADDRESS = HubAddress("ann/digits")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a saved classifier with odd class names."""
    classifier = eqxcnn.load("lenet")
    names = ("a|b", "c`d`", "\x1b[31m", *map(str, range(3, 10)))
    folder = tmp_path_factory.mktemp("saved") / "model"
    eqxcnn.save(folder, eqxcnn.ImageClassifier(**{**vars(classifier), "class_names": names}))
    return folder


def write_run(saved, folder, rows, **settings):
    """Writes the folder of a run with a saved classifier, and returns it."""
    (folder / "model").mkdir(parents=True)
    for path in saved.iterdir():
        (folder / "model" / path.name).write_bytes(path.read_bytes())
    (folder / "recipe.yaml").write_text(to_yaml(Recipe(**settings)))
    (folder / "metrics.jsonl").write_text("".join(row + "\n" for row in rows))
    return folder


def card_of(run, license=None):
    with open_trained(run) as trained:
        return build_card(trained, ADDRESS, license)


def metadata_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_states_the_scores_the_data_and_the_settings(saved, tmp_path):
    rows = ['{"epoch": 1}', '{"test_accuracy": 0.875, "test_loss": 0.5, "test_count": 1200, "test_top_k_5": 0.99}']
    run = write_run(saved, tmp_path / "run", rows, data="cifar10", epochs=3, validation="test", test_views="mirror")
    card = card_of(run, "mit")
    assert metadata_of(card) == {
        "datasets": ["uoft-cs/cifar10"],
        "library_name": "eqxcnn",
        "license": "mit",
        "metrics": ["accuracy"],
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "jax", "equinox", "eqxcnn"],
        "model-index": [
            {
                "name": "digits",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": "cifar10", "type": "uoft-cs/cifar10"},
                        "metrics": [{"type": "accuracy", "value": 0.875}],
                    }
                ],
            }
        ],
    }
    assert "| accuracy | 87.50% |\n| loss | 0.5000 |\n| top_k_5 | 0.9900 |\n" in card
    assert "Measured on 1,200 images of the test split of `cifar10`" in card
    assert "averaged over the views `mirror`" in card
    assert "The same images were also used to measure progress" in card
    assert "| `epochs` | `3` |" in card
    assert "| size | 28 x 28 pixels |\n| channels | 1 (gray) |\n" in card
    assert "61,706 parameters" in card
    assert "`mit`" in card


def test_a_card_says_what_is_not_recorded(saved):
    card = card_of(saved)
    assert {"model-index", "license", "datasets", "metrics"} & set(metadata_of(card)) == set()
    for sentence in ("No test is recorded.", "The recipe is not recorded.", "The author has not stated a license."):
        assert sentence in card


def test_a_card_says_that_a_model_of_another_package_must_be_imported(tmp_path, monkeypatch):
    sentence = "import the module that registers it first"
    assert sentence not in card_of("mlp")
    monkeypatch.setattr(catalog, "_added", {})
    try:
        zoo.register("our_mlp", families()["mlp"][1])
        model, state = zoo.create_model("our_mlp", key=jax.random.key(0))
        ours = eqxcnn.ImageClassifier(**{**vars(eqxcnn.load("mlp")), "name": "our_mlp", "model": model, "state": state})
        eqxcnn.save(tmp_path, ours)
        assert sentence in card_of(tmp_path)
    finally:
        monkeypatch.undo()
        families.cache_clear()


def test_a_score_that_is_not_finite_is_left_out(saved, tmp_path):
    run = write_run(saved, tmp_path / "run", ['{"test_accuracy": NaN, "test_loss": NaN, "test_count": 0}'])
    card = card_of(run)
    assert "model-index" not in metadata_of(card)
    assert "No test is recorded." in card


def test_odd_names_do_not_break_the_card(saved):
    assert "scores: `a/b`, `c'd'`, `\\x1b[31m`, `3`" in card_of(saved)


@pytest.mark.parametrize(
    ("data", "described"),
    [
        ("mnist", ("mnist", "ylecun/mnist")),
        ("digits", ("digits", None)),
        ("org/animals", ("org/animals", "org/animals")),
        ("org/animals:small", ("org/animals:small", "org/animals")),
        ("/home/ann/animals", ("animals", None)),
        ("own", ("", None)),
    ],
)
def test_training_data_are_named_without_paths(data, described):
    assert describe_data(Recipe(data=data)) == described


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hub:ann/digits", HubAddress("ann/digits")),
        (Path("hub:ann/digits"), HubAddress("ann/digits")),
        ("hub:ann/a.b_c-d@v1.0", HubAddress("ann/a.b_c-d", "v1.0")),
        ("hub:ann/digits@refs/pr/1", HubAddress("ann/digits", "refs/pr/1")),
        ("ann/digits", None),
        ("lenet", None),
        (Path("runs/hub:x"), None),
    ],
)
def test_addresses_are_found(text, address):
    assert find_address(text) == address
    if address is not None:
        assert find_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["hub:", "hub:a", "hub:a/b/c", "hub:/b", "hub:a/", "hub:a/b@", "hub:../b", "hub:a/b.git", "hub:a/-b", "hub:a/b@-x",
     "hub:a/b@x..y", "hub:a/b@/etc", f"hub:a/{'b' * 95}", "hub:a/b@\x1b", "hub:a/b c"],
)  # fmt: skip
def test_invalid_addresses_are_refused(text):
    with pytest.raises(InputError, match=r"is not the name of a model|must be a branch, a tag or a commit hash"):
        eqxcnn.load(text)


def test_only_a_commit_hash_is_pinned():
    revisions = [None, "main", "a" * 39, "a" * 40, "A" * 40]
    assert [HubAddress("a/b", revision).is_pinned for revision in revisions] == [False, False, False, True, False]


def test_a_path_is_not_looked_up_on_the_hub():
    assert resolve_run("runs/x") == Path("runs/x")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("reset by peer."),
            "the Hugging Face Hub cannot be used for `ann/digits` (reset by peer): try",
        ),
        (ValueError("Invalid metadata\n- license"), "`ann/digits` (Invalid metadata - license): try"),
        (RuntimeError(), "`ann/digits` (RuntimeError): try"),
        (TimeoutError(), "`ann/digits` (TimeoutError): try"),
    ],
)
def test_errors_of_the_client_are_one_sentence(error, message):
    with pytest.raises(InputError, match=re.escape(message)), explain_problems(ADDRESS):
        raise error


@pytest.mark.parametrize("error", [InputError("mine"), OSError(28, "No space left on device", "a"), KeyError("bug")])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, explain_problems(ADDRESS):
        raise error
    assert caught.value is error
