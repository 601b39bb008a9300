"""Shares trained classifiers on the Hugging Face Hub: `push` uploads one with a model card, `pull` downloads one."""

from .card import make_card
from .download import pull
from .upload import push

__all__ = ["make_card", "pull", "push"]
