"""Writes zoo.json: tensors, logits and gradients of torchvision's and timm's networks. Needs torch; the tests do not.

Run `python tests/golden/make_zoo.py --tools FOLDER [NAME or "pattern*" ...]`, where FOLDER has `reference_models.py`,
which builds a torch network by name. Other models keep their entries in zoo.json.

For every model with a torch twin, zoo.json has the number of parameters, the number of tensors, and a digest of the
tensors' names and shapes, all without auxiliary heads. For one to three models of each family it has the logits in
eval mode, and for one of these models the gradients in training mode, all for the seeded weights and images of
`seeded.py`.
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
#: Stored values are computed in float64; float32 shows how much precision it loses.
PRECISIONS = (torch.float64, torch.float32)
#: Family: the variants whose logits are stored; by default the two smallest.
CHOSEN = {
    "efficientnet": ("efficientnet_b0", "efficientnet_v2_s"),
    "resnet": ("resnet18", "resnet50", "resnext50_32x4d"),
    "vgg": ("vgg11_bn", "vgg11"),
}
#: Family: the small image size (default 64) for which logits are stored besides the native size. At these sizes
#: AlexNet's last maps have more than one pixel, and SqueezeNet's pooling windows extend past its maps.
SMALL = {"alexnet": 160, "inception_v3": 96, "squeezenet": 70}
#: Family: variant and image size for the gradients, if those of the first variant at the small size are mostly noise.
GRADIENTS = {
    "convmixer": ("convmixer_1024_20_ks9_p14", 64),
    "googlenet": ("googlenet", 128),
    "inception_v3": ("inception_v3", 160),
}
#: Family: the twin's argument for the image size, if the weights depend on it.
SIZED = {"vit": "image_size"}
#: Model: the factor on its seeded weights that keeps logits and their rounding errors from growing too large. With a
#: smaller factor the biases would dominate, and the logits would not depend on the image.
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
            stored[name] = describe(name) | compute_answers(name)
            print(name, stored[name]["params"], flush=True)
            write(stored)


def describe(name: str) -> dict:
    """Returns a twin's parameter count, tensor count and tensor digest; avoids allocating weights if possible."""
    try:
        with torch.device("meta"):
            twin = build(name)
    except NotImplementedError:  # RegNet computes its widths with tensors
        twin = build(name)
    shapes = {key: tuple(tensor.shape) for key, tensor in select_ours(name, twin.state_dict()).items()}
    count = sum(parameter.numel() for parameter in select_ours(name, dict(twin.named_parameters())).values())
    return {"params": count, "tensors": len(shapes), "digest": digest(shapes)}


def compute_answers(name: str) -> dict:
    """Returns the logits and the gradients that zoo.json stores for a twin; empty for a twin without such results."""
    family, row = families()[name]
    chosen = CHOSEN.get(family) or two_smallest(family)
    sizes = sorted({SMALL.get(family, 64), row.input[0]})
    answers = {"tame": TAME.get(name, 1.0)}
    if name in chosen:
        answers["logits"] = {size: logits(name, size, answers["tame"]) for size in sizes}
    differentiated, size = GRADIENTS.get(family, (chosen[0], sizes[0]))
    if name == differentiated:
        answers["gradients"] = gradients(name, size, answers["tame"])
    return answers if len(answers) > 1 else {}


def two_smallest(family: str) -> list[str]:
    twins = {
        name: row.params for name, (its_family, row) in families().items() if its_family == family and row.torch_twin
    }
    return sorted(twins, key=lambda name: twins[name])[:2]


def logits(name: str, size: int, tame: float) -> dict:
    """Returns the largest absolute logit, and the first logits and the norm of the logits of each image."""
    with torch.no_grad():
        exact, rows = (seeded_twin(name, size, tame, dtype).eval()(images(size).to(dtype)) for dtype in PRECISIONS)
    largest = exact.abs().max().item()
    print(f"{name} at {size}: relative error of float32 logits {(rows - exact).abs().max().item() / largest:.1e}")
    return {
        "largest": round_digits(largest, 8),
        "first": [round_digits(row[:SHOWN].tolist(), 8) for row in exact],
        "norm": [round_digits(row.norm().item(), 8) for row in exact],
    }


