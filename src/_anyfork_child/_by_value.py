"""Values with what has no name on the other side: functions and classes travel by value, with cloudpickle."""

from __future__ import annotations

import sys
from types import CodeType, FunctionType

import cloudpickle

from ._reduction import CannotTravelError, reduce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._encoding import Encoded
    from ._receiver import Receiver

HIDDEN = "<dynamic-code>"  # what cloudpickle has in the place of a file name


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles by value what the receiver has not, and all else as ever."""

    def __init__(
        self, encoded: Encoded, protocol: int, take_buffer: Callable[[Any], bool] | None, receiver: Receiver
    ) -> None:
        super().__init__(encoded, protocol, take_buffer)
        self._encoded = encoded
        self._receiver = receiver

    def reducer_override(self, value: Any) -> Any:
        """As pickle asks for it."""
        reduced = reduce(self._encoded, value, self._receiver)
        if reduced is not None:
            return reduced
        if isinstance(value, CodeType):
            return _located(value, *self.dispatch_table[CodeType](value))
        if type(value).__name__ == "compiled_function" and self._receiver.name_of(value) is None:
            raise CannotTravelError(
                f"{value.__qualname__} was compiled (by Nuitka), and has no code that could: put it into a module"
            )
        if not isinstance(value, FunctionType | type):
            return super().reducer_override(value)
        module = sys.modules.get(value.__module__)
        if module is not None and not self._receiver.has(value.__module__):
            cloudpickle.register_pickle_by_value(module)
        reduced = super().reducer_override(value)
        if isinstance(value, type):
            _keep_path(value, reduced)
        return reduced


def _located(code: CodeType, make: object, args: tuple[object, ...]) -> tuple[object, tuple[object, ...]]:
    """Say of code where it comes from, which tracebacks, debuggers and coverage need; cloudpickle leaves that out."""
    return make, tuple(code.co_filename if isinstance(part, str) and part == HIDDEN else part for part in args)


def _keep_path(cls: type, reduced: Any) -> None:
    """Say where a nested class is found, by which it comes back as itself: cloudpickle keeps only its name."""
    if isinstance(reduced, tuple) and reduced[0].__name__ == "_make_skeleton_class":
        keywords = reduced[1][3]
        keywords.setdefault("__qualname__", cls.__qualname__)
