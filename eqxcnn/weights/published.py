"""Trained weights by model name, in this package or on the Hub, and how they are adapted to another head or stem."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..errors import InputError
from ..hub_connection import why_offline
from ..images import Preprocess
from ..registry import build, family, variant
from ..types import Classifier, Key
from . import imagenet
from .bundled import BUNDLED, Bundled, load_bundled_tensors
from .files import digest_file, load_safetensors
from .fit import fit_tensors
from .names import names_of
from .presets import HALF, IMAGENET
from .tensors import from_tensors, tensor_shapes, to_tensors
from .torch import convert_from_torch

__all__ = ["ON_HUB", "PUBLISHED", "Published", "build_published", "find_published", "load_published_tensors"]

_FILE = "model.safetensors"


@dataclass(frozen=True)
class Published:
    """A file of trained weights on the Hub.

    - `repository`, `revision`: the repository on the Hub, and its commit.
    - `sha256`: the hash of the file.
    - `preprocess`: size, resizing and normalization of the images that the weights expect.
    """

    repository: str
    revision: str
    sha256: str
    preprocess: Preprocess = IMAGENET

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, in the order of the logits."""
        return imagenet.class_names()


_BICUBIC = replace(IMAGENET, interpolation="bicubic")
_BICUBIC_90 = replace(_BICUBIC, crop_fraction=0.9)


