"""The software and hardware that the result of a run depends on, besides its recipe."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

__all__ = ["environment"]


def environment() -> dict[str, Any]:
    """Returns what a result depends on besides the recipe: command, versions, machine, cores, devices and commit."""
    packages = ("eqxcnn", "jax", "jaxlib", "equinox", "optax", "numpy", "datasets", "pillow")
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": _cores(),
        "devices": [device.device_kind for device in jax.devices()],
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    """Returns an installed package's version; `None` if its metadata are missing, as in a copied or bundled
    installation."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Returns the CPU's name, or its architecture if the system does not report the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _cores() -> int | None:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _commit() -> str | None:
    """Returns the checkout's commit, with `-dirty` appended if files differ from it; `None` outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
