"""`inspect_data` and `python -m eqxcnn.data`: exact counts for hand-made folders and tables."""

import dataclasses
import io
import json
import sys
import tracemalloc

import datasets
import numpy as np
import pytest
from PIL import Image

from eqxcnn.cli import run_command
from eqxcnn.data import from_dataset, open_source, scan
from eqxcnn.data.__main__ import main
from eqxcnn.data.contact_sheet import CELL, NAME_WIDTH, draw_contact_sheet
from eqxcnn.data.inspect import inspect_data
from eqxcnn.data.inspect_records import ImageRow, Sizes, SplitUse
from eqxcnn.errors import InputError

DARK, BLUE, RED, BLACK = (10, 20, 30), (40, 50, 60), (200, 10, 10), (0, 0, 0)


@pytest.fixture
def folder(tmp_path, draw):
    """Nine training images, one of them unreadable, and three test images, two of which are training images too."""
    root = tmp_path / "mixed"
    draw(root / "train/a/0.png", DARK)
    draw(root / "train/a/1.png", BLUE)
    draw(root / "train/a/2.png", DARK)
    draw(root / "train/a/3.png", 100)
    # The second frame repeats another image, but only the first one counts.
    frames = [Image.new("RGB", (6, 4), color) for color in (RED, DARK)]
    frames[0].save(root / "train/a/4.gif", save_all=True, append_images=frames[1:])
    draw(root / "train/b/0.png", BLACK, size=(1, 9))
    Image.fromarray(np.full((4, 6), 25_700, np.uint16)).save(root / "train/b/1.png")
    (root / "train/b/2.png").write_bytes((root / "train/a/0.png").read_bytes()[:-24])
    Image.new("RGB", (6, 4), BLUE).save(root / "train/b/3.bmp")
    draw(root / "test/a/0.png", BLUE)
    draw(root / "test/b/0.png", (1, 2, 3), size=(8, 5))
    draw(root / "test/b/1.png", DARK)
    return root


@pytest.fixture
def report(folder):
    return inspect_data(open_source(str(folder)), progress=False)


def test_splits_columns_and_classes(report):
    assert report.splits == (SplitUse("train", 9, "train"), SplitUse("test", 3, "test"))
    assert [(each.name, each.type, each.role) for each in report.columns] == [
        ("image", "Image", "image"),
        ("label", "ClassLabel, 2 classes", "label"),
    ]
    assert report.class_names == ("a", "b")
    assert {name: part.class_counts for name, part in report.parts.items()} == {"train": (5, 4), "test": (1, 2)}


def test_images_of_every_kind_are_counted(report, folder):
    train = report.parts["train"]
    assert (train.rows, train.decoded, train.gray, train.color, train.unlabeled) == (9, 9, 2, 6, 0)
    # The strip has fewer pixels than the other seven.
    assert train.sizes == Sizes(2, (9, 1), (4, 6), (4, 6), (((4, 6), 7), ((9, 1), 1)))
    assert [tuple(bad) for bad in train.unreadable] == [(7, str(folder / "train/b/2.png"), "the file is truncated")]
    assert report.parts["test"].sizes == Sizes(2, (4, 6), (4, 6), (5, 8), (((4, 6), 2), ((5, 8), 1)))


def test_repeats_are_counted_by_file_and_by_pixels(report):
    counts = {kind: (each.same_file, each.same_pixels) for kind, each in report.repeats.items()}
    # 16-bit gray, and a bitmap, have the pixels of other files. `conflicting` counts all rows of such an image.
    assert counts == {"train": (1, 3), "test": (0, 0), "leaked": (2, 2), "conflicting": (3, 8)}


