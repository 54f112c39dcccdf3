"""What a campaign does at a point of an operation, and which outcome of the operation is right then."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import operator
import os
import sys
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, ClassVar

import anyfork
from anyfork import Executor, Process, Template, Worker, aio

from .scenes import RELAYS, SECONDS, World, equal
from .shim import Shim
from .strikes import Interrupt, LineStrike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .scenes import Scene


class Weapon:
    """Strikes once, at the point of number ``at``, in the variant that its name says. One object serves one trial.

    ``place`` says where it struck; it stays empty when the operation had fewer points. ``exempt`` says that this point
    does not count, and ``fresh`` are descriptors that a system call had just returned.
    """

    variants: ClassVar[tuple[str, ...]] = ("",)
    spares: bool = (
        True  # the handle itself is not what it strikes at, so its next operation has to work where that is strict
    )

    def __init__(self, world: World, variant: str, at: int) -> None:
        self.world = world
        self.variant = variant
        self.at = at
        self.place = ""
        self.exempt = False
        self.fresh: frozenset[int] = frozenset()

    @contextlib.contextmanager
    def armed(self, act: Callable[[], object]) -> Iterator[None]:
        """Strike within this block."""
        raise NotImplementedError
        yield

    def problem(self, raised: BaseException | None, scene: Scene) -> str:
        """Return what is wrong with an operation that was struck and raised this, or returned; empty if nothing is."""
        raise NotImplementedError

    def lets_template_live(self, scene: Scene) -> bool:
        """Return whether the template that serves the scene must work right after the operation, as before."""
        return False


class LineWeapon(Weapon):
    """Strikes at lines that anyfork executes in the owner."""

    @contextlib.contextmanager
    def armed(self, act: Callable[[], object]) -> Iterator[None]:
        line = LineStrike(self.at, lambda: self.strike(act), _same_task())
        gc.collect()
        gc.disable()
        try:
            with line:
                yield
        finally:
            gc.enable()
            self.place, self.exempt, self.fresh = line.place, line.in_finalizer, line.fresh

    def strike(self, act: Callable[[], object]) -> None:
        """Do what is done at the line."""
        raise NotImplementedError


def _same_task() -> Callable[[], bool]:
    """Tell of later moments whether they belong to the present task, if there is one."""
    with contextlib.suppress(RuntimeError):
        task = asyncio.current_task()
        return lambda: asyncio.current_task() is task
    if "trio" in sys.modules:
        import trio

        with contextlib.suppress(RuntimeError):
            present = trio.lowlevel.current_task()
            return lambda: trio.lowlevel.in_trio_task() and trio.lowlevel.current_task() is present
    return lambda: True


class Interrupting(LineWeapon):
    """Raises an exception, which must come out of the operation."""

    def strike(self, act: Callable[[], object]) -> None:
        raise Interrupt(self.at)

    def problem(self, raised: BaseException | None, scene: Scene) -> str:
        if isinstance(raised, Interrupt):
            return ""
        if raised is None:
            return "the exception was swallowed"
        return f"the exception came out as {describe(raised)}"


ENDS = ("close", "kill")
KILLABLE = (Process, Worker, Executor, aio.Process, aio.Worker, aio.Pool)
AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"  # as concurrent.futures says it


class Reentering(LineWeapon):
    """Calls another operation, which must work as everywhere else, and so must the one that it is called in.

    The variant ``same`` calls the same operation of the same handle, ``close`` and ``kill`` end the handles that the
    operation uses. There an AnyforkError is right, too.
    """

    variants = ("same", "close", "kill", "worker", "executor", "call", "template", "fork", "collect")

    def __init__(self, world: World, variant: str, at: int) -> None:
        super().__init__(world, variant, at)
        self.spares = variant not in ENDS
        self._wrong = ""  # with the inner call, as text: its exception would keep what its frames refer to

    def strike(self, act: Callable[[], object]) -> None:
        try:
            self._call(act)
        except BaseException as error:
            if not self._may_refuse(error):
                self._wrong = f"the inner call raised {describe(error)}"

    def _call(self, act: Callable[[], object]) -> None:
        world = self.world
        match self.variant:
            case "same":
                result = act()
                if asyncio.iscoroutine(result):
                    result.close()  # nobody awaits it: that it can be made is all
            case "close" | "kill":
                end_handles(act, self.variant)
            case "worker":
                equal(world.worker.call(operator.neg, 3, timeout=SECONDS), -3)
            case "executor":
                equal(world.executor.submit(operator.neg, 3).result(SECONDS), -3)
            case "call":
                equal(anyfork.call(operator.neg, 3, timeout=SECONDS), -3)
            case "template":
                Template().ready(SECONDS).close()
            case "fork":
                world.template.fork().ready(SECONDS).close()
            case "collect":
                gc.collect()

    def problem(self, raised: BaseException | None, scene: Scene) -> str:
        if self._wrong:
            return self._wrong
        if raised is not None and not self._may_refuse(raised):
            return f"the outer call raised {describe(raised)}"
        return ""

    def _may_refuse(self, error: BaseException) -> bool:
        if self.variant in ENDS and isinstance(error, CancelledError):
            return True
        return self.variant in ("same", *ENDS) and is_clear(error)


def end_handles(act: Callable[[], object], how: str) -> None:
    """Close or kill all handles that an operation refers to, as a handler of SIGTERM might."""
    cells = [cell.cell_contents for cell in getattr(act, "__closure__", None) or ()]
    for handle in [*cells, getattr(act, "__self__", None)]:
        if how == "close" and isinstance(handle, Executor):
            handle.shutdown(wait=False)
        elif how == "close" and isinstance(handle, Template | Process | Worker):
            handle.close()
        elif how == "kill" and isinstance(handle, KILLABLE):
            handle.kill()


NUMBERS = ("EMFILE", "ENOMEM", "EAGAIN", "EINTR", "EPIPE", "SHORT")
ROLES = ("owner", "template", "child")


class Failing(Weapon):
    """Lets one system call fail, in the owner, in the template that serves the scene, or in that one's children."""

    variants = tuple(f"{role} {number}" for role in ROLES for number in NUMBERS)
    spares = False

    def lets_template_live(self, scene: Scene) -> bool:
        return scene.endures and not self.variant.endswith("EPIPE")  # which says that its owner is gone

    @contextlib.contextmanager
    def armed(self, act: Callable[[], object]) -> Iterator[None]:
        role, number = self.variant.split()
        shim = Shim.present()
        pid = os.getpid() if role == "owner" else self.world.serving
        shim.arm(role, pid, self.at, number)
        try:
            yield
        finally:
            self.place = shim.disarm()
            self.exempt = self.place.endswith(" not")  # such a call does not fail so

    def problem(self, raised: BaseException | None, scene: Scene) -> str:
        return "" if raised is None or is_clear(raised) or self._is_failure(raised) else f"it raised {describe(raised)}"

    def _is_failure(self, error: BaseException) -> bool:
        """Return whether it is what the failed call raises by itself."""
        number = self.variant.split()[1]
        return isinstance(error, OSError) and number != "SHORT" and error.errno == getattr(errno, number)


