"""Image classifiers for JAX: an Equinox model zoo, and the trainer that gives each its published score."""

from . import zoo
from .forward_pass import forward, normalize
from .inference import ImageClassifier, load

__version__ = "0.1.0"
__all__ = ["ImageClassifier", "forward", "load", "normalize", "zoo"]
