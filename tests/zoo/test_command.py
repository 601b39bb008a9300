"""The output and the errors of `python -m eqxcnn.zoo`."""

import dataclasses
import sys

import pytest

from eqxcnn import zoo
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.weights.bundled import BUNDLED
from eqxcnn.weights.published import PUBLISHED
from eqxcnn.zoo.__main__ import format_preprocess, format_pretrained, format_training_time, main, parse_image_size


def run_zoo(capsys, *arguments):
    """Runs the command, and returns the words of each nonempty line of its output."""
    main(arguments)
    return [line.split() for line in capsys.readouterr().out.splitlines() if line.split()]


def test_list_shows_names_and_sizes(capsys):
    head, rule, *rows = run_zoo(capsys, "list", "*_cnn", "--task", "cifar")
    assert head == ["model", "task", "input", "parameters", "smallest", "size"]
    assert set("".join(rule)) <= {"─", "-"}
    assert rows == [["cifar_cnn", "cifar", "32x32x3", "1,070,794", "4"]]
    assert [row[0] for row in run_zoo(capsys, "list")[2:]] == zoo.list_models()


def test_list_traces_nothing(capsys, monkeypatch):
    monkeypatch.setattr("jax.make_jaxpr", lambda *_: pytest.fail("listing must be fast"))
    assert len(run_zoo(capsys, "list", "*")) > 2


def test_card_shows_all_facts(capsys):
    main(["card", "lenet"])
    facts = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {fact: value.strip() for fact, value in facts.items()} == {
        "model": "lenet",
        "family": "eqxcnn/models/lenet.py",
        "published for": "mnist",
        "input": "28x28x1",
        "classes": "10",
        "parameters": "61,706",
        "multiply-adds": "416,520",
        "smallest size": "12x12",
        "strides of feature maps": "2, 4",
        "source": "http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf",
        "recipe": "lenet",
        "torch twin": "none",
        "trained weights": format_pretrained(zoo.card("lenet").pretrained),
        "time of training": format_training_time(zoo.card("lenet").pretrained),
        "preprocessing": format_preprocess(zoo.card("lenet").preprocess),
    }


def with_training(**changes):
    """Returns the record of LeNet's weights with changed facts about the run."""
    row = BUNDLED["lenet"]
    return dataclasses.replace(row, training={**row.training, **changes})


def test_the_time_of_training_is_that_of_the_record():
    row = with_training(train_seconds=40.04, epochs=4, train_images_per_epoch=58_752)
    assert row.epoch_seconds == pytest.approx(10.01)
    assert with_training(train_seconds=40.04, epochs=4, epoch_seconds_median=9.0).epoch_seconds == 9
    assert format_training_time(row) == "10.0 s per epoch of 58,752 images, 4 epochs, on AMD EPYC, cores: 2"
    for unknown in (with_training(train_seconds=None), PUBLISHED["resnet18"], None):
        assert format_training_time(unknown) == "not recorded"


def test_list_of_trained_weights_shows_accuracy_data_recipe_and_seconds(capsys, monkeypatch):
    for name, row in (
        ("lenet", with_training(train_seconds=40.04, epochs=4)),
        ("mlp", with_training(epochs=None, train_seconds=None)),
    ):
        monkeypatch.setitem(PUBLISHED, name, row)
    head, _, *rows = run_zoo(capsys, "list", "--pretrained")
    assert head[4:] == ["weights", "test", "data", "accuracy", "recipe", "s/epoch"]
    shown = {row[0]: row[4:] for row in rows}
    assert shown["lenet"] == ["this", "package", "mnist", "99.47%", "lenet_best", "10.0"]
    assert shown["mlp"][-1] == "-"
    assert shown["resnet18"] == ["timm/resnet18.tv_in1k", "-", "-", "-", "-"]


def test_card_shows_the_preprocessing_on_one_line(capsys):
    main(["card", "vit_b_16"])
    assert capsys.readouterr().out.splitlines()[-1].split("  ")[-1].strip() == (
        "224x224x3, crop of 0.9, bicubic, mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    )


def test_summary_has_one_line_per_layer_and_the_totals(capsys):
    arguments = ("--image-size", "64x48", "--in-channels", "3", "--num-classes", "2")
    lines = run_zoo(capsys, "summary", "lenet", *arguments)
    head, *rows, total = (line for line in lines if set(line[0]) != {"─"})
    assert head == ["layer", "class", "output", "calls", "parameters", "multiply-adds"]
    assert rows[0] == ["conv1", "Conv", "64x48x6", "1", "456", "1,382,400"]
    assert [row[0] for row in rows] == ["conv1", "pool", "conv2", "fc1", "fc2", "head"]
    sums = [sum(int(row[column].replace(",", "")) for row in rows) for column in (-2, -1)]
    assert total == ["total", *(f"{value:,}" for value in sums)]


def test_rows_are_not_wrapped_in_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    assert ["cifar_cnn", "cifar", "32x32x3", "1,070,794", "4"] in run_zoo(capsys, "list", "cifar_cnn")


@pytest.mark.parametrize(("text", "size"), [("64", 64), ("64x48", (64, 48))])
def test_image_sizes_are_parsed(text, size):
    assert parse_image_size(text) == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "zz*"), "no model matches `zz*`"),
        (("list", "lenet", "--task", "cifar"), "no model matches `lenet` for cifar"),
        (("list", "--task", "cifr"), "`task` (='cifr')"),
        (("card", "lenett"), "no model named `lenett`; did you mean `lenet`"),
        (("summary", "lenett"), "no model named `lenett`; did you mean `lenet`"),
        (("summary", "lenet", "--image-size", "8"), "`image_size` (=8x8) is too small for `lenet`"),
        *(
            (("summary", "lenet", "--image-size", size), f"`--image-size` (={size!r}) must be")
            for size in ("8x", "x", "64x48x3", "big", "1.5")
        ),
    ],
)
def test_errors_are_one_sentence(arguments, message, capsys, monkeypatch):
    with pytest.raises(InputError):
        main(arguments)
    monkeypatch.setattr(sys, "argv", ["zoo", *arguments])
    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
