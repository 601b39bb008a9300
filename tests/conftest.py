"""Fixtures for all tests."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import pytest


def pytest_configure(config):
    """Shares compiled programs between the processes of a run, including those that the tests start."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # xdist's workers inherit it
        programs = TemporaryDirectory(prefix="eqxcnn-programs-", ignore_cleanup_errors=True)
        config.add_cleanup(programs.cleanup)
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": programs.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        jax.config.update("jax_compilation_cache_dir", programs.name)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory):
    """Keeps decoded images out of the user's cache, and the C library's allocator as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQXCNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Training would make the test process keep all memory that any test ever used.
        patch.setenv("EQXCNN_KEEP_MEMORY", "0")
        yield


@pytest.fixture(scope="session")
def mnist():
    """The folder of the real MNIST."""
    root = os.environ.get("EQXCNN_TEST_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("needs EQXCNN_TEST_DATA, a folder with the MNIST parquet files in `mnist`")
    return str(Path(root) / "mnist")


@pytest.fixture(scope="module", autouse=True)
def clear_compiled_programs():
    """Frees the compiled programs of each test file: those of all files take gigabytes."""
    yield
    jax.clear_caches()
