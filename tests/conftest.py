"""What several test files share."""

import os
from pathlib import Path

import jax
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What is exhaustive is slow."""
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Decoded images of the tests stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQXCNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def mnist():
    """The folder of the real MNIST."""
    root = os.environ.get("EQXCNN_TEST_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("needs EQXCNN_TEST_DATA, a folder with the MNIST parquet files in `mnist`")
    return str(Path(root) / "mnist")


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs():
    """A program that was compiled stays in memory otherwise: those of all files are gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def ordinary_memory():
    """What training asks of the allocator holds for the whole process, which would keep all memory it ever had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eqxcnn.training.trainer.keep_freed_memory", lambda: None)
        yield
