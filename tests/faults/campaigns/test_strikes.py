"""Strikes at some points of every operation: nothing is left, the handle works or says why not, others are untouched.

The points are always the same. ``scripts/campaign`` strikes at all of them.
"""

from __future__ import annotations

import re
import shlex

import pytest

from . import shim
from .__main__ import parse
from .async_scenes import LOOPS
from .limits import judge
from .scenes import SCENES
from .supervisor import WITH_SHIM, Tally, Trial, run
from .weapons import ENDS, variants_of

MANY = 10_000  # points: more than any operation has
# Campaigns and faces: from which point on each which one is tried, and the variants; all if none. The fast suite tries
# every third of them.
FAST = {
    ("interrupt", "executor"): (5, 97, ()),
    ("reenter", "executor"): (150, 401, ("same", "close", "worker", "executor", "collect")),
    ("kill", "process"): (2, 5, ()),
    ("failure", "process"): (2, 6, ("template ENOMEM",)),
}
# More points of those faces that hold at every one, in the slow group. ``scripts/campaign`` tries the others too.
THOROUGH = {"kill": (1, 2, ())}
FACES = ["template", "process", "worker", "call", "executor", "context", "remote", *LOOPS]


def strike(campaign: str, face: str, first: int, step: int, chosen: tuple[str, ...]) -> Tally:
    """Strike at some points of all operations of a face; return what is wrong."""
    if campaign in WITH_SHIM and shim.missing():
        pytest.skip(shim.missing())
    points = (first, MANY, step)
    variants = chosen or variants_of(campaign, face)
    scenes = [scene for scene in SCENES[face].values() if not scene.slow]
    return run(campaign, face, [Trial(scene.name, variant, points) for scene in scenes for variant in variants])


def check(tally: Tally) -> None:
    """Fail with a way to repeat each failure that is no known limit."""
    assert tally.tried
    faults = [outcome for outcome in tally.failures if not judge(tally.campaign, outcome)]
    assert not faults, "\n".join(f"{tally.command(fault)}\n    at {fault.place}: {fault.text}" for fault in faults)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize(("campaign", "face"), FAST)
def test_operations_that_are_struck_at_some_points_leave_everything_in_order(campaign, face, every):
    first, step, chosen = FAST[campaign, face]
    check(strike(campaign, face, first, step * every, chosen))


def test_a_worker_whose_close_is_interrupted_ends_as_it_would_have_when_it_is_closed_again():
    trials = [Trial("close", variant, (1, MANY, 11)) for variant in variants_of("interrupt", "worker")]
    check(run("interrupt", "worker", trials))


@pytest.mark.parametrize("loop", LOOPS)
def test_an_async_pool_goes_on_after_an_interrupt_in_the_middle_of_a_decision(loop):
    check(run("interrupt", loop, [Trial("Pool.map", "", (7, MANY, 103)), Trial("Pool.resize", "", (5, MANY, 31))]))


def test_a_request_waits_while_the_kernel_has_no_memory_for_it():
    check(run("failure", "template", [Trial("fork(attributes)", "owner ENOMEM", (1, MANY, 1))]))


@pytest.mark.slow
def test_a_relay_waits_while_the_kernel_has_no_memory_for_a_message():
    if shim.missing():
        pytest.skip(shim.missing())
    check(run("failure", "remote", [Trial("fork().run().wait()", "child ENOMEM", (1, MANY, 1))]))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("operation", ["run_program", "run"])
def test_a_template_is_taken_over_once_wherever_a_signal_handler_does_the_same(operation):
    check(run("reenter", "template", [Trial(operation, "same", (1, 120, 1))]))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("face", "operation"), [("process", "ready"), ("process", "wait"), ("worker", "call that raises")]
)
def test_a_handle_that_a_signal_handler_closes_in_the_middle_of_its_use_says_so(face, operation):
    check(run("reenter", face, [Trial(operation, variant, (1, MANY, 3)) for variant in ENDS]))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("campaign", THOROUGH)
def test_operations_that_are_struck_at_many_points_leave_everything_in_order(campaign, face):
    check(strike(campaign, face, *THOROUGH[campaign]))


@pytest.mark.parametrize(
    ("command", "has"),
    [
        ("interrupt --face pool-asyncio", "interrupt has no face 'pool-asyncio'; it has: template, .*, asyncio, trio"),
        ("load --face asyncio", "load has no face 'asyncio'; it has: executor, worker, pool-asyncio"),
        ("kill --face call --operation fork", "kill has no operation 'fork'; it has: call, "),
        ("failure --variant 'owner OOPS'", "failure has no variant 'owner OOPS'; it has: owner EMFILE, "),
        ("owners --face worker", "owners has no face 'worker'; it has: none"),
    ],
)
def test_the_command_line_says_what_there_is(capsys, command, has):
    with pytest.raises(SystemExit):
        parse(shlex.split(command))
    assert re.search(has, capsys.readouterr().err)


def test_the_scenes_of_the_async_faces_are_the_same_for_each_loop():
    assert len({tuple(SCENES[loop]) for loop in LOOPS}) == 1