class Killing(Weapon):
    """Kills, or stops for a while, the owner, the template that serves it, a child of that, or a relay on either side of
    a connection, after its n-th message.

    The supervisor lets go on what was stopped, and looks what is left of an owner that was killed.
    """

    variants = tuple(f"{role} {what}" for role in (*ROLES, *RELAYS) for what in ("KILL", "STOP"))
    spares = False

    @contextlib.contextmanager
    def armed(self, act: Callable[[], object]) -> Iterator[None]:
        role, what = self.variant.split()
        shim = Shim.present()
        served = os.getpid() if role == "owner" else self.world.serving
        pid = self.world.relay(role) if role in RELAYS else served
        shim.arm(role, pid, self.at, what)
        try:
            yield
        finally:
            self.place = shim.disarm()

    def problem(self, raised: BaseException | None, scene: Scene) -> str:
        if raised is None or (self.variant.endswith("KILL") and is_clear(raised)):
            return ""
        return f"it raised {describe(raised)}"


WEAPONS: dict[str, type[Weapon]] = {
    "interrupt": Interrupting,
    "reenter": Reentering,
    "failure": Failing,
    "kill": Killing,
}


def variants_of(campaign: str, face: str) -> list[str]:
    """Return what a campaign does to the operations of a face: only remote templates have relays."""
    return [name for name in WEAPONS[campaign].variants if face == "remote" or name.partition(" ")[0] not in RELAYS]


def is_clear(error: BaseException) -> bool:
    """Return whether an error says why something does not work. A deadline that has passed says nothing."""
    if str(error) == AFTER_SHUTDOWN:
        return True
    return isinstance(error, anyfork.AnyforkError) and not isinstance(error, TimeoutError)


def describe(error: BaseException) -> str:
    """Return kind and text of an error, in one line, and where it was raised."""
    trace = error.__traceback__
    where = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        where = f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_qualname}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({where})"
