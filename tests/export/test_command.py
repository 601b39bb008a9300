"""`python -m eqxcnn.export`."""

import sys

import numpy as np
import pytest

import eqxcnn
from eqxcnn import export
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError
from eqxcnn.export.__main__ import main
from eqxcnn.export.check import choose_images


def test_a_model_is_exported_once(tmp_path, capsys, fast_compilation):
    arguments = ["lenet", "--format", "stablehlo", "--out", str(tmp_path / "new"), "--platforms", "cpu", "tpu"]
    main(arguments)
    path = tmp_path / "new" / "lenet.stablehlo.zip"
    assert capsys.readouterr().out.startswith(f"{path}: {path.stat().st_size:,} bytes; the logits differ by ")
    assert export.load(path).platforms == ("cpu", "tpu")
    with pytest.raises(InputError, match="exists already"):
        main(arguments)
    main([*arguments, "--force", "--batch", "2", "--outputs", "probabilities"])
    program = export.load(path)
    assert program.input_shape[0] == 2
    lenet = eqxcnn.load("lenet")
    found = [program.class_names[index] for index in np.asarray(program(choose_images(lenet)[:2])).argmax(1)]
    assert found == [row[0][0] for row in lenet.top_k(choose_images(lenet)[:2])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch", "--format", "stablehlo"], "there is no folder `nosuch`"),
        (["lenet", "--format", "stablehlo", "--batch", "0"], r"`--batch` \(=0\)"),
        (["lenet", "--format", "stablehlo", "--batch", "-1"], r"`--batch` \(=-1\)"),
        (["lenet", "--format", "onnx", "--batch", "1048577"], r"`--batch` \(=1048577\) .* from 1 to 1,048,576"),
        (["lenet", "--format", "stablehlo", "--batch", "some"], r"`--batch` \(=some\)"),
        (["lenet", "--format", "stablehlo", "--platforms", "gpu"], "the unknown `gpu`: choose any of cpu, cuda"),
        (["lenet", "--format", "onnx", "--platforms", "cpu"], "`--platforms` is only for `--format stablehlo`"),
        (["lenet", "--format", "safetensors-torch"], "no twin"),
        (["lenet", "--format", "safetensors-torch", "--batch", "2"], "`--batch` has no effect on the weights that"),
        (["lenet", "--format", "safetensors-torch", "--outputs", "probabilities"], "`--outputs` has no effect"),
        (["lenet", "--format", "stablehlo", "--images", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_exit_code_is_one_after_a_mistake(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export", "nosuch", "--format", "onnx"])
    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("error: there is no folder `nosuch`")
