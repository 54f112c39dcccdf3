"""The asynchronous side of AnyEvent::Fork's manual: callbacks, signs of life, many at once; under every event loop."""

from __future__ import annotations

import contextlib
import json
import os

import anyio
import pytest
from original_owner import Pipe

import anyfork
from anyfork import aio

pytestmark = pytest.mark.anyio


async def read_to_end(stream: anyio.abc.ByteReceiveStream) -> bytes:
    data = b""
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            data += await stream.receive()
    return data


def inode(pipe: Pipe) -> int:
    return os.fstat(pipe.write.fileno()).st_ino


async def test_run_calls_back_with_the_socket_when_the_process_is_there():
    # Unlike the original: the program goes on at once, and is called when the function has been entered, not before.
    order: list[str] = []

    async def run(template: aio.Template, function: str, callback) -> None:
        async with await template.run(function) as process:
            await callback(process.channel)

    async def talk(channel: anyio.abc.UNIXSocketStream) -> None:
        order.append("called back")
        await channel.send(b"hello\n")
        assert await channel.receive() == b"HELLO\n"

    async with anyio.create_task_group() as group:
        template = aio.Template().preload("original_functions")
        group.start_soon(run, template, "original_functions:shout", talk)
        order.append("went on")
    assert order == ["went on", "called back"]


async def test_the_end_of_the_socket_is_the_sign_that_a_process_is_gone():
    # As in the manual: wait until the socket is readable and ends.
    async with aio.Template() as template:
        process = await template.run("original_functions:answer_once")
        gone = anyio.Event()

        async def watch() -> None:
            assert await read_to_end(process.channel) == b"go"
            gone.set()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await anyio.wait_all_tasks_blocked()
            assert not gone.is_set()
            await process.channel.send(b"go")
        assert gone.is_set()
        assert (await process.wait()).code == 0
        await process.aclose()


@pytest.mark.slow
async def test_a_thousand_processes_are_asked_for_before_any_is_awaited():
    # All of them answer.
    async with aio.Template() as template:
        template.preload("original_functions")
        for chunk in range(4):  # each takes three descriptors
            numbers = range(250 * chunk, 250 * (chunk + 1))
            processes = [template.fork().start("original_functions:answer", number) for number in numbers]
            answers = []
            for process in processes:
                async with await process.ready():
                    answers.append(json.loads(await read_to_end(process.channel)))
            assert answers == list(numbers)


async def test_ten_processes_are_prepared_forked_and_run_without_a_single_wait():
    # The manual's template for a process pool: all is queued, nothing is awaited until the workers answer.
    with Pipe() as first, Pipe() as second:
        template = aio.Template().preload("original_functions").send("before", first.write)
        pool = template.fork().send("after", second.write)
        processes = [pool.fork().start("original_functions:tell_arguments") for _ in range(10)]
        for process in processes:
            async with await process.ready():
                told = json.loads(await read_to_end(process.channel))
            assert told["arguments"] == ["before", inode(first), "after", inode(second)]
        await pool.aclose()
        await template.aclose()


async def test_a_template_that_was_killed_is_an_error_and_not_a_socket_that_never_ends():
    async with aio.Template() as template:
        await template.ready()
        assert template.pid is not None
        os.kill(template.pid, 9)
        with pytest.raises(anyfork.TemplateDiedError):
            await template.fork().run("original_functions:shout")
    async with await aio.Template().run("original_functions:answer", "new") as process:
        assert json.loads(await read_to_end(process.channel)) == "new"
