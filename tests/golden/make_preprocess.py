"""Writes preprocess.safetensors and preprocess.json: the pixels and logits of torchvision's and timm's pipelines.

Needs torch, torchvision, timm and the data set `cats_vs_dogs`; the tests need only the data set. Run
`EQXCNN_TEST_DATA=DATA python tests/golden/make_preprocess.py --tools FOLDER`, where FOLDER has `reference_models.py`.

For the pixels, each pipeline of `pipelines()` processes the images of `photographs.py`. For the logits, seeded networks
score two photographs, with the preprocessing of each network's published weights. The JSON file also has the
preprocessing that timm publishes for its weights.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import make_zoo
import numpy as np
import photographs
import torch
from PIL import Image
from safetensors.numpy import save

from eqxcnn.registry import families, variant
from eqxcnn.weights.published import ON_HUB

FILE = Path(__file__).with_name("preprocess.json")
COUNT = 200
NETWORKS = ("resnet18", "mobilenet_v2", "efficientnet_b0", "swin_t", "regnet_y_400mf", "densenet121")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", required=True, help="the folder with reference_models.py")
    sys.path.insert(0, parser.parse_args().tools)
    torch.set_num_threads(1)
    import reference_models

    reference_models.build("squeezenet1_0", 2)  # declares the operators that torchvision needs, which timm imports
    write_pixels(Path(os.environ["EQXCNN_TEST_DATA"], "cats_vs_dogs"))
    timms = {row.repository for row in ON_HUB.values() if not row.repository.endswith("tv_in1k")}
    timms |= {row.torch_twin for _, row in families().values() if (row.torch_twin or "").startswith("timm/")}
    facts = {"timm": {name: describe(name) for name in sorted(timms)}, "logits": {}}
    for name in NETWORKS:
        facts["logits"][name] = logits(name)
    text = json.dumps(facts["timm"]).replace("}, ", "},\n"), json.dumps(facts["logits"]).replace("}, ", "},\n")
    FILE.write_text(f'{{"timm": {text[0]},\n"logits": {text[1]}}}\n')


def write_pixels(root: Path) -> None:
    files = photographs.cats_and_dogs(str(root))
    rows = photographs.choose(files, COUNT)
    tensors = {"rows": np.array(rows, np.int32)}
    for name, resize in pipelines().items():
        tensors[f"{name}.parts"] = np.stack([apply(resize, image) for image in photographs.parts()])
        tensors[f"{name}.rows"] = np.stack([apply(resize, photographs.decode(files[row])) for row in rows])
    FILE.with_suffix(".safetensors").write_bytes(save(tensors))


def pipelines() -> dict:
    """Returns the two recorded pipelines; each turns an RGB image into an image of 224 x 224 pixels."""
    import timm.data
    from torchvision import transforms

    timms = timm.data.create_transform(224, is_training=False, crop_pct=0.9, interpolation="bicubic")
    return {
        "torchvision": transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)]),
        "timm": transforms.Compose(timms.transforms[:2]),  # without the conversion to a tensor
    }


def apply(resize, image: Image.Image) -> np.ndarray:
    return photographs.keep(np.asarray(resize(image.convert("RGB"))))


def describe(name: str) -> dict:
    """Returns the preprocessing that timm publishes for `timm/NAME`, with the length of the resized shorter side."""
    config = timm_config(name)
    resize, crop = timm_transform(name).transforms[:2]
    return {
        "size": list(crop.size),
        "resized": resize.size,
        "interpolation": config["interpolation"],
        "mean": list(config["mean"]),
        "std": list(config["std"]),
    }


def timm_config(name: str) -> dict:
    import timm.data
    from timm.models import get_pretrained_cfg

    return timm.data.resolve_data_config(pretrained_cfg=get_pretrained_cfg(name.removeprefix("timm/")).to_dict())


def timm_transform(name: str):
    import timm.data

    return timm.data.create_transform(**timm_config(name), is_training=False)


def logits(name: str) -> dict:
    """Returns the first logits and the norm of the logits of each sample photograph, and the largest absolute logit."""
    import torchvision

    published = ON_HUB[name].repository if name in ON_HUB else "tv_in1k"
    if published.endswith("tv_in1k"):
        transform = torchvision.models.get_model_weights(variant(name).torch_twin).IMAGENET1K_V1.transforms()
    else:
        transform = timm_transform(published)
    images = torch.stack([transform(image) for image in photographs.samples()])
    tame = make_zoo.TAME.get(name, 1.0)
    with torch.no_grad():
        scores = make_zoo.seeded_twin(name, 224, tame, torch.float64).eval()(images.double())
    return {
        "largest": make_zoo.round_digits(scores.abs().max().item(), 8),
        "first": [make_zoo.round_digits(row[: make_zoo.SHOWN].tolist(), 8) for row in scores],
        "norm": [make_zoo.round_digits(row.norm().item(), 8) for row in scores],
    }


if __name__ == "__main__":
    main()
