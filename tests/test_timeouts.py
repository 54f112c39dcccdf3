"""Timeouts: what every face takes, and what it refuses."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan
from threading import TIMEOUT_MAX

import pytest

import anyfork
from anyfork import Template, Worker, aio
from anyfork._system.timeouts import deadline, one_wait, remaining, seconds

TAKEN = [(None, None), (0, 0.0), (-5, 0.0), (1.5, 1.5), (True, 1.0), (inf, inf), (10**400, inf), (Fraction(1, 2), 0.5)]
REFUSED = ["5", b"5", nan, [], 1j]
LONG = [inf, TIMEOUT_MAX, 3_000_000]


@pytest.mark.parametrize(("given", "expected"), TAKEN)
def test_a_timeout_is_a_number_of_seconds(given, expected):
    assert seconds(given) == expected


@pytest.mark.parametrize("given", REFUSED, ids=repr)
def test_what_is_no_number_is_refused_by_an_error_that_names_the_timeout(given):
    with pytest.raises(anyfork.ArgumentError, match="timeout is a number of seconds, not "):
        seconds(given)


def test_a_wait_for_ever_has_no_deadline():
    assert deadline(None) is deadline(inf) is remaining(None) is None
    assert one_wait(None) == -1
    assert one_wait(1e300) == one_wait(1e9)


CALLS = {
    "Template.ready": lambda timeout: Template().ready(timeout),
    "Template.run": lambda timeout: Template().run("builtins:id", timeout=timeout).close(),
    "Process.ready": lambda timeout: Template().start("builtins:id").ready(timeout).close(),
    "Process.wait": lambda timeout: Template().start("builtins:id").wait(timeout),
    "call": lambda timeout: anyfork.call(abs, -1, timeout=timeout),
}
OF_WORKERS = {
    "Worker.ready": lambda worker, timeout: worker.ready(timeout),
    "Worker.call": lambda worker, timeout: worker.call(abs, -1, timeout=timeout),
}


@pytest.mark.parametrize("timeout", LONG)
@pytest.mark.parametrize("name", CALLS)
def test_every_operation_takes_the_timeouts_of_threading_and_infinity(name, timeout):
    CALLS[name](timeout)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("timeout", [nan, "5"])
def test_every_operation_refuses_what_is_no_timeout(name, timeout):
    with pytest.raises(anyfork.ArgumentError, match="timeout"):
        CALLS[name](timeout)


def test_workers_take_and_refuse_the_same_timeouts():
    with Worker() as worker:
        for operation in OF_WORKERS.values():
            for timeout in LONG:
                operation(worker, timeout)
            for timeout in (nan, "5"):
                with pytest.raises(anyfork.ArgumentError, match="timeout"):
                    operation(worker, timeout)
        assert worker.call(abs, -2) == 2


@pytest.mark.anyio
async def test_async_calls_take_and_refuse_the_same_timeouts():
    async with aio.Worker() as worker:
        for timeout in LONG:
            assert await worker.call(abs, -1, timeout=timeout) == 1
        for timeout in (nan, "5"):
            with pytest.raises(anyfork.ArgumentError, match="timeout"):
                await worker.call(abs, -1, timeout=timeout)
            with pytest.raises(anyfork.ArgumentError, match="timeout"):
                await aio.call(abs, -1, timeout=timeout)
