"""The 1,000 classes of ImageNet (ILSVRC 2012), in the order of the logits of all published ImageNet weights."""

from functools import cache
from pathlib import Path

__all__ = ["class_names", "synsets"]


def class_names() -> tuple[str, ...]:
    """Returns the names of the classes, such as `tench`; they are unique, and the same as torchvision's."""
    return tuple(name for _, name in _read_classes())


def synsets() -> tuple[str, ...]:
    """Returns the WordNet identifiers of the classes, such as `n01440764`: the names of ImageNet's folders, sorted."""
    return tuple(synset for synset, _ in _read_classes())


@cache
def _read_classes() -> list[tuple[str, str]]:
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return [(synset, name) for synset, _, name in (line.partition(" ") for line in text.splitlines())]
