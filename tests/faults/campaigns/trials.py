"""A program that tries operations of one face, at one point after the other, and says what came of each.

The job is a JSON object on standard input: the campaign, the face, and for each operation and variant the points. Before
each trial one line says what comes, and one line after it what came of it. ``supervisor`` starts this program, and ends it
when it says nothing more.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio

from anyfork import Template, aio

from . import state
from .async_scenes import LOOPS
from .async_scenes import works as async_works
from .scenes import SCENES, SECONDS, Scene, World, remote, works
from .shim import VARIABLE, Shim
from .weapons import WEAPONS, Weapon, describe, is_clear

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

CHANGED = "the template that served it is not as before: "
ENOUGH = 3 * SECONDS  # seconds for the next operation on a handle


class UnusableError(Exception):
    """A thread does not come back, or a bystander was harmed: this program is of no more use."""


def main() -> None:
    """Do the job that stands on standard input."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    job = json.load(sys.stdin)
    face = job["face"]
    if VARIABLE in os.environ:
        Shim.present()
    world = World()
    if face == "remote":
        with remote(world):  # it stays
            pass
    _warm_up(world, face, SCENES[face])
    gc.collect()
    gc.freeze()
    for name, variant, points in job["trials"]:
        for at in range(*points):
            say(operation=name, variant=variant, at=at)
            began = time.monotonic()
            weapon = WEAPONS[job["campaign"]](world, variant, at)
            kind, text = try_once(world, face, SCENES[face][name], weapon, job["patience"])
            say(kind=kind, text=text, place=weapon.place, seconds=round(time.monotonic() - began, 4))
            if kind == "unusable":
                sys.stdout.flush()
                signal.raise_signal(signal.SIGKILL)
            if kind in ("beyond", "broken"):
                break
    world.close()


def say(**values: object) -> None:
    """Write one line for the supervisor."""
    print(json.dumps(values), flush=True)


def _warm_up(world: World, face: str, scenes: dict[str, Scene]) -> None:
    """Do some operation once, so that what is loaded at the first use is there."""
    quick = next(scene for scene in scenes.values() if not scene.slow)
    try_once(world, face, quick, _Harmless(world, "", 0))
    world.check()


class _Harmless(Weapon):
    """Does nothing."""

    def armed(self, act: Callable[[], object]) -> Any:
        import contextlib

        return contextlib.nullcontext()

    def problem(self, raised: BaseException | None, scene: Scene) -> str:
        return ""


def try_once(
    world: World, face: str, scene: Scene, weapon: Weapon, patience: float = state.PATIENCE
) -> tuple[str, str]:
    """Play a scene once; return the kind of its outcome, and what is to be said about it."""
    before = state.current()
    world.before = before.processes
    world.harm = weapon.variant if not weapon.spares else ""
    try:
        kind, text = (_play_async if face in LOOPS else _play)(world, scene, weapon, face)
        world.check()
    except BaseException as error:
        return "unusable", describe(error)
    finally:
        world.harm = ""
    gc.collect()
    before.processes.setdefault(world.default, "in the place of one that was killed")
    left = [line for line in state.leftovers(before, patience) if not _is_fresh(line, weapon)]
    if left:
        return "failed" if weapon.place else "broken", "; ".join(filter(None, [text, *left]))
    if not weapon.place:
        return ("broken", text) if kind == "failed" else ("beyond", "")
    return ("exempt", "") if weapon.exempt and kind != "failed" else (kind, text)


def _is_fresh(line: str, weapon: Weapon) -> bool:
    return any(line.startswith(f"descriptor {fd} is left") for fd in weapon.fresh)


def _play(world: World, scene: Scene, weapon: Weapon, _face: str) -> tuple[str, str]:
    play: Generator[Callable[[], object], None, None] = scene.play(world)
    act = next(play)
    try:
        with weapon.armed(act):
            act()
    except BaseException as error:
        problem = _judge(weapon, error, scene)
    else:
        problem = _judge(weapon, None, scene)
    del act
    if not problem and _must_work(weapon, scene) and isinstance(world.handle, Template):
        try:
            works(world.handle)
        except Exception as error:
            problem = CHANGED + describe(error)
    refused = _in_another_thread(lambda: next(play, None))
    return _outcome(scene, weapon, problem, refused)


def _play_async(world: World, scene: Scene, weapon: Weapon, face: str) -> tuple[str, str]:
    async def main() -> tuple[str, BaseException | None]:
        play = scene.play(world)
        act = await anext(play)
        raised: BaseException | None = None
        try:
            with weapon.armed(act), anyio.fail_after(SECONDS):
                await act()
        except BaseException as error:
            problem = _judge(weapon, error, scene)
        else:
            problem = _judge(weapon, None, scene)
        del act
        if not problem and _must_work(weapon, scene) and isinstance(world.handle, aio.Template):
            try:
                await async_works(world.handle)
            except Exception as error:
                problem = CHANGED + describe(error)
        try:
            with anyio.fail_after(ENOUGH):
                await anext(play, None)
        except Exception as error:
            raised = error
        finally:
            await play.aclose()
        return problem, raised

    problem, refused = anyio.run(main, backend=face)
    return _outcome(scene, weapon, problem, refused)


def _judge(weapon: Weapon, raised: BaseException | None, scene: Scene) -> str:
    """Return what is wrong with how the operation has ended."""
    if weapon.place and not weapon.exempt:
        return weapon.problem(raised, scene)
    return "" if raised is None else f"without a strike it raised {describe(raised)}"


def _must_work(weapon: Weapon, scene: Scene) -> bool:
    return bool(weapon.place) and not weapon.exempt and weapon.lets_template_live(scene)


def _outcome(scene: Scene, weapon: Weapon, problem: str, refused: BaseException | None) -> tuple[str, str]:
    if problem:
        return "failed", problem
    if refused is None:
        return "survived", ""
    may_refuse = is_clear(refused) and not (scene.strict and weapon.spares)
    return "refused" if may_refuse else "failed", f"the next operation raised {describe(refused)}"


def _in_another_thread(action: Callable[[], object]) -> BaseException | None:
    """Do something where locks that this thread has kept are in the way; return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="next operation", daemon=True)
    thread.start()
    thread.join(ENOUGH)
    if thread.is_alive():
        faulthandler.dump_traceback(all_threads=True)
        raise UnusableError("the next operation hangs in another thread")
    return raised[0] if raised else None


if __name__ == "__main__":
    main()
