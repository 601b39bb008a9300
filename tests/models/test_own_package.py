"""The package of docs/add_a_model.md is built, installed, and used by commands in separate processes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add_a_model.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## In your own package") : PAGE.index("## Automatic tests")]

pytestmark = pytest.mark.slow


def code_blocks(language):
    """Returns the section's fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the page's package is installed."""
    source, target = tmp_path_factory.mktemp("my-models"), tmp_path_factory.mktemp("installed")
    (source / "pyproject.toml").write_text(code_blocks("toml")[0])
    (source / "my_models.py").write_text(code_blocks("python")[0])
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--quiet", "--target", str(target), str(source)], check=True)
    return target


@pytest.fixture
def run(tmp_path, installed):
    """Returns a function that runs Python in a new folder; by default, Python can import the package."""

    def run(*arguments, with_package=True, code=0):
        path = os.pathsep.join([*([str(installed)] if with_package else []), str(ROOT)])
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "EQXCNN_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


#: Without the flags that make the examples of the page take longer than needed.
FAST = ["--epochs", "0.5", "--train-images", "320", "--batch-size", "32", "--image-size", "8", "8"]

#: What takes no process of its own: the import of the packages takes most of the time of a command.
USE = """
import jax, eqxcnn
from eqxcnn import evaluate, train, zoo
assert zoo.list_models("tiny*") == ["tiny_net"]
card = zoo.card("tiny_net")
assert (card.family, card.params, card.strides) == ("my-models/tiny", 5178, (2, 4))
model, state = zoo.create_model("tiny_net", key=jax.random.key(0))
assert zoo.count_parameters(model) == card.params
(folder,) = __import__("pathlib").Path("runs").iterdir()
classifier = eqxcnn.load(folder)
assert classifier.name == "tiny_net" and dict(classifier.architecture) == {"widths": (8, 16)}
features = eqxcnn.extract(folder, "digits").features
assert features.shape[1] == 16
evaluate.main([str(folder)])
train.main(["--recipe", str(folder / "recipe.yaml")])
"""


def test_an_installed_package_works_in_every_command(run, tmp_path):
    zoo_command, train_command = (shlex.split(line) for line in code_blocks("bash")[0].splitlines())
    assert "my-models/tiny" in run(*zoo_command[1:])
    assert "test accuracy" in run(*train_command[1:], *FAST)
    (folder,) = (tmp_path / "runs").iterdir()
    evaluated, trained = run("-c", USE).split("test accuracy")
    assert "accuracy" in evaluated
    assert trained
    error = run("-m", "eqxcnn.evaluate", str(folder), with_package=False, code=1)
    assert "there is no model named `tiny_net`" in error
    assert "if another package defines it, install or `--import` that package" in error
    assert error.count("\n") == 1


@pytest.mark.exhaustive
def test_a_script_that_registers_is_imported(run, tmp_path):
    (tmp_path / "my_models.py").write_text(code_blocks("python")[0])
    (tmp_path / "my_script.py").write_text(code_blocks("python")[1])
    train_command = shlex.split(code_blocks("bash")[1])[1:]
    more = ["--augment", "negative(0.5)", *FAST]
    assert "test accuracy" in run(*train_command, *more, with_package=False)
    (folder,) = (tmp_path / "runs").iterdir()
    evaluate = ["-m", "eqxcnn.evaluate", str(folder)]
    assert "accuracy" in run(*evaluate, "--import", "my_script", with_package=False)
    assert "tiny_net_wide" in run("-m", "eqxcnn.zoo", "--import=my_script", "list", "tiny*", with_package=False)
    assert "no model named `tiny_net_wide`" in run(*evaluate, with_package=False, code=1)
    assert "report.html" in run("-m", "eqxcnn.report", str(folder), "--import", "my_script", with_package=False)
    run("-c", "import PIL.Image; PIL.Image.new('L', (8, 8)).save('a.png')")
    predict = ["-m", "eqxcnn.predict", "--import", "my_script", str(folder), "a.png"]
    assert run(*predict, with_package=False).startswith("a.png: ")
