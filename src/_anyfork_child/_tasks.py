"""Tasks of the pools of multiprocessing and concurrent.futures, as their workers decode them.

A worker of these ends by a task that it cannot decode, and who waits for it waits for ever. Here such a task becomes
one that raises what was wrong.
"""

from __future__ import annotations

import _pickle
import io
from concurrent.futures.process import _CallItem
from multiprocessing import queues
from multiprocessing.reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Self

    from _typeshed import ReadableBuffer


def take_tasks() -> None:
    """Decode tasks so in this process, which is a worker of a pool."""
    queues._ForkingPickler = _TaskPickler  # type: ignore[attr-defined]  # what its queues decode with


class _TaskPickler(ForkingPickler):
    @staticmethod
    def loads(data: ReadableBuffer) -> Any:  # type: ignore[override]  # the other one is pickle's
        try:
            return _pickle.loads(data)
        except Exception as error:  # decoding runs code of the values, which may raise anything
            task = _failed(bytes(data), error)
            if task is None:
                raise
            return task


def _failed(data: bytes, error: Exception) -> Any:
    """Return the task that raises this error in the place of one; None for what is no task."""
    found = _HollowUnpickler(io.BytesIO(data)).load()
    if isinstance(found, _CallItem):
        return _CallItem(found.work_id, _raise, (error,), {})
    if isinstance(found, tuple) and len(found) == 5 and isinstance(found[0], int):
        return (*found[:2], _raise, (error,), {})
    return None


def _raise(error: Exception) -> NoReturn:
    raise error


class _Hollow:
    """In the place of every object of a task: it takes whatever comes."""

    def __new__(cls, *_: object, **__: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> _Hollow:
        return _Hollow()

    append = extend = add = __setstate__


class _HollowUnpickler(_pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _CallItem if (module, name) == (_CallItem.__module__, _CallItem.__name__) else _Hollow
