"""Fixtures for all tests."""

import functools
import gc
import os
from pathlib import Path

import jax
import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--first-cases", action="store_true", help="run parametrized tests with their first arguments only"
    )


#: The files that take longest, which the two processes of xdist start with: at the end, one would wait for the other.
LONGEST = (
    "training/test_processes.py", "weights/test_torch.py", "training/test_streaming.py", "training/test_devices.py",
    "training/test_job.py", "models/test_lowering.py", "recipe/test_shipped_recipes.py", "models/test_models.py",
    "test_docs_examples.py", "test_notebook.py", "training/test_train.py", "training/test_own_parts.py",
    "training/test_seeds.py", "benchmarks/test_scaling.py", "training/test_accuracy.py",
)  # fmt: skip


def pytest_collection_modifyitems(config, items):
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    if config.getoption("--first-cases"):
        first = {item.nodeid.partition("[")[0]: item for item in reversed(items)}
        items[:] = reversed(first.values())


def pytest_collection_finish(session):
    """Makes Python search for reference cycles rarely: after many traced programs, it takes a tenth of the time."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory):
    """Keeps decoded images out of the user's cache, and leaves the C library's allocator unchanged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQXCNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Training would make the test process keep all memory that any test ever used.
        patch.setenv("EQXCNN_KEEP_MEMORY", "0")
        yield


@pytest.fixture(scope="session", autouse=True)
def decode_digits_once():
    """Decodes the bundled digits once per size: hundreds of tests use them, and decoding with shape checks is slow."""
    # Imported late, because pytest turns on the checks of shapes after it has read this file.
    from eqxcnn.data import dataset, reading

    digits, decode_part, decoded = functools.cache(reading._read_digits), dataset.decode_part, {}

    def decode_part_once(part, column, preprocess, *arguments):
        if part.rows is not digits() or max(preprocess.size) > 32:
            yield from decode_part(part, column, preprocess, *arguments)
            return
        key = part.fingerprint, preprocess
        if key not in decoded:
            decoded[key] = list(decode_part(part, column, preprocess, *arguments))
        yield from decoded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_read_digits", digits)
        patch.setattr(dataset, "decode_part", decode_part_once)
        yield


def find_test_data(name, title):
    root = os.environ.get("EQXCNN_TEST_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"needs EQXCNN_TEST_DATA, a folder with the {title} parquet files in `{name}`")
    return str(Path(root) / name)


@pytest.fixture(scope="session")
def mnist():
    """The folder of the real MNIST."""
    return find_test_data("mnist", "MNIST")


@pytest.fixture(scope="session")
def cifar10():
    """The folder of the real CIFAR-10."""
    return find_test_data("cifar10", "CIFAR-10")


@pytest.fixture(scope="session")
def cats_vs_dogs():
    """The folder of the photographs of cats and dogs."""
    return find_test_data("cats_vs_dogs", "cats and dogs")


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    """A window of a headless Chromium."""
    from tests.serve.browser import Browser

    window = Browser(tmp_path_factory.mktemp("profile"))
    yield window
    window.close()


@pytest.fixture(scope="module")
def fast_compilation():
    """Skips XLA's optimizations in the rest of a file, for tests that spend most of their time in compilation."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def clear_compiled_programs():
    """Frees the compiled programs after each test file: the programs of all files together would take gigabytes."""
    yield
    jax.clear_caches()
