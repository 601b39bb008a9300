"""Writes zoo.json: what torchvision's and timm's own networks hold and answer. Needs torch; the tests do not.

`python tests/golden/make_zoo.py --tools FOLDER [NAME or "pattern*" ...]`, where FOLDER has `reference_models.py`, which
builds a torch network by its name. Models that are not named keep what zoo.json says of them.

Of every twin: how many parameters and tensors it has, but for auxiliary heads, and a digest of the tensors' names and
shapes. Of two or three of each family the scores in eval mode, and of the first of them the gradients in training mode,
all for the seeded weights and images of `seeded.py`.
"""

import argparse
import hashlib
import json
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import seeded
import torch

from eqxcnn.registry import families
from eqxcnn.weights.names import names_of

FILE = Path(__file__).with_name("zoo.json")
BATCH, SHOWN = 2, 8
#: Family: the variants whose answers are kept; the two smallest where nothing is said.
ANSWERS = {
    "efficientnet": ("efficientnet_b0", "efficientnet_v2_s"),
    "resnet": ("resnet18", "resnet50", "resnext50_32x4d"),
    "vgg": ("vgg11_bn", "vgg11"),
}
#: Family: a size other than 64 at which its answers are kept beside the native one.
SMALL = {"inception_v3": 96}
#: Family: the argument by which its twins learn of another size, where their weights depend on it.
SIZED = {"vit": "image_size"}
#: The factor that keeps seeded weights from exploding where nothing limits the gates of channels. A smaller one would
#: leave the scores to the biases, whatever the image.
TAME = {"efficientnet_v2_s": 0.75, "mobilenet_v3_large": 0.85}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"])
    parser.add_argument("--tools", required=True, help="the folder with reference_models.py")
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.tools)
    torch.set_num_threads(1)
    stored = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name, (_, row) in families().items():
        if row.torch_twin and any(fnmatchcase(name, pattern) for pattern in arguments.names):
            stored[name] = described(name) | answered(name)
            print(name, stored[name]["params"], flush=True)
            write(stored)


def described(name: str) -> dict:
    """What a twin holds, told without making its weights where that is possible."""
    try:
        with torch.device("meta"):
            twin = built(name)
    except NotImplementedError:  # RegNet computes its widths with tensors
        twin = built(name)
    shapes = {key: tuple(tensor.shape) for key, tensor in kept(name, twin.state_dict()).items()}
    count = sum(parameter.numel() for parameter in kept(name, dict(twin.named_parameters())).values())
    return {"params": count, "tensors": len(shapes), "digest": digest(shapes)}


def answered(name: str) -> dict:
    """Scores and gradients of a twin, if its family keeps them for it."""
    family, row = families()[name]
    chosen = ANSWERS.get(family) or two_smallest(family)
    if name not in chosen:
        return {}
    tame = TAME.get(name, 1.0)
    sizes = sorted({SMALL.get(family, 64), row.input[0]})
    answers = {"tame": tame, "logits": {size: logits(name, size, tame) for size in sizes}}
    if name == chosen[0]:
        answers["gradients"] = {"size": sizes[0], "norms": gradients(name, sizes[0], tame)}
    return answers


def two_smallest(family: str) -> list[str]:
    twins = {name: row.params for name, (its, row) in families().items() if its == family and row.torch_twin}
    return sorted(twins, key=lambda name: twins[name])[:2]


def logits(name: str, size: int, tame: float) -> list[dict]:
    """Of each image the first scores, and the norm of all."""
    with torch.no_grad():
        rows = seeded_twin(name, size, tame).eval()(images(size))
    return [{"first": digits(row[:SHOWN].tolist(), 8), "norm": digits(row.norm().item(), 8)} for row in rows]


def gradients(name: str, size: int, tame: float) -> list[float]:
    """The norm of each parameter's gradient in training mode without dropout, in the order of the sorted names."""
    twin = seeded_twin(name, size, tame).train()
    for module in twin.modules():
        if re.search("Dropout|StochasticDepth|DropPath", type(module).__name__):
            module.eval()
    for auxiliary in ("aux1", "aux2", "AuxLogits"):  # which take no small images
        if hasattr(twin, auxiliary):
            setattr(twin, auxiliary, None)
    scores = twin(images(size))
    # Those that may have auxiliary heads give a named tuple.
    scores = scores if isinstance(scores, torch.Tensor) else scores.logits
    factors = torch.from_numpy(seeded.loss_factors(*scores.shape))
    (scores * factors).sum(1).mean().backward()
    named = kept(name, dict(twin.named_parameters()))
    return [digits(0.0 if named[key].grad is None else named[key].grad.norm().item(), 7) for key in sorted(named)]


def seeded_twin(name: str, size: int, tame: float) -> torch.nn.Module:
    twin = built(name, size)
    tensors = {key: tensor for key, tensor in twin.state_dict().items() if tensor.is_floating_point()}
    for key, array in seeded.weights({key: tensor.shape for key, tensor in tensors.items()}, tame=tame).items():
        tensors[key].copy_(torch.from_numpy(array))
    return twin


def built(name: str, size: int | None = None) -> torch.nn.Module:
    import reference_models

    family, row = families()[name]
    if family not in SIZED or size in (None, row.input[0]):
        return reference_models.build(row.torch_twin, row.num_classes)
    # Not to be imported before `reference_models` has built its first network: it declares what they miss.
    import timm
    import torchvision

    arguments = {"num_classes": row.num_classes, SIZED[family]: size}
    if row.torch_twin.startswith("timm/"):
        return timm.create_model(row.torch_twin.removeprefix("timm/"), **arguments)
    return torchvision.models.get_model(row.torch_twin, weights=None, **arguments)


def images(size: int) -> torch.Tensor:
    return torch.from_numpy(seeded.images(BATCH, size, size)).movedim(-1, 1).contiguous()


def kept(name: str, tensors: dict) -> dict:
    """Those of torch's tensors that our network has a place for."""
    names = names_of(families()[name][0])
    return {key: tensor for key, tensor in tensors.items() if not names.is_left_out(key)}


def digest(shapes: dict[str, tuple[int, ...]]) -> str:
    """A fingerprint of names and shapes; `tests/test_torch.py` makes the same."""
    lines = [f"{name} {list(shapes[name])}" for name in sorted(shapes)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def digits(value: float | list[float], count: int) -> float | list[float]:
    """Rounded to so many significant digits."""
    return [digits(each, count) for each in value] if isinstance(value, list) else float(f"{value:.{count}g}")


def write(stored: dict) -> None:
    """One line a model, so that a change shows where it is."""
    lines = [f'"{name}": {json.dumps(stored[name])}' for name in sorted(stored)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
