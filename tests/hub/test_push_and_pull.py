"""`python -m eqxcnn.hub`, and addresses `hub:user/name`, with a fake Hub on loopback."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image

import eqxcnn
from eqxcnn.hub.exports import write_exports
from eqxcnn.hub.trained import open_trained
from eqxcnn.recipe.files import to_yaml
from eqxcnn.weights.bundled import BUNDLED

pytestmark = pytest.mark.slow

COMMIT = r"[0-9a-f]{40}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, as training writes it, with the package's trained LeNet."""
    folder = tmp_path_factory.mktemp("runs") / "lenet-mnist"
    eqxcnn.save(folder / "model", eqxcnn.load("lenet"))
    recipe = eqxcnn.load_recipe("lenet_best").replace(data="/home/ann/secret/my_digits")
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    rows = [{"epoch": 1, "validation_accuracy": 0.5}, {"test_accuracy": 0.9947, "test_loss": 0.06, "test_count": 10000}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def pushed(hub, run, finished):
    """The commit hash of the only push to `ann/digits`, which pushed the finished run."""
    code, output, errors = run("hub", "push", finished, "ann/digits", "--message", "First weights")
    assert (code, errors) == (0, "")
    match = re.fullmatch(rf"hub:ann/digits@({COMMIT})\n", output)
    assert match is not None
    return match[1]


@pytest.fixture(scope="module")
def secret(hub, run):
    """The files of the private repository `ann/secret`, to which the LeNet of the package has been pushed."""
    assert run("hub", "push", "lenet", "ann/secret", "--private")[0] == 0
    return files_of(hub, "ann/secret")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "digit.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)).save(path)
    return path


def files_of(hub, name, revision="main"):
    repository = hub.repositories[name]
    return repository["commits"][repository["branches"].get(revision, revision)]["files"]


def test_a_push_is_one_commit_of_four_files_with_the_weights_as_a_large_file(hub, pushed, finished):
    commits = hub.repositories["ann/digits"]["commits"]
    assert [commit["message"] for commit in commits.values()] == ["added", "First weights"]
    files = files_of(hub, "ann/digits", pushed)
    assert {name: large for name, (_, large) in files.items() if name != ".gitattributes"} == {
        "model.safetensors": True, "config.json": False, "README.md": False, "recipe.yaml": False,
    }  # fmt: skip
    for path in ("model/model.safetensors", "model/config.json", "recipe.yaml"):
        assert files[path.rpartition("/")[2]][0] == (finished / path).read_bytes()
    digest = hashlib.sha256((finished / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert ("PUT", f"/large/{digest}") in hub.requests
    card = files["README.md"][0].decode()
    assert 'eqxcnn.load("hub:ann/digits")' in card
    assert "| accuracy | 99.47% |" in card
    assert "my_digits" in card
    assert "secret" not in card
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "image-classification"


def test_the_card_can_be_printed_edited_and_pushed(hub, run, pushed, finished, tmp_path):
    code, card, errors = run("hub", "card", finished, "ann/digits")
    assert (code, errors) == (0, "")
    assert card.encode().strip() == files_of(hub, "ann/digits", pushed)["README.md"][0].strip()
    (tmp_path / "card.md").write_text(card + "Mine.\n")
    assert run("hub", "push", finished, "ann/edited", "--card", tmp_path / "card.md")[0] == 0
    assert files_of(hub, "ann/edited")["README.md"][0] == (tmp_path / "card.md").read_bytes()


def test_exports_come_with_a_push_and_leave_with_the_next(hub, run, finished, tmp_path):
    code, _, errors = run("hub", "push", finished, "ann/exported", "--exports", "stablehlo", "onnx")
    assert (code, errors) == (0, "")
    files = {name: content for name, (content, _) in files_of(hub, "ann/exported").items()}
    assert "| `model.onnx` | ONNX Runtime |" in files["README.md"].decode()
    pixels = np.random.default_rng(1).integers(0, 256, (3, 28, 28, 1), np.uint8)
    (tmp_path / "program.zip").write_bytes(files["model.stablehlo.zip"])
    session = onnxruntime.InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    expected = eqxcnn.load(finished)(pixels)
    for found in (eqxcnn.export.load(tmp_path / "program.zip")(pixels), session.run(None, {"pixels": pixels})[0]):
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert run("hub", "push", finished, "ann/exported")[0] == 0
    assert not {"model.onnx", "model.stablehlo.zip"} & files_of(hub, "ann/exported").keys()
    code, _, errors = run("hub", "push", finished, "ann/exported", "--exports", "tflite")
    assert (code, errors.count("\n")) == (1, 1)
    assert "must be a list of formats among stablehlo and onnx, each at most once" in errors


def test_a_second_file_of_weights_is_uploaded_and_leaves_with_the_next_push(hub, run, finished, tmp_path, monkeypatch):
    monkeypatch.setattr("eqxcnn.export.onnx.writing._MAX_BYTES", 10_000)
    with open_trained(finished) as trained:
        files = write_exports(trained, ["onnx"], tmp_path)
    assert files == {name: tmp_path / name for name in ("model.onnx", "model.onnx.data")}
    session = onnxruntime.InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    assert session.run(None, {"pixels": np.zeros((1, 28, 28, 1), np.uint8)})[0].shape == (1, 10)
    hub.add("ann/large", {name: (path.read_bytes(), True) for name, path in files.items()})
    assert run("hub", "push", finished, "ann/large")[0] == 0
    assert not files.keys() & files_of(hub, "ann/large").keys()


def test_a_pulled_model_has_the_same_bytes_and_predictions(run, pushed, finished, image, tmp_path):
    code, output, errors = run("hub", "pull", "ann/digits", "--out", tmp_path / "copy")
    assert (code, output) == (0, f"{tmp_path / 'copy'}\n")
    assert errors.endswith(f"downloaded hub:ann/digits@{pushed}\n")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "recipe.yaml",
    ]  # fmt: skip
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "copy" / name).read_bytes() == (finished / "model" / name).read_bytes()
    names = (finished, tmp_path / "copy", "hub:ann/digits", f"hub:ann/digits@{pushed}", "hub:ann/digits@main")
    predicted = [run("predict", name, image, "--format", "json")[:2] for name in names]
    assert predicted[0][0] == 0
    assert len(predicted[0][1]) > 50
    assert predicted == predicted[:1] * 5


def test_a_commit_hash_in_the_cache_needs_no_connection(hub, run, pushed, image):
    assert run("predict", f"hub:ann/digits@{pushed}", image)[0] == 0
    before = len(hub.requests)
    assert run("predict", f"hub:ann/digits@{pushed}", image)[0] == 0
    assert hub.requests[before:] == []


def test_a_second_push_moves_the_branch_and_keeps_the_pinned_commit(hub, run, finished, tmp_path):
    eqxcnn.save(tmp_path / "other", eqxcnn.load("mlp"))
    pushes = [(finished,), (tmp_path / "other", "--license", "mit")]
    outputs = [run("hub", "push", folder, "ann/moved", *flags)[1] for folder, *flags in pushes]
    first, newest = (output.strip().partition("@")[2] for output in outputs)
    assert "recipe.yaml" not in files_of(hub, "ann/moved")  # It belonged to the first push.
    assert "license: mit" in files_of(hub, "ann/moved")["README.md"][0].decode()
    for revision, model in ((newest, "mlp"), (first, "lenet")):
        folder = tmp_path / model
        code, _, errors = run("hub", "pull", "ann/moved", "--revision", revision, "--out", folder)
        assert (code, eqxcnn.load(folder).name) == (0, model)
        assert f"@{revision}\n" in errors


def test_a_branch_is_created_and_the_main_branch_stays(hub, run, tmp_path):
    main = hub.add("ann/branched", {".gitattributes": (b"", False)})
    code, output, _ = run("hub", "push", "mlp", "ann/branched", "--branch", "try/second")
    branches = hub.repositories["ann/branched"]["branches"]
    assert (code, output) == (0, f"hub:ann/branched@{branches['try/second']}\n")
    assert branches["main"] == main != branches["try/second"]
    assert run("hub", "pull", "ann/branched@try/second", "--out", tmp_path / "copy")[0] == 0
    assert eqxcnn.load(tmp_path / "copy").name == "mlp"


def test_a_private_model_needs_its_owners_token(hub, run, secret, image):
    assert hub.repositories["ann/secret"]["private"]
    assert run("predict", "hub:ann/secret", image)[0] == 0
    hub.repositories["ann/unseen"] = hub.repositories["ann/secret"]
    for token in ("hf_bob", ""):
        code, output, errors = run("predict", "hub:ann/unseen", image, HF_TOKEN=token)
        assert (code, output) == (1, "")
        assert errors.startswith("error: there is no model `ann/unseen` on the Hugging Face Hub, or it is private:")


def test_a_bundled_model_is_pushed_with_its_recipe_and_scores(secret):
    card, recipe = secret["README.md"][0].decode(), yaml.safe_load(secret["recipe.yaml"][0])
    assert f"| accuracy | {BUNDLED['lenet'].accuracy:.2%} |" in card
    assert (recipe["model"], recipe["data"], recipe["seed"]) == ("lenet", "mnist", BUNDLED["lenet"].seed)
    metadata = yaml.safe_load(card.split("---")[1])
    assert (metadata["datasets"], metadata["license"]) == (["ylecun/mnist"], "apache-2.0")


def test_a_model_on_the_hub_is_evaluated_and_starts_a_run(run, pushed, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "data" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(path)
    code, output, errors = run("evaluate", "hub:ann/digits", "--data", tmp_path / "data", "--split", "train")
    assert (code, output.split()[0]) == (0, "accuracy"), errors
    arguments = ("--data", tmp_path / "data", "--epochs", 1, "--batch-size", 4, "--runs", tmp_path / "runs")
    arguments += ("--init-from", f"hub:ann/digits@{pushed}")
    code, _, errors = run("train", "--model", "mlp", *arguments)
    assert code == 1
    # The address as given, not the folder in the cache.
    assert f"`init_from` (='hub:ann/digits@{pushed}') holds a `lenet`, but the recipe trains `mlp`" in errors
    code, _, errors = run("train", "--model", "lenet", *arguments)
    assert code == 0, errors
    (folder,) = (tmp_path / "runs").iterdir()
    assert eqxcnn.load(folder).name == "lenet"
    recorded = (folder / "recipe.yaml").read_text()
    assert f"init_from: hub:ann/digits@{pushed}" in recorded


REFUSED = [
    (["pull", "ann/nothing"], "there is no model `ann/nothing` on the Hugging Face Hub, or it is private: check the"),
    (["pull", "ann/digits", "--revision", "v9"], "`ann/digits` has no revision `v9`: give a branch, a tag or a commit"),
    (["pull", "ann/digits", "--revision", "../x"], "the revision '../x' must be a branch, a tag or a commit hash"),
    (["pull", "ann/digits@main", "--revision", "v9"], "`revision` (=v9) differs from the one in `hub:ann/digits@main`"),
    (["pull", "digits"], "'digits' is not the name of a model on the Hub: give user/name"),
    (["pull", "ann/a--b"], "'ann/a--b' is not the name of a model on the Hub"),
    (["pull", "someone/bert"], "`hub:someone/bert` is not a model of eqxcnn: `"),
    (["pull", "someone/text"], "`hub:someone/text` is not a model of eqxcnn: it has no config.json"),
    (["pull", "someone/half"], "`hub:someone/half` is not a model of eqxcnn: it has no model.safetensors"),
    (["pull", "someone/changed"], "the model.safetensors of `hub:someone/changed` is damaged: its SHA-256 digest"),
    (
        ["push", "lenet", "bob/digits"],
        "the Hugging Face Hub refuses access to `bob/digits` (You don't have the rights to create a model under",
    ),
    (["push", "lenet", "ann/digits", "--private"], "`ann/digits` exists and is public: make it private in its"),
    (["push", "lenet", "lenet"], "'lenet' is not the name of a model on the Hub"),
    (["push", "lenet", "ann/x", "--branch", "a b"], "the revision 'a b' must be a branch, a tag or a commit hash"),
    (["push", "lenet", "ann/x", "--license", "no-such-license"], "the Hugging Face Hub cannot be used for `ann/x`"),
    (["push", "lenet", "ann/x", "--license", "a b"], "`license` (='a b') must be an identifier of the Hub"),
    (["push", "resnet18", "ann/x"], "the weights of `resnet18` are already on the Hub, as timm/resnet18.tv_in1k"),
    (["push", "hub:ann/digits", "ann/x"], "`hub:ann/digits` is already on the Hub: pull it to a folder"),
    (["push", "nowhere", "ann/x"], "there is no folder `nowhere`"),
    (["card", "unfinished", "ann/x"], "`unfinished` contains no trained model: its training has not finished"),
    (["card", "lenet", "ann/x/y"], "'ann/x/y' is not the name of a model on the Hub"),
]


@pytest.fixture(scope="module")
def others(hub, run, finished, pushed):
    """Adds repositories that are not models of eqxcnn, or that are damaged."""
    model = finished / "model"
    config, weights = ((model / name).read_bytes() for name in ("config.json", "model.safetensors"))
    changed = weights[:-1] + bytes([weights[-1] ^ 1])
    hub.add("someone/bert", {"config.json": (b'{"architectures": []}', False), "model.safetensors": (weights, True)})
    hub.add("someone/text", {"README.md": (b"text", False)})
    hub.add("someone/half", {"config.json": (config, False)})
    hub.add("someone/changed", {"config.json": (config, False), "model.safetensors": (changed, True)})


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_errors_are_one_sentence(hub, others, run, tmp_path, arguments, message):
    if arguments[1] == "unfinished":
        arguments = [arguments[0], tmp_path / "unfinished", *arguments[2:]]
        (tmp_path / "unfinished").mkdir()
        (tmp_path / "unfinished" / "recipe.yaml").write_text("model: lenet\n")
        message = message.replace("`unfinished`", f"`{tmp_path / 'unfinished'}`")
    out = ["--out", tmp_path / "copy"] if arguments[0] == "pull" else []
    code, output, errors = run("hub", *arguments, *out)
    sentence = errors.splitlines()[-1]
    assert (code, output) == (1, "")
    assert sentence.startswith(f"error: {message}")
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir() if path.name != "unfinished"] == []


def test_the_weights_of_other_models_are_not_downloaded(hub, others, run, tmp_path):
    run("hub", "pull", "someone/bert", "--out", tmp_path / "copy")
    paths = [path for _, path in hub.requests if path.startswith("/someone/bert/resolve/")]
    assert any(path.endswith("/config.json") for path in paths)
    assert not any(path.endswith("/model.safetensors") for path in paths)


def test_only_the_files_of_a_push_are_pulled(hub, run, pushed, tmp_path):
    files = {**files_of(hub, "ann/digits", pushed), "model.py": (b"raise SystemExit", False)}
    hub.add("someone/script", files)
    assert run("hub", "pull", "someone/script", "--out", tmp_path / "copy")[0] == 0
    assert not (tmp_path / "copy" / "model.py").exists()
    assert not any(path.endswith("model.py") for _, path in hub.requests)


def test_an_existing_folder_is_kept(run, pushed, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    code, _, errors = run("hub", "pull", "ann/digits", "--out", tmp_path)
    assert (code, errors.splitlines()[-1]) == (
        1, f"error: `{tmp_path}` already exists and is not empty: choose another folder with `--out`",
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_push_without_a_token_or_with_a_wrong_one_is_refused(run, finished):
    code, _, errors = run("hub", "push", finished, "ann/new", HF_TOKEN="")
    assert code == 1
    assert errors.startswith("error: `ann/new` cannot be pushed without a token: log in with `hf auth login`")
    code, _, errors = run("hub", "push", finished, "ann/new", HF_TOKEN="hf_gone")
    assert code == 1
    assert errors.startswith("error: the Hugging Face Hub does not accept your token for `ann/new`: ")


def test_weights_that_changed_after_training_are_not_pushed(run, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    path = folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    code, _, errors = run("hub", "push", folder, "ann/new")
    assert code == 1
    assert "is damaged: its SHA-256 digest is not the one in config.json" in errors


def test_offline_the_copy_in_the_cache_is_used(environment, hub, run, pushed, image):
    assert run("predict", "hub:ann/digits", image)[0] == 0
    code = (
        "import eqxcnn, numpy as np\n"
        "found = eqxcnn.extract('hub:ann/digits', (np.zeros((2, 28, 28, 1), np.uint8), np.zeros(2, np.int32)))\n"
        "print(found.features.shape)\n"
    )
    offline = {"env": {**environment, "HF_HUB_OFFLINE": "1"}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], **offline, check=True)
    assert done.stdout == "(2, 84)\n"
    # The command as users run it, in its own process.
    done = subprocess.run([sys.executable, "-m", "eqxcnn.hub", "pull", "ann/other"], **offline)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: `hub:ann/other` is not on this machine, and the Hugging Face Hub cannot be reached (`HF_HUB_OFFLINE` "
        "is set): connect once to the internet to download it\n"
    )


def test_a_network_of_ones_own_is_pushed_and_loaded_with_the_network(run, hub, tmp_path):
    net = eqxcnn.zoo.create_model("mlp", num_classes=10, key=jax.random.key(0))
    classifier = eqxcnn.load("mlp")
    own = eqxcnn.ImageClassifier(
        **{**vars(classifier), "name": "mine.Net", "model": net[0], "state": net[1], "architecture": ()}
    )
    eqxcnn.save(tmp_path / "own", own)
    assert run("hub", "push", tmp_path / "own", "ann/own")[0] == 0
    card = files_of(hub, "ann/own")["README.md"][0].decode()
    assert 'eqxcnn.load("hub:ann/own", model=net)' in card
    assert run("hub", "pull", "ann/own", "--out", tmp_path / "copy")[0] == 0
    loaded = eqxcnn.load(tmp_path / "copy", model=net)
    pixels = np.zeros((1, *classifier.image_size, 1), np.uint8)
    np.testing.assert_array_equal(loaded(pixels), own(pixels))