def gradients(name: str, size: int, tame: float) -> dict:
    """Returns the norm of each parameter's gradient in training mode, sorted by name.

    The entry `lost` is the twin's own relative error in float32, which is large where a BatchNorm channel has few
    values.
    """
    exact, norms = (gradient_norms(name, size, tame, dtype) for dtype in PRECISIONS)
    lost = ((norms - exact).abs() / (exact + 0.01 * exact.max())).max().item()
    print(f"{name} at {size}: relative error of float32 gradients {lost:.1e}")
    return {"size": size, "lost": round_digits(lost, 2), "norms": round_digits(exact.tolist(), 7)}


def gradient_norms(name: str, size: int, tame: float, dtype: torch.dtype) -> torch.Tensor:
    twin = seeded_twin(name, size, tame, dtype).train()
    for module in twin.modules():
        if re.search("Dropout|StochasticDepth|DropPath", type(module).__name__):
            module.eval()
        if hasattr(module, "drop_rate"):  # timm's functional dropout
            module.drop_rate = 0.0
    for auxiliary in ("aux1", "aux2", "AuxLogits"):  # auxiliary heads fail on small images
        if hasattr(twin, auxiliary):
            setattr(twin, auxiliary, None)
    scores = twin(images(size).to(dtype))
    # Networks with auxiliary heads return a named tuple.
    scores = scores if isinstance(scores, torch.Tensor) else scores.logits
    (scores * torch.from_numpy(seeded.loss_factors(*scores.shape))).sum(1).mean().backward()
    named = select_ours(name, dict(twin.named_parameters()))
    return torch.stack([named[key].grad.double().norm() for key in sorted(named)])


def seeded_twin(name: str, size: int, tame: float, dtype: torch.dtype) -> torch.nn.Module:
    twin = build(name, size)
    tensors = {key: tensor for key, tensor in twin.state_dict().items() if tensor.is_floating_point()}
    for key, array in seeded.weights({key: tensor.shape for key, tensor in tensors.items()}, tame=tame).items():
        tensors[key].copy_(torch.from_numpy(array))
    return twin.to(dtype)


def build(name: str, size: int | None = None) -> torch.nn.Module:
    import reference_models

    family, row = families()[name]
    if family not in SIZED or size in (None, row.input[0]):
        return reference_models.build(row.torch_twin, row.num_classes)
    # Import these after `reference_models` has built a network: it declares the operators that they need.
    import timm
    import torchvision

    arguments = {"num_classes": row.num_classes, SIZED[family]: size}
    if row.torch_twin.startswith("timm/"):
        return timm.create_model(row.torch_twin.removeprefix("timm/"), **arguments)
    return torchvision.models.get_model(row.torch_twin, weights=None, **arguments)


def images(size: int) -> torch.Tensor:
    return torch.from_numpy(seeded.images(BATCH, size, size)).movedim(-1, 1).contiguous()


def select_ours(name: str, tensors: dict) -> dict:
    """Returns the torch tensors that have a counterpart in our network."""
    names = names_of(families()[name][0])
    return {key: tensor for key, tensor in tensors.items() if not names.is_ignored(key)}


def digest(shapes: dict[str, tuple[int, ...]]) -> str:
    """Hashes names and shapes, as `tests/weights/test_torch.py` does."""
    lines = [f"{name} {list(shapes[name])}" for name in sorted(shapes)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def round_digits(value: float | list[float], count: int) -> float | list[float]:
    """Rounds to a number of significant digits."""
    return [round_digits(item, count) for item in value] if isinstance(value, list) else float(f"{value:.{count}g}")


def write(stored: dict) -> None:
    """Writes one line per model, so that a diff shows which models changed."""
    lines = [f'"{name}": {json.dumps(stored[name])}' for name in sorted(stored)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
