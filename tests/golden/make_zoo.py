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
#: What is kept is exact to the digits shown; float32 tells how much of it that loses.
PRECISIONS = (torch.float64, torch.float32)
#: Family: the variants whose answers are kept; the two smallest where nothing is said.
ANSWERS = {
    "efficientnet": ("efficientnet_b0", "efficientnet_v2_s"),
    "resnet": ("resnet18", "resnet50", "resnext50_32x4d"),
    "vgg": ("vgg11_bn", "vgg11"),
}
#: Family: a size other than 64 at which its answers are kept beside the native one: AlexNet's last maps are then no
#: single pixels, and the windows of SqueezeNet's pooling reach past its maps.
SMALL = {"alexnet": 160, "inception_v3": 96, "squeezenet": 70}
#: Family: the variant and size of its gradients, where those of the first one at the small size are mostly rounding.
GRADIENTS = {
    "convmixer": ("convmixer_1024_20_ks9_p14", 64),
    "googlenet": ("googlenet", 128),
    "inception_v3": ("inception_v3", 160),
}
#: Family: the argument by which its twins learn of another size, where their weights depend on it.
SIZED = {"vit": "image_size"}
#: The factor that keeps scores of seeded weights from exploding, and rounding errors with them. A smaller one would
#: leave the scores to the biases, whatever the image.
TAME = {"efficientnet_v2_s": 0.75, "mobilenet_v2": 0.8, "mobilenet_v3_large": 0.85, "se_resnet34": 0.8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"])
    parser.add_argument("--tools", required=True, help="the folder with reference_models.py")
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.tools)
    torch.set_num_threads(1)
    twins = [name for name, (_, row) in families().items() if row.torch_twin]
    stored = json.loads(FILE.read_text()) if FILE.exists() else {}
    stored = {name: facts for name, facts in stored.items() if name in twins}
    for name in twins:
        if any(fnmatchcase(name, pattern) for pattern in arguments.names):
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
    sizes = sorted({SMALL.get(family, 64), row.input[0]})
    answers = {"tame": TAME.get(name, 1.0)}
    if name in chosen:
        answers["logits"] = {size: logits(name, size, answers["tame"]) for size in sizes}
    differentiated, size = GRADIENTS.get(family, (chosen[0], sizes[0]))
    if name == differentiated:
        answers["gradients"] = gradients(name, size, answers["tame"])
    return answers if len(answers) > 1 else {}


def two_smallest(family: str) -> list[str]:
    twins = {name: row.params for name, (its, row) in families().items() if its == family and row.torch_twin}
    return sorted(twins, key=lambda name: twins[name])[:2]


def logits(name: str, size: int, tame: float) -> dict:
    """The largest score, and of each image the first ones and the norm of all."""
    with torch.no_grad():
        exact, rows = (seeded_twin(name, size, tame, dtype).eval()(images(size).to(dtype)) for dtype in PRECISIONS)
    largest = exact.abs().max().item()
    print(f"{name} at {size}: float32 loses {(rows - exact).abs().max().item() / largest:.1e} of the scores")
    return {
        "largest": digits(largest, 8),
        "first": [digits(row[:SHOWN].tolist(), 8) for row in exact],
        "norm": [digits(row.norm().item(), 8) for row in exact],
    }


def gradients(name: str, size: int, tame: float) -> dict:
    """The norm of each parameter's gradient in training mode, in the order of the sorted names.

    With what float32 may lose of them by the twin's own account: much where few values share a channel of a BatchNorm.
    """
    exact, norms = (gradient_norms(name, size, tame, dtype) for dtype in PRECISIONS)
    lost = ((norms - exact).abs() / (exact + 0.01 * exact.max())).max().item()
    print(f"{name} at {size}: float32 loses {lost:.1e} of the gradients")
    return {"size": size, "lost": digits(lost, 2), "norms": digits(exact.tolist(), 7)}


def gradient_norms(name: str, size: int, tame: float, dtype: torch.dtype) -> torch.Tensor:
    twin = seeded_twin(name, size, tame, dtype).train()
    for module in twin.modules():
        if re.search("Dropout|StochasticDepth|DropPath", type(module).__name__):
            module.eval()
        if hasattr(module, "drop_rate"):  # timm's, for a function
            module.drop_rate = 0.0
    for auxiliary in ("aux1", "aux2", "AuxLogits"):  # which take no small images
        if hasattr(twin, auxiliary):
            setattr(twin, auxiliary, None)
    scores = twin(images(size).to(dtype))
    # Those that may have auxiliary heads give a named tuple.
    scores = scores if isinstance(scores, torch.Tensor) else scores.logits
    (scores * torch.from_numpy(seeded.loss_factors(*scores.shape))).sum(1).mean().backward()
    named = kept(name, dict(twin.named_parameters()))
    return torch.stack([named[key].grad.double().norm() for key in sorted(named)])


def seeded_twin(name: str, size: int, tame: float, dtype: torch.dtype) -> torch.nn.Module:
    twin = built(name, size)
    tensors = {key: tensor for key, tensor in twin.state_dict().items() if tensor.is_floating_point()}
    for key, array in seeded.weights({key: tensor.shape for key, tensor in tensors.items()}, tame=tame).items():
        tensors[key].copy_(torch.from_numpy(array))
    return twin.to(dtype)


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
    return {key: tensor for key, tensor in tensors.items() if not names.is_ignored(key)}


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
