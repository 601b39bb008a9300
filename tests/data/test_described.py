"""Odd names are treated as plain text. A folder's metadata cannot name files outside it or cause a traceback."""

import io
import json
import logging
import os
import sys
import zipfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eqxcnn.data import open_source, reading
from eqxcnn.data.columns import read_labels
from eqxcnn.errors import InputError


def png(value=1) -> bytes:
    file = io.BytesIO()
    Image.new("L", (6, 4), value).save(file, "PNG")
    return file.getvalue()


def write_table(path, labels=("x", "y", "x", "y")):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [png(index) for index in range(len(labels))], "label": list(labels)}), path)


def refusal(folder, **options) -> str:
    """Returns the error message for a folder that is refused; checks that the message is one line."""
    with pytest.raises(InputError) as caught:
        open_source(str(folder), **options).decode("train", progress=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- names ---


@pytest.mark.parametrize(
    "name", ["c::d", "a[b]*", "http:", "50%", "#x", "new\nline", "-dash", "A", "\u202erev", "{x}", "cl?ss", "n" * 250]
)
def test_a_class_or_folder_may_have_any_name(tmp_path, make_classes, name):
    expected = open_source(str(make_classes(tmp_path / "plain", names=("a", "b")))).info.splits
    opened = open_source(str(make_classes(tmp_path / name, names=("a", name))))
    assert opened.info.class_names == tuple(sorted(("a", name)))
    assert opened.info.splits == expected
    assert len(opened.info.name) <= 40  # It becomes a part of the name of a run's folder.


def test_classes_may_differ_by_case_alone(tmp_path, make_classes):
    opened = open_source(str(make_classes(tmp_path / "set", names=("cat", "Cat"))))
    assert opened.info.class_names == ("Cat", "cat")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
@pytest.mark.parametrize("name", [b"a/\xff.png", b"\xff/0.png"])
def test_a_name_that_is_not_utf8_is_refused(tmp_path, make_classes, name):
    path = os.path.join(os.fsencode(make_classes(tmp_path / "set")), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(png())
    assert "is not valid UTF-8: rename it" in refusal(tmp_path / "set")


@pytest.mark.parametrize("name", ["c::d", "a[b]", "x*"])
def test_a_folder_of_tables_whose_path_is_a_pattern_is_refused(tmp_path, name):
    write_table(tmp_path / name / "train.parquet")
    assert "rename the folder" in refusal(tmp_path / name)


def test_images_deeper_than_their_class_are_refused(tmp_path, make_classes, draw):
    draw(make_classes(tmp_path / "set") / "a" / "more" / "x.png", 1)
    assert "a/more/x.png` lies deeper than other images of its class" in refusal(tmp_path / "set")


@pytest.mark.parametrize("text", ["~nosuch/x", "a\0b", "/" + "x" * 300, "\udcff", "../" * 2000, "x" * 100_000])
def test_a_name_that_can_be_no_folder_is_refused(text):
    assert len(refusal(text)) < 1500


def test_two_empty_or_partial_splits(tmp_path, make_classes):
    make_classes(tmp_path / "set" / "train")
    (tmp_path / "set" / "test" / "a").mkdir(parents=True)
    assert open_source(str(tmp_path / "set")).info.splits == {"train": 10}
    write_table(tmp_path / "tables" / "train.parquet")
    pq.write_table(pq.read_table(tmp_path / "tables" / "train.parquet").slice(0, 0), tmp_path / "tables/test.parquet")
    assert "test.parquet` has no rows: remove it" in refusal(tmp_path / "tables")


# --- cards ---


@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize(
    "config",
    [
        "data_files: http://127.0.0.1:1/x.parquet",
        "data_files: hf://datasets/org/name/x.parquet",
        "data_files: zip://x::data/train.parquet",
        "data_files: /secret/train.parquet",
        "data_files: ~/train.parquet",
        "data_files: ../secret/train.parquet",
        "data_files: [data/../../secret/train.parquet]",
        "data_files: [{split: train, path: [../secret/train.parquet]}]",
        "data_dir: ../secret",
    ],
)
def test_a_card_cannot_lead_out_of_its_folder(tmp_path, monkeypatch, file, config):
    write_table(tmp_path / "secret" / "train.parquet")
    write_table(tmp_path / "set" / "data" / "train.parquet")
    text = f"configs:\n- config_name: default\n  {config}\n"
    (tmp_path / "set" / file).write_text(f"---\n{text}---\n" if file == "README.md" else text)
    monkeypatch.setattr(datasets, "load_dataset_builder", None)  # It would follow the card.
    assert "outside the folder: correct its `data_files`" in refusal(tmp_path / "set")


def test_files_that_the_library_finds_elsewhere_are_refused(tmp_path, monkeypatch):
    write_table(tmp_path / "secret" / "train.parquet")
    write_table(tmp_path / "set" / "train.parquet")
    monkeypatch.setattr(reading, "check_described", lambda _: None)
    card = "---\nconfigs:\n- config_name: default\n  data_files: ../secret/train.parquet\n---\n"
    (tmp_path / "set" / "README.md").write_text(card)
    assert "outside the folder" in refusal(tmp_path / "set")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nconfigs: [\n---\n", "README.md` is not valid YAML"),
        ("---\nconfigs: x\n---\n", "must be a list of mappings"),
        ("\ufeff---\nconfigs: x\n---\n", "must be a list of mappings"),  # `datasets` ignores a byte order mark
        ("---\nconfigs:\n- data_files: train.parquet\n---\n", "must include `config_name`"),
        ("---\na: &x 1\nb: *x\n---\n", "alias"),
        (f"---\na: {'[' * 5000}\n---\n", "more than 50 levels"),
        ("---\nconfigs:\n- config_name: d\n  data_files: train.parquet\ndataset_info:\n  features: 3\n---\n", "opened"),
    ],
)
def test_a_damaged_card_is_refused(tmp_path, text, message):
    write_table(tmp_path / "set" / "train.parquet")
    (tmp_path / "set" / "README.md").write_text(text)
    assert message in refusal(tmp_path / "set")


@pytest.mark.timeout(20)
def test_a_card_that_is_a_pipe_is_not_waited_for(tmp_path, make_classes):
    os.mkfifo(make_classes(tmp_path / "set") / "README.md")
    assert open_source(str(tmp_path / "set")).info.splits == {"train": 10}
    write_table(tmp_path / "tables" / "train.parquet")
    os.mkfifo(tmp_path / "tables" / ".huggingface.yaml")
    assert "not a regular file" in refusal(tmp_path / "tables")


def test_code_beside_the_tables_does_not_run(tmp_path):
    write_table(tmp_path / "set" / "train.parquet")
    for name in ("__init__.py", "other.py", "conftest.py"):
        (tmp_path / "set" / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert open_source(str(tmp_path / "set")).info.splits == {"train": 4}
    (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "scripts are no longer supported" in refusal(tmp_path / "set")
    assert not (tmp_path / "ran").exists()


# --- archives and metadata ---


def test_archives_beside_the_images_are_ignored_in_class_folders_and_refused_elsewhere(tmp_path, make_classes, draw):
    folder = make_classes(tmp_path / "set")
    (folder / "a" / "junk.zip").write_bytes(b"junk")
    with zipfile.ZipFile(folder / "b" / "more.zip", "w") as archive:
        archive.writestr("b/x.png", png())
    assert open_source(str(folder)).info.splits == {"train": 10}
    draw(tmp_path / "flat" / "1.png", 1)
    (tmp_path / "flat" / "junk.zip").write_bytes(b"junk")
    assert "junk.zip` is an archive: unpack it" in refusal(tmp_path / "flat")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.jsonl", "", "metadata.jsonl` is empty"),
        ("metadata.csv", "", "metadata.csv` is empty"),
        ("metadata.csv", "file_name,label\n../secret.png,x\n0.png,y\n", "must be a relative path"),
        ("metadata.csv", "file_name,label\n/secret.png,x\n0.png,y\n", "must be a relative path"),
        ("metadata.csv", "name,label\n0.png,x\n", "`file_name`"),
        ("metadata.jsonl", "{", "JSON parse error"),
        ("metadata.parquet", "PAR1", "metadata.parquet` is not a parquet file"),
    ],
)
def test_a_damaged_metadata_file_is_refused(tmp_path, draw, name, text, message):
    draw(tmp_path / "set" / "0.png", 1)
    (tmp_path / "set" / name).write_text(text)
    assert message in refusal(tmp_path / "set")


