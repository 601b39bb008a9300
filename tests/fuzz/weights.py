"""Weights: damaged and hostile `.safetensors` and `.pth` files, `state_dict`s, and `config.json`."""

import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import eqxcnn
from eqxcnn import registry
from eqxcnn.inference import ImageClassifier
from eqxcnn.parsing import parse_json
from eqxcnn.saved_classifier import save
from eqxcnn.weights.files import digest_file
from eqxcnn.weights.tensors import to_tensors
from eqxcnn.weights.torch import from_torch, to_torch

from .case import Entrance, Silent
from .mutate import HOSTILE, flip_bit, mutate_bytes, mutate_value

_PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
_CLASSES = ("ant", "bee", "cat")
_TWIN = "resnet20"


def prepare_folder(folder: Path) -> tuple[Path, np.ndarray]:
    """Saves a small classifier, and returns its folder and its logits."""
    model, state = registry.build(
        "mlp", num_classes=3, in_channels=1, image_size=(8, 8), widths=(8,), key=jax.random.key(0)
    )
    moments = jnp.array([0.25]), jnp.array([0.5])
    classifier = ImageClassifier(model, state, *moments, "mlp", (8, 8), _CLASSES, (("widths", (8,)),))
    save(folder, classifier)
    return folder, np.asarray(classifier(_PIXELS))


def attack_safetensors(rng: random.Random, folder: Path, base: tuple[Path, np.ndarray]) -> None:
    """A changed file must be refused; with an updated digest, it must give finite float32 weights or be refused."""
    intact, logits = base
    shutil.copytree(intact, folder, dirs_exist_ok=True)
    path, config = folder / "model.safetensors", folder / "config.json"
    original = path.read_bytes()
    changed = _mutate_safetensors(rng, original)
    path.write_bytes(changed)
    is_signed = rng.random() < 0.6
    if is_signed:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"sha256": digest_file(path)}))
    classifier = eqxcnn.load(folder)
    found = np.asarray(classifier(_PIXELS))
    if not is_signed and changed != original:
        raise Silent("a changed model.safetensors with the digest of another one was loaded")
    if found.shape != logits.shape:
        raise Silent(f"weights that give {found.dtype}{list(found.shape)} were loaded")
    # Products of large weights may overflow.
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter(classifier, eqx.is_inexact_array))):
        raise Silent("weights that are not finite were loaded")
    tensors = to_tensors(classifier.model, classifier.state).values()
    if not all(tensor.dtype == np.float32 for tensor in tensors):
        raise Silent("weights of another dtype than float32 were loaded")