def test_examples_name_the_rows(report, folder):
    def row(split, number, name):
        numbers = {"train": {"a": 0, "b": 5}, "test": {"a": 0, "b": 1}}[split]
        file = next((folder / split / name).glob(f"{number - numbers[name]}.*"))
        return ImageRow(split, number, name, str(file))

    assert report.repeats["train"].examples == (
        (row("train", 0, "a"), row("train", 2, "a")),
        (row("train", 3, "a"), row("train", 6, "b")),
        (row("train", 1, "a"), row("train", 8, "b")),
    )
    assert report.repeats["leaked"].examples == (
        (row("train", 1, "a"), row("train", 8, "b"), row("test", 0, "a")),
        (row("train", 0, "a"), row("train", 2, "a"), row("test", 2, "b")),
    )
    assert (row("train", 3, "a"), row("train", 6, "b")) in report.repeats["conflicting"].examples


def test_mean_and_std_are_those_of_the_resized_training_images(report):
    # Every image has one color, which resizing keeps; the unreadable one is left out.
    colors = np.array([DARK, BLUE, DARK, (100, 100, 100), RED, BLACK, (100, 100, 100), BLUE]) / 255
    assert report.pixels.size == (64, 64)
    np.testing.assert_allclose(report.pixels.mean, colors.mean(0), rtol=1e-12)
    np.testing.assert_allclose(report.pixels.std, colors.std(0), rtol=1e-12)


