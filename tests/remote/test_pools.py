"""Pools whose workers are on another machine, or some of them."""

from __future__ import annotations

import os

import anyio
import far_side
import machines
import pytest
from deadlines import DEADLINE

import anyfork
from anyfork import aio

remote = machines.remote


def test_a_pool_works_on_another_machine():
    async def main():
        async with aio.RemoteTemplate(machines.PYTHON) as template, aio.Pool(template, max_workers=2) as pool:
            assert [result async for result in pool.map(far_side.double, range(100))] == list(range(0, 200, 2))
            with pytest.raises(LookupError, match="not there"):
                await pool.call(far_side.fail, "not there")

    anyio.run(main)


def test_a_pool_may_mix_machines_with_a_limit_for_each():
    async def main():
        async with (
            aio.RemoteTemplate(machines.PYTHON) as there,
            aio.Template() as here,
            aio.Pool({here: 1, there: 2}, max_workers=3, min_idle=3, load=1) as pool,
        ):
            seen = set()

            async def ask():
                seen.add(await pool.call(far_side.where_after, 0.05))

            with anyio.fail_after(DEADLINE):
                while len(seen) < 3:  # until all of them have been started
                    async with anyio.create_task_group() as group:
                        for _ in range(3):
                            group.start_soon(ask)
            assert sorted(is_there for is_there, _ in seen) == [False, True, True]

    anyio.run(main)


def test_the_workers_of_a_lost_machine_are_lost_and_the_others_go_on():
    async def main():
        async with aio.RemoteTemplate(machines.PYTHON) as there, aio.Template() as here:
            await there.ready()
            async with aio.Pool({here: 1, there: 1}, max_workers=2) as pool:
                assert await pool.call(far_side.double, 1) == 2
                os.kill(there.pid, 9)
                for number in range(20):
                    assert await pool.call(far_side.double, number) == number * 2

    anyio.run(main)


def test_an_executor_works_on_another_machine(remote):
    with anyfork.Executor(remote, max_workers=2) as executor:
        assert list(executor.map(far_side.double, range(50))) == list(range(0, 100, 2))
