"""What the tests of pools have in common."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import anyio
import pytest
from pool_side import Gate, Seen

import anyfork
from anyfork import aio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    with contextlib.closing(gate):
        yield gate


@pytest.fixture
def pipes():
    """Yield two pipes, as files: the reading and the writing end of each."""
    ends = [os.fdopen(fd, mode, 0) for _ in range(2) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True)]
    yield ends
    for end in ends:
        end.close()


other_pipes = pipes


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="session")
def warm() -> Iterator[anyfork.Template]:
    """Yield a template that has loaded what workers need, for all tests: that takes longer than most of them."""
    with anyfork.Template.new_exec() as warm:
        yield warm.preload("anyio._backends._asyncio", "anyio._backends._trio", "pool_functions").ready()


@pytest.fixture
async def template(warm, anyio_backend) -> AsyncIterator[aio.Template]:
    """Yield a template whose forks become workers quickly, and close it at the end."""
    async with aio.Template.from_blocking(warm.fork()) as template:
        yield template


@pytest.fixture
async def tasks(anyio_backend) -> AsyncIterator[anyio.abc.TaskGroup]:
    """Yield a task group for calls that go on beside the test; cancel them at the end."""
    async with anyio.create_task_group() as tasks:
        yield tasks
        tasks.cancel_scope.cancel()
