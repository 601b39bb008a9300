"""Shares trained classifiers on the Hugging Face Hub: `push` with a model card, and `pull`."""

from .card import make_card
from .download import pull
from .upload import push

__all__ = ["make_card", "pull", "push"]
