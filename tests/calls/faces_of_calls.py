"""What the programs of the tests do with their cases: the same calls here and in processes of each face."""

from __future__ import annotations

import anyio

import anyfork
from anyfork import aio


def compare(cases):
    """Print each result that differs from the one in this process, and each case whose own result changes by it."""
    right = [function(*args) for function, *args in cases]
    with anyfork.Executor(max_workers=1) as executor, anyfork.Worker(anyfork.Template()) as worker:
        faces = [anyfork.call, lambda function, *args: executor.submit(function, *args).result(), worker.call]
        for face in faces * 2:
            _report(right, [_tried(face, *case) for case in cases], cases)
    _report(right, anyio.run(_in_pool, cases), cases)
    _report(right, [function(*args) for function, *args in cases], cases)
    print("compared", len(cases))


def _tried(face, *case):
    try:
        return face(*case)
    except Exception as error:
        return repr(error)


async def _in_pool(cases):
    async with aio.Pool(aio.Template(), max_workers=1) as pool:
        found = []
        for case in cases:
            try:
                found.append(await pool.call(*case))
            except Exception as error:
                found.append(repr(error))
        return found


def _report(right, found, cases):
    for expected, seen, (function, *_) in zip(right, found, cases, strict=True):
        if seen != expected:
            print("different:", function.__name__, seen, expected)
