"""Writes timm.json: a digest of timm's tensor names for each network with published weights. Needs torch and timm.

Run `python tests/golden/make_timm.py --tools FOLDER`, where FOLDER has `reference_models.py`. `timm.json` stores
the number of tensors and a digest of their names and sizes, but not their shapes, which may differ from ours
(`allow_reshape`).
"""

import argparse
import hashlib
import json
import sys
from math import prod
from pathlib import Path

import torch

from eqxcnn.registry import family
from eqxcnn.weights.names import names_of
from eqxcnn.weights.published import ON_HUB

FILE = Path(__file__).with_name("timm.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", required=True, help="the folder with reference_models.py")
    sys.path.insert(0, parser.parse_args().tools)
    import reference_models

    reference_models.build("squeezenet1_0", 2)  # declares the operators that torchvision needs, which timm imports
    import timm

    results = {}
    for name, row in ON_HUB.items():
        with torch.device("meta"):
            twin = timm.create_model(row.repository.removeprefix("timm/"), pretrained=False)
        names = names_of(family(name))
        sizes = {key: prod(value.shape) for key, value in twin.state_dict().items() if not names.is_ignored(key)}
        results[name] = {"tensors": len(sizes), "digest": digest(sizes)}
    FILE.write_text(json.dumps(results, indent=1) + "\n")


def digest(sizes: dict[str, int]) -> str:
    """Hashes names and sizes, as `tests/weights/test_published.py` does."""
    return hashlib.sha256("\n".join(f"{name} {sizes[name]}" for name in sorted(sizes)).encode()).hexdigest()


if __name__ == "__main__":
    main()
