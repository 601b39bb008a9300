"""Image classifiers for JAX: an Equinox model zoo, and a trainer with published recipes."""

from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from . import augment, data, explain, export, hub, metrics, training, zoo
    from .errors import InputError
    from .features import Features, extract
    from .forward_pass import forward, forward_features, normalize
    from .inference import ImageClassifier
    from .networks import ChannelsFirst
    from .recipe import Recipe, load_recipe
    from .saved_classifier import load, save
    from .training import Callback, fit, fit_seeds, resume

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "ChannelsFirst",
    "Features",
    "ImageClassifier",
    "InputError",
    "Recipe",
    "augment",
    "data",
    "explain",
    "export",
    "extract",
    "fit",
    "fit_seeds",
    "forward",
    "forward_features",
    "hub",
    "load",
    "load_recipe",
    "metrics",
    "normalize",
    "resume",
    "save",
    "training",
    "zoo",
]

#: The module of each name. A module is imported when a name is first used, because importing JAX takes half a second.
_HOMES = {
    "Callback": "training",
    "ChannelsFirst": "networks",
    "Features": "features",
    "ImageClassifier": "inference",
    "InputError": "errors",
    "Recipe": "recipe",
    "extract": "features",
    "fit": "training",
    "fit_seeds": "training",
    "forward": "forward_pass",
    "forward_features": "forward_pass",
    "load": "saved_classifier",
    "load_recipe": "recipe",
    "normalize": "forward_pass",
    "resume": "training",
    "save": "saved_classifier",
}

__getattr__, __dir__ = lazy_names(__name__, __all__, _HOMES)