# --- save_to_disk ---


@pytest.fixture
def saved(tmp_path):
    columns = {"image": [png(index) for index in range(4)], "label": ["x", "y"] * 2}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("state.json", "{", "state.json` cannot be read as JSON"),
        ("state.json", "[]", "must hold a JSON object"),
        ("state.json", "{}", "`_data_files` in .* must be a list of names"),
        ("state.json", '{"_data_files": [3]}', "must be a list of names"),
        ("state.json", '{"_data_files": [{"filename": 3}]}', "names `3`, which is not a file in the same folder"),
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', "names `../x.arrow`, which is not a file in"),
        ("state.json", '{"_data_files": [{"filename": "x.arrow"}]}', "x.arrow`, which .* names, is missing"),
        ("state.json", '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}', "cannot be opened"),
        ("dataset_info.json", "[" * 100_000, "more than 50 levels"),
        ("dataset_info.json", '{"features": 3}', "cannot be opened"),
        ("dataset_info.json", '{"features": {"image": {"_type": "Nope"}}}', "'Nope' not found"),
        ("data-00000-of-00001.arrow", "", "cannot be opened: "),
    ],
)
def test_a_damaged_saved_set_is_refused(saved, file, text, message):
    (saved / file).write_text(text)
    with pytest.raises(InputError, match=message):
        open_source(str(saved))


