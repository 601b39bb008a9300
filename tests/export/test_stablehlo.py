"""Exported StableHLO programs: scores, batch sizes, platforms, metadata, and use without eqxcnn."""

import json
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqxcnn
from eqxcnn import export
from eqxcnn.errors import InputError
from eqxcnn.export import stablehlo
from eqxcnn.export.check import choose_images
from eqxcnn.export.program import Program

#: Packages that eqxcnn needs, but neither JAX nor `load`.
OTHERS = ("equinox", "jaxtyping", "beartype", "einops", "optax", "datasets", "PIL", "safetensors", "tyro", "yaml")


@pytest.fixture(scope="module")
def exported(lenet, tmp_path_factory, fast_compilation):
    path = tmp_path_factory.mktemp("exported") / "lenet.stablehlo.zip"
    assert export.export_stablehlo(lenet, path) < 1e-5
    return path


def test_scores_are_the_classifiers_for_any_number_of_images(lenet, exported):
    program, images = export.load(exported), choose_images(lenet)
    for batch in (1, 3, 32):
        scores = program(images[:batch])
        assert scores.dtype == jnp.float32
        np.testing.assert_allclose(scores, lenet(images[:batch]), atol=1e-4)


def test_a_loaded_program_has_the_metadata_of_the_classifier(lenet, exported):
    program = export.load(exported)
    assert program.class_names == lenet.class_names
    assert program.preprocess == lenet.preprocess
    assert program.outputs == "logits"
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert program.input_shape == (None, 28, 28, 1)
    assert program.metadata["model"] == "lenet"
    assert program.metadata["eqxcnn"] == eqxcnn.__version__
    assert program.metadata["precision"] == "float32"


def test_programs_for_accelerators_contain_no_implementation_for_cpus(lenet, fast_compilation):
    program = Program(lenet)
    function = jax.jit(program.make_function())
    text = jax.export.export(function, platforms=["cuda"])(program.pixels).mlir_module()
    assert "optimization_barrier" not in text
    assert "stablehlo.case" not in text
    assert "stablehlo.convolution" in text