def _mutate_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Mutates the bytes, the header, one value, or the dtype of one tensor."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    match rng.randrange(6):
        case 0:
            return flip_bit(rng, data)
        case 1 | 2:
            return mutate_bytes(rng, data)
        case 3:
            value = rng.choice((float("nan"), float("inf"), -float("inf"), 1e38, 1e-40))
            at = rng.randrange(len(body) // 4) * 4
            return data[: 8 + length] + body[:at] + struct.pack("<f", value) + body[at + 4 :]
        case 4:
            entry = header[rng.choice([name for name in header if name != "__metadata__"])]
            entry["dtype"] = rng.choice(("F64", "F16", "BF16", "I32", "U8", "BOOL", "F8_E4M3", "C64", "X", "", 3))
        case _:
            header = mutate_value(rng, header)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    size = rng.choice((len(text), len(text), len(text), 0, 2**63, 2**40, len(text) + 1))
    return size.to_bytes(8, "little") + text + body


def attack_config(rng: random.Random, folder: Path, base: tuple[Path, np.ndarray]) -> None:
    """A loaded classifier must have the settings in its file, and unchanged settings must give unchanged logits."""
    intact, logits = base
    shutil.copytree(intact, folder, dirs_exist_ok=True)
    path = folder / "config.json"
    original = json.loads(path.read_text())
    if rng.random() < 0.4:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    else:
        text = json.dumps(mutate_value(rng, original), ensure_ascii=rng.random() < 0.5)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    classifier = eqxcnn.load(folder)
    config = parse_json(path.read_bytes(), "the file")
    if more := set(config) - set(original):
        raise Silent(f"config.json was loaded with an unknown entry: {sorted(more)}")
    loaded = {
        "format": 1, "model": classifier.name, "in_channels": classifier.in_channels,
        "image_size": list(classifier.image_size), "class_names": list(classifier.class_names),
        "architecture": {name: list(it) if isinstance(it, tuple) else it for name, it in classifier.architecture},
    }  # fmt: skip
    for name, value in loaded.items():
        if ascii(config.get(name, {})) != ascii(value):
            raise Silent(f"`{name}` is loaded as another value: {config.get(name)!r} became {value!r}")
    for name in ("mean", "std"):
        if not np.array_equal(np.float32(config[name]), np.asarray(getattr(classifier, name))):
            raise Silent(f"`{name}` is loaded as another value: {config[name]!r}")
    found = np.asarray(classifier(np.resize(_PIXELS, (2, *classifier.image_size, classifier.in_channels))))
    same = all(config.get(name) == original.get(name) for name in original if name not in ("class_names", "sha256"))
    if same and not np.array_equal(found, logits):
        raise Silent("config.json with the same settings gives other logits")
    if found.shape != (2, len(config["class_names"])):
        raise Silent(f"the logits have another shape than the classes: {found.shape}")


def prepare_twin(folder: Path) -> tuple[dict[str, np.ndarray], bytes | None]:
    """Makes the `state_dict` of a network and, if torch is installed, saves it with torch."""
    model, state = registry.build(_TWIN, key=jax.random.key(0))
    tensors = to_torch(_TWIN, model, state)
    try:
        import torch
    except ImportError:
        return tensors, None
    torch.save({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}, folder / "intact.pth")
    return tensors, (folder / "intact.pth").read_bytes()


def attack_pth(rng: random.Random, folder: Path, base: tuple[dict[str, np.ndarray], bytes | None]) -> None:
    """A damaged file that loads must give the same weights as the intact file."""
    tensors, data = base
    if data is None:
        return
    path = folder / rng.choice(("model.pth", "model.pt"))
    path.write_bytes(flip_bit(rng, data) if rng.random() < 0.5 else mutate_bytes(rng, data))
    _require_same(from_torch(_TWIN, path), tensors)


def attack_state_dict(rng: random.Random, folder: Path, base: tuple[dict[str, np.ndarray], bytes | None]) -> None:
    """A `state_dict` with odd entries must be refused, or the loaded weights must equal its tensors."""
    tensors: dict[Any, Any] = dict(base[0])
    name = rng.choice(list(tensors))
    array = np.array(tensors[name])
    odd: list[Any] = [
        array.astype(np.float64), array.astype(np.float16), array.astype(np.int64), array.astype(np.complex64),
        array.astype(str), array.astype(object), array[..., None], array.ravel(), array[:0], array.T, array.tolist(),
        np.full_like(array, np.nan), np.broadcast_to(np.float32(0), (2**40,)), np.ma.masked_array(array, True),
        np.zeros(3, np.dtype([("a", "f4")])), {"a": array}, np.float32(1), np.array("x"), array.astype(">f4"),
        memoryview(b"a"), *HOSTILE,
    ]  # fmt: skip
    position = rng.randrange(len(odd))
    (folder / "case.txt").write_text(f"{name}: odd value {position}\n")
    action = rng.random()
    if action < 0.7:
        tensors[name] = odd[position]
    elif action < 0.85:
        tensors[rng.choice((name + "x", "", "\x1b[2J", 3, None, ("a",), name.replace("0", "1")))] = tensors.pop(name)
    else:
        tensors = {rng.choice(("state_dict", "model", "module")): rng.choice((tensors, odd[position]))}
    loaded = from_torch(_TWIN, rng.choice((tensors, tensors, tensors, odd[position])))
    given = tensors.get("state_dict") or tensors.get("model") or tensors
    _require_same(loaded, given)


def _require_same(loaded: tuple[Any, Any], tensors: dict[str, Any]) -> None:
    found = to_torch(_TWIN, *loaded)
    for name, tensor in found.items():
        if not np.array_equal(tensor, np.asarray(tensors[name], np.float32).reshape(tensor.shape)):
            raise Silent(f"the loaded weights differ from the saved ones: `{name}`")


ENTRANCES = {
    "safetensors": Entrance(attack_safetensors, prepare_folder),
    "config": Entrance(attack_config, prepare_folder),
    "pth": Entrance(attack_pth, prepare_twin),
    "state_dict": Entrance(attack_state_dict, prepare_twin),
}
