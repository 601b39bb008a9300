"""Functions that format Markdown for the site's generated pages."""

from collections.abc import Iterable, Mapping
from typing import Any


def format_environment(environment: Mapping[str, Any]) -> str:
    """Returns the machine and the package versions on one line, without the commit, which differs between runs."""
    processor, cores = (environment.get(name, "-") for name in ("processor", "cores"))
    devices = ", ".join(environment.get("devices") or ["-"])
    packages = ("python", "jax", "jaxlib", "equinox", "optax")
    versions = ", ".join(f"{name} {environment.get(name, '-')}" for name in packages)
    return f"**{processor}, cores: {cores}, devices: {devices}**; {versions}"


def format_table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Returns a table, with every `|` inside a cell escaped."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def format_section(name: str, text: str) -> str:
    """Adds a marker before and after a text, so that other pages can include the text through `pymdownx.snippets`."""
    return f"<!-- --8<-- [start:{name}] -->\n\n{text}\n<!-- --8<-- [end:{name}] -->\n"


def format_code(command: str) -> str:
    """Returns a fenced block that holds a shell command."""
    return f"```bash\n{command}\n```\n"


def format_number(value: float) -> str:
    """Returns a number with three significant digits, or as an integer from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
