from _socket import socket
from collections.abc import Callable
from typing import Any, TypeAlias

from .template import Template

INTERFACE: int
FRAME: int
LIFELINE: int
ENDED: int
WAIT: int
FORKED: int
BORN_HERE: int
FAILED: int
CHILDLESS: int

_Hook: TypeAlias = Callable[[], object]
_Child: TypeAlias = tuple[int, int, int, int, float]

class ChildTable:
    def __len__(self) -> int: ...
    def __setitem__(self, pidfd: int, child: _Child, /) -> None: ...
    def __delitem__(self, pidfd: int, /) -> None: ...
    def pop(self, pidfd: int, otherwise: None, /) -> _Child | None: ...
    def values(self) -> list[_Child]: ...
    def items(self) -> list[tuple[int, _Child]]: ...

def choose_hooks(
    every: tuple[list[_Hook], list[_Hook], list[_Hook]],
    chosen: tuple[tuple[_Hook, ...], tuple[_Hook, ...], tuple[_Hook, ...]],
    os_fork: Callable[[], int],
    thread: object,
    /,
) -> None: ...
def reseeds(generator: object, state: tuple[int, ...], /) -> bool: ...
def fork() -> int: ...
def runs_hooks_in_parent() -> bool: ...
def runs_hooks_in_child() -> bool: ...
def run_hooks_in_child() -> None: ...
def collapse(start: int, end: int, /) -> int: ...
def make_immortal(objects: list[object], /) -> None: ...  # since Python 3.12
def prepare_births(parts: dict[str, Any], /) -> None: ...
def serve(
    template: Template,
    sock: socket,
    table: ChildTable,
    own: tuple[int, int, int, int, int, int],
    how: tuple[bool, bool, bool],
    several: int,
    title: tuple[bytes, int, int, int],
    /,
) -> tuple[int, int, int, Any]: ...
