"""The address of a model on the Hugging Face Hub, `hub:user/name` or `hub:user/name@revision`."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, show

__all__ = ["HubAddress", "check_repository", "check_revision", "find_address", "parse_address"]

_PREFIX = "hub:"
#: The Hub's limit on the length of `user/name`.
_MAX_REPOSITORY = 96
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_MAX_REVISION = 200
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """A model on the Hub.

    - `repository`: `user/name`, or `organization/name`.
    - `revision`: a branch, a tag or a commit hash; `None` for the newest commit of the main branch.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{_PREFIX}{self.repository}" + ("" if self.revision is None else f"@{self.revision}")

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit hash, so that the address always refers to the same bytes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None


def find_address(text: Path | str) -> HubAddress | None:
    """Returns the address that a user gives in place of a folder or a name; `None` unless it starts with `hub:`.

    **Raises:** `InputError` if the text starts with `hub:` but is not an address.
    """
    plain = text.as_posix() if isinstance(text, Path) else text
    return parse_address(plain) if plain.startswith(_PREFIX) else None


def parse_address(text: str) -> HubAddress:
    """Parses `user/name` or `user/name@revision`, with or without `hub:`.

    **Raises:** `InputError` for any other text.
    """
    repository, at, revision = text.removeprefix(_PREFIX).partition("@")
    check_repository(repository)
    if at:
        check_revision(revision)
    return HubAddress(repository, revision if at else None)


def check_repository(name: str) -> None:
    """**Raises:** `InputError` unless the Hub allows `name` as the name of a repository."""
    parts = name.split("/")
    is_valid = len(parts) == 2 and all(_PART.fullmatch(part) for part in parts) and len(name) <= _MAX_REPOSITORY
    if not is_valid or "--" in name or ".." in name or name.endswith(".git"):
        raise InputError(
            f"{show(name)} is not the name of a model on the Hub: give user/name, with letters, digits, `_`, single "
            f"`-` and single `.`, and at most {_MAX_REPOSITORY} characters"
        )


def check_revision(name: str) -> None:
    """**Raises:** `InputError` unless `name` can be a branch, a tag or a commit hash."""
    if not _REVISION.fullmatch(name) or ".." in name or len(name) > _MAX_REVISION:
        raise InputError(f"the revision {show(name)} must be a branch, a tag or a commit hash, such as main or v1.0")
