"""Markdown, as the generated pages of the site write it."""

from collections.abc import Iterable, Mapping
from typing import Any


def machine_words(environment: Mapping[str, Any]) -> str:
    """Machine and versions in a line; the commit is each run's own."""
    processor, cores = (environment.get(name, "-") for name in ("processor", "cores"))
    devices = ", ".join(environment.get("devices") or ["-"])
    packages = ("python", "jax", "jaxlib", "equinox", "optax")
    versions = ", ".join(f"{name} {environment.get(name, '-')}" for name in packages)
    return f"**{processor}, cores: {cores}, devices: {devices}**; {versions}"


def table(head: Iterable[Any], lines: Iterable[Iterable[Any]]) -> str:
    """A table; a `|` in a cell does not end it."""
    titles = list(head)
    rows = [titles, ["---"] * len(titles), *lines]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def section(name: str, text: str) -> str:
    """Text that other pages can include by its name, through `pymdownx.snippets`."""
    return f"<!-- --8<-- [start:{name}] -->\n\n{text}\n<!-- --8<-- [end:{name}] -->\n"


def code(command: str) -> str:
    """A block with a command."""
    return f"```bash\n{command}\n```\n"


def number(value: float) -> str:
    """Three significant digits, and no fewer before the point than there are."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