@pytest.mark.parametrize("fraction", [0.01, 0.4, 0.8, 0.97])
def test_a_truncated_arrow_file_is_refused(saved, fraction):
    file = saved / "data-00000-of-00001.arrow"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * fraction)])
    assert "cannot be opened" in refusal(saved)


@pytest.mark.timeout(20)
def test_an_arrow_file_that_is_a_pipe_is_not_waited_for(saved):
    (saved / "data-00000-of-00001.arrow").unlink()
    os.mkfifo(saved / "data-00000-of-00001.arrow")
    assert "is missing" in refusal(saved)


@pytest.mark.parametrize("splits", ["{", '{"splits": ["../saved"]}', '{"splits": "train"}', '{"splits": ["none"]}'])
def test_damaged_splits_are_refused(saved, tmp_path, splits):
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "dataset_dict.json").write_text(splits)
    assert str(tmp_path / "splits") in refusal(tmp_path / "splits")


# --- tables ---


def test_damaged_tables_are_named(tmp_path):
    file = tmp_path / "set" / "train.parquet"
    write_table(file)
    content = file.read_bytes()
    for length in (0, 4, 100, len(content) - 1):
        file.write_bytes(content[:length])
        assert "train.parquet` is not a parquet file" in refusal(tmp_path / "set")


@pytest.mark.parametrize(("name", "text"), [("train.json", "{"), ("train.csv", 'a,b\n"1,2\n3'), ("train.arrow", "x")])
def test_the_library_does_not_log_what_the_error_says(tmp_path, name, text):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_text(text)
    # The library's own handler writes to the standard error of the time when it was imported.
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("datasets").addHandler(handler)
    try:
        assert "cannot be opened" in refusal(tmp_path / "set")
    finally:
        logging.getLogger("datasets").removeHandler(handler)
    assert records == []


@pytest.mark.parametrize(
    "features",
    [
        {"image": {"_type": "Nope"}},
        {"image": {"_type": "Image"}, "label": {"names": ["x", "x"], "_type": "ClassLabel"}},
        [],
    ],
)
def test_features_that_a_table_wrongly_declares_are_refused(tmp_path, features):
    table = pa.table({"image": [png()] * 4, "label": [0, 1, 0, 1]})
    declared = json.dumps({"info": {"features": features}})
    (tmp_path / "set").mkdir()
    pq.write_table(table.replace_schema_metadata({"huggingface": declared}), tmp_path / "set" / "train.parquet")
    assert "cannot be opened" in refusal(tmp_path / "set")


