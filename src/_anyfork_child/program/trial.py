"""The trial of modules that programs have imported: which ones can be loaded, and leave nothing unsafe behind.

Runs in a process of its own, which is forked from the template that shall load them, and ends afterwards.
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib import _bootstrap

from .imports import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence
    from typing import Any, NoReturn

_importlib: Any = _bootstrap  # its functions are not in the stubs


class RefusedError(BaseException):
    """Raised by the import of a refused module; no ordinary handler takes it for a module that is missing."""


class Refusal:
    """A finder that refuses modules."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {*names}

    def find_spec(self, name: str, *_: object) -> None:
        """Raise RefusedError for a module that is refused, and find no other."""
        if name in self._names:
            raise RefusedError(name)


def try_loading(channel: _socket.socket, names: Sequence[str], refused: Sequence[str]) -> NoReturn:
    """Load modules without those that are refused. Send why some of them cannot be loaded, and which modules have left
    something behind that a template must not have, both by name.
    """
    sys.meta_path.insert(0, Refusal(refused))
    _importlib._find_and_load = ledger = Ledger()
    failed = {}
    for name in names:
        try:
            __import__(name)
        except RefusedError as error:
            failed[name] = f"it imports {error}"
        except BaseException as error:  # a module may raise anything while it is imported
            failed[name] = f"its import raises {type(error).__name__}: {error}"
    unsafe = {facts[0]: ", ".join(facts[4]) for facts in ledger.facts(()) if facts[4]}
    channel.sendall(marshal.dumps((failed, unsafe)))
    os._exit(0)  # threads that do not end may have been started
