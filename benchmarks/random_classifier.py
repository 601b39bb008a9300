"""Classifiers with random weights, for benchmarks whose times do not depend on the weights."""

import jax
import jax.numpy as jnp

import eqxcnn
from eqxcnn import zoo


def make_random_classifier(model: str) -> eqxcnn.ImageClassifier:
    """Returns a classifier with a network of the zoo and random weights."""
    card = zoo.card(model)
    network, state = zoo.create_model(model, key=jax.random.key(0))
    channels = card.input[2]
    return eqxcnn.ImageClassifier(
        name=model, model=network, state=state, mean=jnp.full(channels, 0.5), std=jnp.full(channels, 0.25),
        image_size=card.input[:2], class_names=tuple(f"class {index}" for index in range(card.num_classes)),
    )  # fmt: skip