@pytest.mark.timeout(20)
def test_a_folder_of_pipes_holds_nothing(tmp_path):
    (tmp_path / "set").mkdir()
    os.mkfifo(tmp_path / "set" / "train.parquet")
    (tmp_path / "set" / "test.parquet").symlink_to("/dev/zero")
    assert "holds no images or tables" in refusal(tmp_path / "set")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1], [2], [1]], "the column `label` cannot be the label column"),
        ([{"a": 1}, {"a": 2}, {"a": 1}], "the column `label` cannot be the label column"),
        ([b"x", b"y", b"x"], "the column `label` cannot be the label column"),
        ([float("inf"), 1.0, 1.0], "must be whole numbers or names"),
        (["x" * 1001, "y", "y"], "a string of 1,001 bytes, so it does not hold class names"),
    ],
)
def test_columns_that_cannot_be_labels_are_refused(tmp_path, labels, message):
    write_table(tmp_path / "set" / "train.parquet", labels)
    assert message in refusal(tmp_path / "set", label_column="label")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10**18, 1, 1, 10**18], ("1", "1000000000000000000")),
        ([1e300, 1.0, 1e300, 1.0], ("1", "1e+300")),
        (["x" * 300, "y", "y", "x" * 300], ("x" * 300, "y")),
    ],
)
def test_extreme_labels_keep_their_names(tmp_path, labels, names):
    write_table(tmp_path / "set" / "train.parquet", labels)
    assert open_source(str(tmp_path / "set")).info.class_names == names


def test_a_column_that_holds_no_images_is_refused(tmp_path):
    write_table(tmp_path / "set" / "train.parquet")
    assert "the column `label` cannot be the image column" in refusal(tmp_path / "set", image_column="label")


@pytest.mark.slow
@pytest.mark.timeout(20)
def test_many_named_classes_take_no_quadratic_time():
    features = datasets.Features(label=datasets.ClassLabel(names=[str(number) for number in range(60_000)]))
    rows = datasets.Dataset.from_dict({"label": [59_999, 0]}, features=features)
    names, numbers = read_labels({"train": rows, "test": rows}, "label")
    assert (len(names), numbers["test"].tolist()) == (60_000, [59_999, 0])


# --- waiting ---


def test_a_slow_data_set_is_named_while_it_is_read(tmp_path, make_classes, monkeypatch, capsys):
    folder = make_classes(tmp_path / "a\x1bset")
    open_source(str(folder))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(reading, "_SLOW_SECONDS", 0.0)
    open_source(str(folder))
    assert capsys.readouterr().err.endswith("a\\x1bset ...\n")


@pytest.mark.parametrize("write", [pa.ipc.new_stream, pa.ipc.new_file])
def test_an_arrow_file_that_points_out_of_itself_is_refused(tmp_path, write):
    """Reading an image at an offset outside the file would crash the process."""
    table = pa.table({"image": [png(index) for index in range(4)], "label": ["x", "y"] * 2})
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "train.arrow"
    with write(str(path), table.schema) as file:
        file.write_table(table)
    assert open_source(str(tmp_path / "set")).info.splits == {"train": 4}
    offsets = np.cumsum([0, *(len(png(index)) for index in range(4))]).astype(np.int32).tobytes()
    damaged = np.array([0, 2**31 - 1, -5, 7, 9], np.int32).tobytes()
    data = path.read_bytes()
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, damaged))
    assert "train.arrow` cannot be opened: it is not an intact arrow file" in refusal(tmp_path / "set")


def test_a_saved_set_whose_arrow_file_is_damaged_is_refused(saved):
    (path,) = saved.glob("*.arrow")
    offsets = np.cumsum([0, *(len(png(index)) for index in range(4))]).astype(np.int32).tobytes()
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, np.array([0, 2**31 - 1, -5, 7, 9], np.int32).tobytes()))
    assert "it is not an intact arrow file" in refusal(saved)