READ_BY_JAX_ALONE = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # any import of it fails
import zipfile
import jax
import numpy as np
from jax import export
program = export.deserialize(bytearray(zipfile.ZipFile(sys.argv[1]).read("program.bin")))
np.save(sys.argv[2], program.call(np.load(sys.argv[3])))
"""

READ_BY_LOAD = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import numpy as np
from eqxcnn.export import load
program = load(sys.argv[1])
assert program.class_names[3] == "3"
np.save(sys.argv[2], program(np.load(sys.argv[3])))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "blocked"), [(READ_BY_JAX_ALONE, ("eqxcnn", *OTHERS)), (READ_BY_LOAD, OTHERS)], ids=["jax", "load"]
)
def test_only_jax_is_needed_to_run_a_program(code, blocked, lenet, exported, tmp_path):
    images = choose_images(lenet)[:5]
    np.save(tmp_path / "pixels.npy", images)
    arguments = [str(exported), str(tmp_path / "scores.npy"), str(tmp_path / "pixels.npy")]
    subprocess.run([sys.executable, "-c", code.format(blocked=blocked), *arguments], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), lenet(images), atol=1e-4)


def test_equal_classifiers_give_equal_files(lenet, exported, tmp_path):
    export.export_stablehlo(lenet, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("precision", ["bf16", "float16"])
def test_probabilities_in_half_precision_for_a_fixed_batch(lenet, precision, tmp_path):
    path = tmp_path / "half.zip"
    error = export.export_stablehlo(
        lenet, path, batch=3, platforms=["cpu"], precision=precision, outputs="probabilities"
    )
    assert 1e-6 < error < 0.05
    program, images = export.load(path), choose_images(lenet)[:3]
    np.testing.assert_allclose(program(images).sum(1), np.ones(3), atol=1e-5)
    assert program.input_shape == (3, 28, 28, 1)
    with pytest.raises(InputError, match=r"shape \(2, 28, 28, 1\) .* must have the shape \(3, 28, 28, 1\)"):
        program(images[:2])


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 28, 28, 1), np.float32), "dtype float32 must have the shape .* uint8"),
        (np.zeros((2, 28, 27, 1), np.uint8), r"\(batch, 28, 28, 1\)"),
        (np.zeros((28, 28, 1), np.uint8), r"\(batch, 28, 28, 1\)"),
        (np.zeros((0, 28, 28, 1), np.uint8), "no images"),
    ],
)
def test_other_pixels_are_refused(exported, pixels, message):
    with pytest.raises(InputError, match=message):
        export.load(exported)(pixels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, r"`batch` \(=0\) must be `dynamic`, or an integer"),
        ({"batch": True}, r"`batch` \(=True\)"),
        ({"platforms": ["cpu", "cdua"]}, "the unknown `cdua`: choose any of cpu, cuda"),
        ({"platforms": []}, "must be a list of different platforms"),
        ({"platforms": ["cpu", "cpu"]}, "must be a list of different platforms"),
        ({"platforms": ["tpu"]}, "must include the platform of this machine"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(lenet, arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export.export_stablehlo(lenet, tmp_path / "lenet.zip", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("batch", "many", r"`batch` \(='many'\) must be `dynamic`"),
        ("precision", "int8", r"`precision` \(='int8'\) must be one of float32, bf16, float16"),
        ("outputs", "classes", r"`outputs` \(='classes'\) must be one of logits, probabilities"),
    ],
)
def test_values_outside_the_annotation_are_refused_too(lenet, setting, value, message):
    program = Program(lenet)
    object.__setattr__(program, setting, value)
    with pytest.raises(InputError, match=message):
        program.__post_init__()


def test_programs_contain_no_paths_of_this_machine(exported):
    content = exported.read_bytes()
    assert b"convolution" in content
    assert b".py" not in content


def test_a_jax_without_the_option_for_locations_exports_too(monkeypatch):
    monkeypatch.setattr(stablehlo, "_LOCATIONS", "jax_no_such_option")
    with stablehlo._without_locations():
        pass


def test_an_existing_file_is_kept(lenet, tmp_path):
    path = tmp_path / "lenet.zip"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export.export_stablehlo(lenet, path)
    with pytest.raises(InputError, match="is a folder"):
        export.export_stablehlo(lenet, tmp_path)
    assert path.read_text() == "mine"


def test_flatbuffers_is_named_where_it_is_missing(lenet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(InputError, match=r"pip install 'eqxcnn\[export\]'"):
        export.export_stablehlo(lenet, tmp_path / "lenet.zip")


def _replaced(exported, path, **parts):
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = parts.get(name.partition(".")[0], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"program": None}, "is not an exported program, or it is damaged"),
        ({"program": b"nonsense" * 20}, "cannot be read by jax"),
        ({"metadata": b"{"}, "is not an exported program, or it is damaged"),
        ({"metadata": b"[]"}, "has format None"),
        ({"metadata": json.dumps({"format": 2}).encode()}, "has format 2"),
        ({"metadata": json.dumps({"format": 1}).encode()}, "cannot be read"),
    ],
)
def test_damaged_files_are_refused(exported, tmp_path, parts, message):
    with pytest.raises(InputError, match=message):
        export.load(_replaced(exported, tmp_path / "damaged.zip", **parts))


def test_files_that_are_no_programs_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        export.load(tmp_path / "nothing.zip")
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(InputError, match="is not an exported program"):
        export.load(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "compressed.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("program.bin", b"0" * 10_000)
    with pytest.raises(InputError, match="its parts are compressed"):
        export.load(tmp_path / "compressed.zip")
    with pytest.raises(InputError, match="cannot be read: embedded null byte"):
        export.load("null\0.zip")


def test_an_encrypted_file_is_refused(exported, tmp_path):
    content = bytearray(exported.read_bytes())
    # The lowest flag bit of each part in the central directory marks the part as encrypted.
    start = content.index(b"PK\1\2")
    content[start + 8] |= 1
    local = content.index(b"PK\3\4")
    content[local + 6] |= 1
    (tmp_path / "encrypted.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"is not an exported program, .*encrypted"):
        export.load(tmp_path / "encrypted.zip")
