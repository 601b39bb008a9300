"""Shares trained classifiers on the Hugging Face Hub: `push` uploads them with a model card, `pull` downloads them."""

from .card import make_card
from .download import pull
from .upload import push

__all__ = ["make_card", "pull", "push"]