def test_mean_and_std_at_a_requested_size_equal_those_of_the_decoded_split():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 9, 3), np.uint8)
    features = datasets.Features(image=datasets.Array3D((8, 9, 3), "uint8"), label=datasets.Value("int64"))
    opened = from_dataset(datasets.Dataset.from_dict({"image": list(images), "label": [0, 1] * 10}, features=features))
    for size, expected in ((None, (8, 9)), ((5, 12), (5, 12))):
        pixels = inspect_data(opened, image_size=size, progress=False).pixels
        decoded = opened.decode("train", image_size=size, progress=False).images / 255
        assert pixels.size == expected
        np.testing.assert_allclose(pixels.mean, decoded.mean((0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(pixels.std, decoded.std((0, 1, 2)), rtol=1e-12)


def test_the_result_does_not_depend_on_the_size_of_the_chunks(folder, report, monkeypatch):
    monkeypatch.setattr(scan, "_CHUNK_ROWS", 2)
    assert inspect_data(open_source(str(folder)), progress=False) == report


def test_a_held_out_part_is_compared_with_the_rest_of_its_split():
    images = [np.full((2, 3, 1), value, np.uint8) for value in (5, 6) for _ in range(10)]
    features = datasets.Features(image=datasets.Array3D((2, 3, 1), "uint8"), label=datasets.Value("string"))
    labels = ["x"] * 10 + ["y"] * 10
    table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    report = inspect_data(from_dataset(table), progress=False)
    assert report.splits == (SplitUse("train", 20, "train and test"),)
    assert [each.type for each in report.columns] == ["Array3D, 2x3x1, uint8", "string"]
    # Pixels in a table have no files; both counts are those of the pixels.
    counts = {kind: (each.same_file, each.same_pixels) for kind, each in report.repeats.items()}
    assert counts == {"train": (14, 14), "test": (2, 2), "leaked": (4, 4), "conflicting": (0, 0)}
    assert len(report.repeats["train"].examples[0]) == 4
    assert {row.split for row in report.repeats["leaked"].examples[0]} == {"train"}


def encode(color, size=(6, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def make_table(images, labels):
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def test_rows_without_a_label_are_counted_but_not_measured():
    table = make_table([encode(DARK), encode(DARK), encode(BLUE), None, encode(BLUE)], [3, 7, None, 3, 3])
    report = inspect_data(from_dataset(datasets.DatasetDict(train=table, test=table)), progress=False)
    train = report.parts["train"]
    assert (train.class_counts, train.unlabeled, train.color) == ((3, 1), 1, 4)
    assert [tuple(bad) for bad in train.unreadable] == [(3, None, "it holds no image")]
    np.testing.assert_allclose(report.pixels.mean, np.mean([DARK, DARK, BLUE], axis=0) / 255, rtol=1e-12)
    # A row without a label conflicts with no other.
    assert (report.repeats["leaked"].same_file, report.repeats["conflicting"].same_file) == (4, 4)


def test_equal_pixels_in_another_shape_are_no_repeat():
    table = make_table([encode(DARK, (6, 4)), encode(DARK, (4, 6)), encode(DARK, (12, 2))], [0, 1, 1])
    report = inspect_data(from_dataset(datasets.DatasetDict(train=table, test=table)), progress=False)
    counts = {kind: each.same_pixels for kind, each in report.repeats.items()}
    assert counts == {"train": 0, "test": 0, "leaked": 3, "conflicting": 0}


def test_an_example_shows_each_label_of_its_image():
    table = make_table([encode(DARK)] * 9, [0] * 8 + [1])
    report = inspect_data(from_dataset(datasets.DatasetDict(train=table, test=table)), progress=False)
    (example,) = report.repeats["conflicting"].examples
    assert [(row.split, row.row, row.class_name) for row in example] == [
        ("train", 0, "0"), ("train", 8, "1"), ("test", 0, "0"), ("test", 8, "1"),
    ]  # fmt: skip


def test_rows_to_decode_are_spread_over_the_part(make_classes, tmp_path):
    opened = open_source(str(make_classes(tmp_path / "set" / "train", count=6).parent), test_split=None)
    report = inspect_data(opened, max_rows=2, progress=False)
    assert (report.parts["train"].rows, report.parts["train"].decoded) == (10, 2)
    first, last = (opened.decode("train", progress=False).images[index, 0, 0, 0] / 255 for index in (0, -1))
    np.testing.assert_allclose(report.pixels.mean, [(first + last) / 2], rtol=1e-12)


def test_no_more_than_a_few_images_are_in_memory():
    images = [encode((number, 0, 0), size=(300, 300)) for number in range(40)]
    table = make_table(images, [0, 1] * 20)
    opened = from_dataset(datasets.DatasetDict(train=table, test=table.select([0, 1])))
    tracemalloc.start()
    try:
        inspect_data(opened, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 300 * 300 * 3


# --- the command ---


def run(monkeypatch, *arguments):
    """Runs the command in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["eqxcnn.data", *map(str, arguments)])
    try:
        run_command(main)
    except SystemExit as exit_:
        return exit_.code
    return 0


def test_json_holds_the_whole_report_and_nothing_else(monkeypatch, capsys, folder, report):
    assert run(monkeypatch, folder, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(dataclasses.asdict(report)))
    assert printed["parts"]["train"]["unreadable"][0][0] == 7


def test_the_text_has_the_same_numbers(monkeypatch, capsys, folder):
    assert run(monkeypatch, folder) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    expected = (
        "mixed: 12 rows, 2 classes",
        "train 9 training",
        "image Image image",
        "a 5 1",
        "unreadable 1 0",
        "gray 2 0",
        "smallest size 9x1 4x6",
        "largest size 4x6 5x8",
        "most frequent sizes 4x6 (7) 4x6 (2)",
        "9x1 (1) 5x8 (1)",
        "repeated in training 1 3",
        "with different labels 3 8",
        f"row 7 {folder}/train/b/2.png: the file is truncated",
        f"train row 3 {folder}/train/a/3.png (a) = train row 6 {folder}/train/b/1.png (b)",
        "training pixels at 64x64, on the scale [0, 1]: mean 0.2451 0.1716 0.1912, std 0.2486 0.1427 0.1393",
    )
    assert [line for line in expected if line not in lines] == []


def test_a_limit_on_the_rows_is_stated(monkeypatch, capsys, folder):
    assert run(monkeypatch, folder, "--max-rows", 3) == 0
    assert "\n(among the decoded rows only)\n" in capsys.readouterr().out


def test_names_are_printed_without_control_characters(monkeypatch, capsys, tmp_path, draw):
    for number, name in enumerate(("\x1b[31mred", "\u202eb", "x" * 200)):
        draw(tmp_path / "set" / name / "line\nbreak.png", number)
        draw(tmp_path / "set" / name / "2.png", number)
    assert run(monkeypatch, tmp_path / "set", "--sheet", tmp_path / "sheet.png") == 0
    shown = capsys.readouterr()
    assert [sign for sign in shown.out + shown.err if not sign.isprintable() and sign != "\n"] == []
    assert "\\x1b[31mred" in shown.out
    assert "line\\nbreak.png" in shown.out


def test_the_sheet_shows_images_of_each_class(monkeypatch, capsys, folder, tmp_path):
    assert run(monkeypatch, folder, "--sheet", tmp_path / "sheet.png", "--per-class", "5") == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"the contact sheet is in {tmp_path / 'sheet.png'}"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (sheet.format, sheet.size) == ("PNG", (NAME_WIDTH + 5 * CELL, 2 * CELL))
        centers = [
            [sheet.getpixel((NAME_WIDTH + column * CELL + CELL // 2, row * CELL + CELL // 2)) for column in range(5)]
            for row in range(2)
        ]
        names = np.asarray(sheet.crop((0, 0, NAME_WIDTH, 2 * CELL)))
    gray, white = (100, 100, 100), (255, 255, 255)
    # The third image of `b` is unreadable, and there is no fifth one.
    assert centers == [[DARK, BLUE, DARK, gray, RED], [BLACK, gray, white, BLUE, white]]
    assert names.min() == 0


def test_a_sheet_has_at_most_so_many_images_per_class(folder):
    assert draw_contact_sheet(open_source(str(folder)), per_class=2).size == (NAME_WIDTH + 2 * CELL, 2 * CELL)


def test_tiny_images_are_enlarged_without_blur():
    colors = np.random.default_rng(0).integers(0, 255, (4, 3, 5, 3), np.uint8)  # 255 is the paper's white.
    features = datasets.Features(image=datasets.Array3D((3, 5, 3), "uint8"), label=datasets.Value("int64"))
    table = datasets.Dataset.from_dict({"image": list(colors), "label": [0, 1, 0, 1]}, features=features)
    sheet = np.asarray(draw_contact_sheet(from_dataset(datasets.DatasetDict(train=table, test=table)), per_class=2))
    shown = {tuple(pixel) for pixel in sheet[:, NAME_WIDTH:].reshape(-1, 3).tolist()}
    assert shown == {*map(tuple, colors.reshape(-1, 3).tolist()), (128, 128, 128), (255, 255, 255)}


def test_the_flags_choose_columns_and_the_test_split(monkeypatch, capsys, tmp_path):
    table = make_table([encode(DARK), encode(BLUE)], [0, 1]).add_column("kind", ["x", "y"])
    table = table.add_column("scan", [encode(DARK), encode(BLUE)], feature=datasets.Image())
    datasets.DatasetDict(train=table, test=table, mine=table).save_to_disk(tmp_path / "set")
    capsys.readouterr()
    flags = ("--image-column", "scan", "--label-column", "kind", "--test-split", "mine", "--image-size", 2, 3)
    assert run(monkeypatch, tmp_path / "set", "--json", *flags) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {split["name"]: split["use"] for split in printed["splits"]} == {
        "train": "train", "test": "none", "mine": "test",
    }  # fmt: skip
    roles = {column["name"]: column["role"] for column in printed["columns"]}
    assert roles == {"image": None, "label": None, "kind": "label", "scan": "image"}
    assert (printed["class_names"], printed["pixels"]["size"]) == (["x", "y"], [2, 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at/all"], "there is no folder `nowhere/at/all`"),
        (["digits", "--sheet", "nowhere/sheet.png"], "`--sheet` (=nowhere/sheet.png) must be the path of a file"),
        (["digits", "--sheet", "."], "`--sheet` (=.) must be the path of a file"),
        (["digits", "--label-column", "x"], "`label_column` (=`x`) must be one of the columns"),
        (["digits", "--max-rows", "0"], "`max_rows` (=0)"),
        (["digits", "--image-size", "0", "8"], "`image_size`"),
    ],
)
def test_mistakes_are_one_sentence(monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *arguments) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert message in err


def test_an_invalid_limit_is_refused_in_python():
    with pytest.raises(InputError, match=r"`max_rows` \(=0\) must be 1 or more"):
        inspect_data(open_source("digits"), max_rows=0, progress=False)