#: Weights on the Hub by model name, with the preprocessing that timm publishes. `tv_in1k` marks torchvision's
#: `IMAGENET1K_V1` weights, copied by timm; these have torchvision's preprocessing.
ON_HUB: Mapping[str, Published] = {
    "convnext_tiny": Published(
        "timm/convnext_tiny.fb_in1k",
        "b43a6303c9fcf176d2d707478a128c2c91e93528",
        "08b9dc9c3a3a29421de7996761e176501896d1ae7fc3085cf56a643772329276",
        _BICUBIC,
    ),
    "densenet121": Published(
        "timm/densenet121.tv_in1k",
        "f0d0f2698a02cb133b09d48396db6e1e46fe9f3b",
        "c894c6d9caa317a8ca1942986dee7a16a86c77734a4d691d2abe05389cfef358",
    ),
    "efficientnet_b0": Published(
        "timm/efficientnet_b0.ra_in1k",
        "1b5383e5f79cc0f7fc067e372f8f26a5fa73f26a",
        "d569899762ea9b1384ee07f4af64805cf8caa1c55f9253ebb1080dc40e87a2cd",
        _BICUBIC,
    ),
    "mobilenet_v2": Published(
        "timm/mobilenetv2_100.ra_in1k",
        "5afa12513b048c79b9147a5d210e9bdc50035481",
        "55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e",
        _BICUBIC,
    ),
    "resnet18": Published(
        "timm/resnet18.tv_in1k",
        "bbd144b3e5565108aad885f145491d11bc6ce807",
        "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    ),
    "resnet34": Published(
        "timm/resnet34.tv_in1k",
        "1b7b21cca82ff974d341713f777bf740c2db38c4",
        "0bb82595a564991a9d424708b33f5d843f5aaed7f6c0886ff10849ff97022235",
    ),
    "resnet50": Published(
        "timm/resnet50.tv_in1k",
        "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
        "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    ),
    "swin_t": Published(
        "timm/swin_tiny_patch4_window7_224.ms_in1k",
        "4cc3a7275b50b53a7bec45f32c236ebe64227cff",
        "fb01861f793143135fa0d6cd97b1631e4b33eaa3ee162bbea9e62de1c76ebac1",
        _BICUBIC_90,
    ),
    "swin_s": Published(
        "timm/swin_small_patch4_window7_224.ms_in1k",
        "b59828b00f6fac85d99c8eac48094b605b6e7ec3",
        "8fa31b116680e02e4ad6ad06eb29a1b9ca56bd93a2e88510a0bc7e82e0e2024f",
        _BICUBIC_90,
    ),
    "swin_b": Published(
        "timm/swin_base_patch4_window7_224.ms_in1k",
        "160443c7878650977f11a3a89d4ed685b001a304",
        "6544e46498082f24e90b3e5269d909dad03aa016db8711777313c162e136420c",
        _BICUBIC_90,
    ),
    "vgg16": Published(
        "timm/vgg16.tv_in1k",
        "b8d8aa2dd860af9233c8c67385a8097fd6c35d3f",
        "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
    ),
    "vit_b_16": Published(
        "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "063c6c38a5d8510b2e57df480445e94b231dad2c",
        "32aa17d6e17b43500f531d5f6dc9bc93e56ed8841b8a75682e1bb295d722405b",
        replace(_BICUBIC_90, mean=HALF, std=HALF),
    ),
    "wide_resnet50_2": Published(
        "timm/wide_resnet50_2.tv_in1k",
        "343c5fa59ca8a131e0cdf42144a641b36a0387c2",
        "df6fb6c4824769769de18e14088475fd6ee94236849aa4e5d8022ba9d9a9a16c",
    ),
}


#: All trained weights by model name, in this package or on the Hub.
PUBLISHED: Mapping[str, Published | Bundled] = {**ON_HUB, **BUNDLED}


def build_published(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    key: Key,
    **architecture: Any,
) -> tuple[Classifier, eqx.nn.State]:
    """Builds a model with trained weights. See `zoo.create_model(pretrained=True)` for the arguments and errors.

    If `num_classes` differs from the number of classes in the file, the head has random weights. If `in_channels`
    differs, `fit_tensors` adapts the stem.
    """
    row = _require(name)
    if isinstance(row, Bundled) and image_size is None:
        # The shape of a dense layer on a flattened map depends on the image size, which the recipe may have changed.
        image_size = row.preprocess.size
    published = load_published_tensors(name, image_size=image_size, **architecture)
    sizes: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    model, state = eqx.filter_eval_shape(build, name, **sizes, **architecture, key=key)
    shapes = tensor_shapes(model, state)
    fitted = fit_tensors(published, shapes, f"the file of trained weights of `{name}`")
    if set(fitted) != set(shapes):
        # Only a model with a new head needs random weights; drawing random weights takes most of the loading time.
        model, state = build(name, **sizes, **architecture, key=key)
        fitted = to_tensors(model, state) | fitted
    return from_tensors(model, state, fitted)


def load_published_tensors(name: str, **arguments: Any) -> dict[str, np.ndarray]:
    """Returns a model's trained weights as arrays by eqxcnn's tensor names, with the original head and stem.

    **Raises:** `InputError` if there are no trained weights, if the file cannot be downloaded, or if its hash is wrong.
    """
    published = _require(name)
    if isinstance(published, Bundled):
        return load_bundled_tensors(published)
    model, state = eqx.filter_eval_shape(build, name, **arguments, key=jax.random.key(0))
    path = _fetch(name, published)
    _verify_hash(path, published)
    names = names_of(family(name)).for_timm()
    return convert_from_torch(name, names, tensor_shapes(model, state), load_safetensors(path))


def find_published(text: Path | str) -> Published | Bundled | None:
    """Returns the trained weights of a model by name; `None` if there are none, or if `text` is an existing path."""
    return None if os.path.exists(text) else PUBLISHED.get(str(text))


def _require(name: str) -> Published | Bundled:
    variant(name)
    if name not in PUBLISHED:
        raise InputError(
            f"`pretrained` (=True): there are no trained weights for `{name}`, only for "
            f"{', '.join(sorted(PUBLISHED))}: leave `pretrained` out, or load your own file with "
            "`eqxcnn.weights.from_torch`"
        )
    return PUBLISHED[name]


def _fetch(name: str, published: Published) -> Path:
    """Returns the path of the file in the Hub's local cache; downloads the file if it is not there.

    **Raises:** `InputError` if the file is not in the cache and cannot be downloaded.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    file = (published.repository, _FILE)
    cached = huggingface_hub.try_to_load_from_cache(*file, revision=published.revision)
    if isinstance(cached, str):
        return Path(cached)
    reason, cause = why_offline(), None  # Offline, the Hub's client would retry for half a minute.
    if reason is None:
        try:
            return Path(huggingface_hub.hf_hub_download(*file, revision=published.revision))
        except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
            reason, cause = str(error).strip().partition("\n")[0].rstrip("."), error
    raise InputError(
        f"the weights of `{name}` cannot be downloaded from the Hugging Face Hub ({published.repository}: {reason}) "
        "and this machine has no copy: connect once to the internet to download it, or load your own file with "
        "`eqxcnn.weights.from_torch`"
    ) from cause


def _verify_hash(path: Path, published: Published) -> None:
    """Raises `InputError` if the file's SHA-256 hash differs from the recorded hash."""
    found = digest_file(path)
    if found != published.sha256:
        raise InputError(
            f"`{path}` is not the recorded file of {published.repository} (its sha256 is {found[:12]}..., expected "
            f"{published.sha256[:12]}...): delete it and try again"
        )
