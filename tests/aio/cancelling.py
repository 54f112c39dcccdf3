"""Cancelling what is awaited at every one of its checkpoints in turn."""

from __future__ import annotations

import contextlib
import itertools
import operator

import anyio

from anyfork.aio import _loop, _waiting, _worker_channel, _writer_task

CHECKPOINTS = [
    (_waiting, "checkpoint"),
    (_loop.TaskWait, "readable"),
    (_loop.TaskWait, "woken"),
    (_worker_channel, "checkpoint_if_cancelled"),
    (_worker_channel, "cancel_shielded_checkpoint"),
    (_worker_channel, "checkpoint"),
    (_loop, "wait_readable"),
    (_loop.Readiness, "wait"),
    (_writer_task, "checkpoint"),
    (_writer_task, "wait_writable"),
]


@contextlib.contextmanager
def cancelled_at(number, cancel=operator.methodcaller("cancel")):
    """Cancel what is awaited in this block when it comes to its checkpoint of this number; say whether it came there."""
    scope, count = anyio.CancelScope(), itertools.count(1)
    originals = [(module, name, getattr(module, name)) for module, name in CHECKPOINTS]

    def counting(original):
        async def checkpoint(*args):
            if next(count) == number:
                cancel(scope)
            return await original(*args)

        return checkpoint

    for module, name, original in originals:
        setattr(module, name, counting(original))
    try:
        with scope:
            yield scope
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


async def at_every_checkpoint(operation):
    """Call an operation again and again with a number, until it comes to no checkpoint of that number; return how many
    there were."""
    number = 1
    while await operation(number):
        number += 1
    return number - 1
