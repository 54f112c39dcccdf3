"""Decoding of tasks in workers of the pools of multiprocessing and concurrent.futures.

A task that cannot be decoded ends a worker of these pools, and the caller waits for ever. This module turns such a task
into one that raises the error. A function that forks returns twice, and the worker's loop would answer twice. With this
module, the copy ends when it leaves the function.
"""

from __future__ import annotations

import _pickle
import io
from concurrent.futures.process import _CallItem
from multiprocessing import queues
from multiprocessing.pool import _helper_reraises_exception  # type: ignore[attr-defined]  # as its workers use it
from multiprocessing.reduction import ForkingPickler
from os import getpid

from ..birth.exit import end_copy, fail_copy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from typing import Any, NoReturn, Self

    from _typeshed import ReadableBuffer


INITIALIZER = 2  # the index of the initializer among the arguments of both kinds of workers


def take_tasks(worker: BaseProcess) -> None:
    """Install this decoding of tasks, and protect the initializer, in this process, which becomes this pool worker."""
    queues._ForkingPickler = _TaskPickler  # type: ignore[attr-defined]  # the decoder of its queues
    mine: Any = worker
    before, initializer, after = mine._args[:INITIALIZER], mine._args[INITIALIZER], mine._args[INITIALIZER + 1 :]
    mine._args = (*before, initializer and _Alone(initializer), *after)


class _Alone:
    """A wrapper of a function from which only the process that has called it returns; a forked copy ends."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        caller = getpid()
        try:
            result = self._function(*args, **keywords)
        except BaseException as error:
            if getpid() != caller:
                fail_copy(error)
            raise
        if getpid() != caller:
            end_copy(0)
        return result

    def __reduce__(self) -> tuple[object, ...]:
        return _itself, (self._function,)  # a value that only looks like a task is pickled unchanged


def _itself(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class _TaskPickler(ForkingPickler):
    @staticmethod
    def loads(data: ReadableBuffer) -> Any:  # type: ignore[override]  # the other one is pickle's
        try:
            return _alone(_pickle.loads(data))
        except Exception as error:  # decoding runs code of the values, which may raise anything
            task = _failed(bytes(data), error)
            if task is None:
                raise
            return task


def _alone(task: Any) -> Any:
    """Wrap the function of a task so that only this process returns from it; return any other object unchanged."""
    if isinstance(task, _CallItem):
        task.fn = _Alone(task.fn)
    elif _is_task(task) and callable(task[2]) and task[2] is not _helper_reraises_exception:
        return (*task[:2], _Alone(task[2]), *task[3:])
    return task


def _is_task(found: Any) -> bool:
    return isinstance(found, tuple) and len(found) == 5 and isinstance(found[0], int)


def _failed(data: bytes, error: Exception) -> Any:
    """Return a task that raises this error in place of the original one, or None if the data are not a task."""
    found = _HollowUnpickler(io.BytesIO(data)).load()
    if isinstance(found, _CallItem):
        return _CallItem(found.work_id, _raise, (error,), {})
    if _is_task(found):
        return (*found[:2], _raise, (error,), {})
    return None


def _raise(error: Exception) -> NoReturn:
    raise error


class _Hollow:
    """A stand-in for every object of a task, which accepts any arguments and state."""

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
