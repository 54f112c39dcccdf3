"""The engine of an adapter: a package of other people that has to be installed, and new enough."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version


def require(name: str, least: str, extra: str) -> None:
    """Raise ImportError, which says what extra to install, unless an engine is installed and new enough.

    ``least`` is the oldest version that the adapter works with, which is that of the extra in pyproject.toml.
    """
    try:
        found = version(name)
    except PackageNotFoundError:
        found = None
    if found is not None and _numbers(found) >= _numbers(least):
        return
    what = f"no {name}" if found is None else f"{name} {found}"
    raise ImportError(
        f"anyfork.contrib.{extra} needs {name} {least} or newer, but there is {what}: install anyfork[{extra}]"
    )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
