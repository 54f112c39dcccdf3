"""The engine of an adapter: a package of other people that has to be installed, and new enough."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Engine:
    """A block that imports an engine. ImportError says which extra to install if that fails or is too old.

    ``least`` is the oldest version that the adapter works with, which is that of the extra in pyproject.toml.
    """

    def __init__(self, name: str, least: str, extra: str) -> None:
        self._name = name
        self._least = least
        self._extra = extra

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, ImportError):
            return
        found = self._version()
        if error is None and found is not None and _numbers(found) >= _numbers(self._least):
            return
        what = f"{self._name} {found}" if found is not None else f"no {self._name}"
        raise ImportError(
            f"anyfork.contrib.{self._extra} needs {self._name} {self._least} or newer, but there is {what}: "
            f"install anyfork[{self._extra}]"
        ) from error

    def _version(self) -> str | None:
        try:
            return version(self._name)
        except PackageNotFoundError:
            return None


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
