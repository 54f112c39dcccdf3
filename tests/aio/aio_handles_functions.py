"""Functions that the processes of test_aio_handles.py run. They import little: each process imports them anew."""

from __future__ import annotations

import os
import socket
import sys


def answer(channel, *values):
    *values, expression = values
    channel.sendall(repr(eval(expression, {"v": values})).encode())


def write_to_descriptors(channel):
    _, fds, _, _ = socket.recv_fds(channel, 1, 1)
    os.write(fds[0], b"got it")


def say_at_once(channel, size):
    channel.sendall(b"\x01" * size)


def tell_the_end(channel, descriptor):
    os.write(descriptor.fileno(), repr(channel.recv(1)).encode())


async def wait_into(process, statuses):
    statuses.append(await process.wait())


async def run_beside(number):
    import asyncio

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", f"raise SystemExit({number})")
    assert await process.wait() == number


async def double(channel):
    async with channel:
        number = int(await channel.receive())
        await channel.send(f"{backend_name()} {2 * number}".encode())


def backend_name():
    trio = sys.modules.get("trio")
    return "trio" if trio is not None and trio.lowlevel.in_trio_run() else "asyncio"


async def say_all(channel, *values):
    await channel.send(repr(values).encode())


async def raise_something(channel):
    raise LookupError("not here")


async def exit_with(channel, code):
    raise SystemExit(code)
