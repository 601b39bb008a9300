import subprocess
import sys
import textwrap

import equinox as eqx
import jax
import pytest

from eqxcnn import models, registry, zoo
from eqxcnn.errors import InputError


def test_list_models_filters_by_wildcards_and_task():
    assert {"lenet", "mlp", "mnist_cnn", "cifar_cnn"} <= set(zoo.list_models())
    assert zoo.list_models("*_cnn") == sorted(zoo.list_models("*_cnn"))
    assert set(zoo.list_models("mnist*")) == {"mnist_cnn"}
    assert "cifar_cnn" in zoo.list_models(task="cifar")
    assert "lenet" not in zoo.list_models(task="cifar")
    with pytest.raises(InputError, match=r"`task` .='cifr'.*`cifar`"):
        zoo.list_models(task="cifr")


def test_unknown_name_gets_the_nearest():
    for call in (lambda: zoo.card("lenett"), lambda: zoo.create_model("lenett", key=jax.random.key(0))):
        with pytest.raises(InputError, match=r"no model named `lenett`; did you mean `lenet`"):
            call()


def test_card_of_lenet():
    card = zoo.card("lenet")
    assert (card.name, card.family, card.input, card.num_classes) == ("lenet", "lenet", (28, 28, 1), 10)
    assert card.params == 61_706
    # By hand: 28x28x6 outputs of 25 products, 10x10x16 of 150, then the three matrices.
    assert card.multiply_adds == 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dirac": "yes"}, r"`dirac` \(='yes'\) of `airbench94` must be of type `bool`"),
        ({"widths": 3}, r"`widths` \(=3\) of `airbench94` must be of type `tuple\[int, ...\]`"),
    ],
)
def test_a_keyword_of_the_wrong_type_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        zoo.create_model("airbench94", key=jax.random.key(0), **given)


def test_an_unknown_keyword_is_refused_by_name():
    with pytest.raises(InputError, match=r"`mnist_cnn` has no argument `hiden`; did you mean `hidden`"):
        zoo.create_model("mnist_cnn", hiden=3, key=jax.random.key(0))
    with pytest.raises(InputError, match=r"`resnet18` has no argument `num_class`; did you mean `num_classes`"):
        zoo.create_model("resnet18", num_class=3, key=jax.random.key(0))


def test_keywords_reach_the_architecture():
    model, _ = eqx.filter_eval_shape(zoo.create_model, "mnist_cnn", hidden=32, key=jax.random.key(0))
    assert model.fc1.out_features == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": -1}, "`num_classes` .=-1"),
        ({"in_channels": 0}, "`in_channels` .=0"),
        ({"image_size": 11}, "`image_size` .=11x11. is too small for `lenet`: the smallest size is 12x12"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        zoo.create_model("lenet", key=jax.random.key(0), **arguments)
    with pytest.raises(InputError, match=r"`pretrained`.*`nin`"):
        zoo.create_model("nin", pretrained=True, key=jax.random.key(0))


def test_a_new_file_in_models_is_found(tmp_path, monkeypatch):
    (tmp_path / "newnet.py").write_text(
        textwrap.dedent("""
        import dataclasses
        from eqxcnn.models.lenet import variants as lenet
        variants = {"newnet": dataclasses.replace(lenet["lenet"], recipe=None)}
        """)
    )
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    registry.families.cache_clear()
    try:
        assert "newnet" in zoo.list_models()
        model, _ = eqx.filter_eval_shape(zoo.create_model, "newnet", key=jax.random.key(0))
        assert model.fc2.out_features == 84
    finally:
        registry.families.cache_clear()
        sys.modules.pop("eqxcnn.models.newnet", None)


def test_a_model_with_a_file_of_its_name_is_found_without_importing_the_others():
    script = "from eqxcnn import registry; import sys; registry.variant('mlp'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in modules if name.startswith("eqxcnn.models.")] == ["eqxcnn.models.mlp"]
