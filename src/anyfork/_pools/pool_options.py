"""The options and limits of a pool, the same for both faces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from sys import float_info

from _anyfork_child.values.functions_by_value import Receiver

from .._calls.permits import MOST_PERMITS
from .._calls.worker_options import Options, find_trace
from .._errors import ArgumentError
from .._processes.handles import TemplateHandle
from .._system.import_path import ORDINARY, is_importable, later_places, place_of
from .._system.limits import usable_cpus
from .records import TemplateRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Literal, TypeAlias, TypedDict

    from _anyfork_child.values.serializers import Serializer

    from .._calls.call import Handler
    from .._calls.trace_file import TraceFile
    from .._processes.handles import Backend
    from .records import WorkerRecord

    Templates: TypeAlias = TemplateHandle | Mapping[Any, int] | None

    class CommonOptions(TypedDict, total=False):
        """The options of every pool. Times are in seconds, ``max_memory`` is in bytes."""

        min_idle: int
        start_after: float
        idle_timeout: float
        max_calls: int | None
        max_memory: int | None
        memory: Literal["private", "pss"]
        max_age: float | None
        timeout: float | None
        max_queued: int | None
        when_full: Literal["wait", "raise"]
        initializer: Callable[..., object] | str | None
        initargs: Sequence[object]
        on_event: Handler | None
        trace: str | os.PathLike[str] | None
        logs: bool
        name: str
        serializer: str | Serializer
        concurrency: int | None
        backend: Backend

    class PoolOptions(CommonOptions, total=False):
        """The options of a pool of the async face."""

        max_workers: int | None
        load: int
        on_cancel: Literal["kill", "wait"]


@dataclass(frozen=True, slots=True)
class NewLimits:
    """The limits that a running pool is to have; None leaves one as it is.

    ``limits`` maps some of several templates to new limits; if ``max_workers`` is not given, it becomes the sum of the
    limits of all templates.
    """

    max_workers: int | None
    min_idle: int | None
    load: int | None
    limits: Mapping[Any, int] | None

    def check(self, templates: Sequence[object], concurrent: bool) -> None:
        """Raise ArgumentError for limits that a pool of these templates cannot have."""
        for name, value in (("max_workers", self.max_workers), ("min_idle", self.min_idle), ("load", self.load)):
            if value is not None:
                check_number("resize", name, value)
        if self.load is not None and concurrent:
            raise ArgumentError(
                "resize(): load= cannot change in a pool with concurrency=, which sets the load: make another pool"
            )
        for template, limit in ({} if self.limits is None else self.limits).items():
            check_number("resize", "max_workers", limit)
            if template not in templates:
                raise ArgumentError(
                    "resize(): limits= has a template that is not the pool's: give those that the pool was made with"
                )


DEFAULTS: PoolOptions = {
    "max_workers": None,
    "min_idle": 0,
    "load": 2,
    "start_after": 0.1,
    "idle_timeout": 10.0,
    "max_calls": None,
    "max_memory": None,
    "memory": "private",
    "max_age": None,
    "timeout": None,
    "max_queued": None,
    "when_full": "wait",
    "initializer": None,
    "initargs": (),
    "on_event": None,
    "trace": None,
    "logs": False,
    "name": "",
    "serializer": "pickle",
    "concurrency": None,
    "backend": "asyncio",
    "on_cancel": "kill",
}
MAX_WORKERS = (
    4  # or one for each CPU if there are fewer, where neither ``max_workers`` nor a limit of a template is given
)
_OF_WORKERS = ("on_event", "serializer", "initializer", "initargs", "concurrency", "backend", "on_cancel", "logs")
_COUNTS = ("max_workers", "min_idle", "load", "max_calls", "max_memory", "max_queued")
_SECONDS = ("start_after", "idle_timeout", "max_age", "timeout")
_MAY_BE_NONE = frozenset({"max_calls", "max_memory", "max_age", "timeout", "max_queued"})
_CHOICES = {"memory": ("private", "pss"), "when_full": ("wait", "raise")}


class PoolSettings:
    """The checked options of a pool. Raises ArgumentError, which names the ``call`` that got them."""

    def __init__(self, call: str, template: Templates, given: PoolOptions, adaptive: bool) -> None:
        unknown = given.keys() - DEFAULTS.keys()
        if unknown:
            raise ArgumentError(f"{call}() has no option {min(unknown)!r}; there are {', '.join(DEFAULTS)}")
        options: dict[str, Any] = {**DEFAULTS, **given}
        self.sources = sources_of(call, template)
        self.receiver = receiver_of(self.sources).started_with(options["initializer"])
        if options["max_workers"] is None:
            limits = [source.limit for source in self.sources]
            options["max_workers"] = (
                min(MAX_WORKERS, usable_cpus()) if template is None or inf in limits else sum(limits)
            )
        for name in (*_COUNTS, *_SECONDS):
            check_number(call, name, options[name])
        for name, choices in _CHOICES.items():
            if options[name] not in choices:
                raise ArgumentError(
                    f"{call}(): {name} must be {' or '.join(map(repr, choices))}, not {options[name]!r}"
                )
        self.worker = Options({name: options[name] for name in _OF_WORKERS})  # type: ignore[arg-type]  # these names
        self.worker.in_pool = True
        for source in self.sources:
            self.worker.check_descriptors_stay_here(call, None if source.key is None else source.key._link)
        concurrency: int | None = options["concurrency"]
        adaptive = adaptive and concurrency is None and self.load_of(2) > 1
        self.limits = Limits(
            load=self.load_of(options["load"]) if concurrency is None else concurrency,
            concurrent=concurrency is not None,
            adaptive=adaptive,
            boosts_load=adaptive and options["max_memory"] is None,
            **{name: options[name] for name in Limits.__slots__ if name in DEFAULTS and name != "load"},
        )
        self.timeout: float | None = options["timeout"]
        self.memory: int | None = None if options["max_memory"] is None else _CHOICES["memory"].index(options["memory"])
        self.raises = options["when_full"] == "raise"
        self.name: str = options["name"]
        if not isinstance(self.name, str):
            raise ArgumentError(f"{call}(): name must be a string, not {self.name!r}")
        self.trace: TraceFile | None = find_trace(call, options["trace"])

    def load_of(self, load: int) -> int:
        """Return how many jobs a plain worker may have at once: ``load``, within a bound.

        The bound is how many jobs can be taken back from a worker, see _calls.permits; on another machine it is 1.
        """
        return min(load, 1 if self.receiver.remote else MOST_PERMITS)


def check_number(call: str, name: str, value: object) -> None:
    """Raise ArgumentError if a value is not a number that this option may have."""
    if value is None and name in _MAY_BE_NONE:
        return
    whole = name in _COUNTS
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value >= 0:
        what = "a whole number" if whole else "a number of seconds"
        raise ArgumentError(f"{call}(): {name} must be {what}, 0 or more, not {value!r}")
    if not whole and inf > value > float_info.max:
        raise ArgumentError(f"{call}(): {name} is too large for a float: use math.inf for no limit")


def check_job_options(call: str, timeout: object, priority: object) -> None:
    """Raise ArgumentError if the timeout or the priority of a job is not valid."""
    if timeout is not None:
        check_number(call, "timeout", timeout)
    if not isinstance(priority, (int, float)) or priority != priority:
        raise ArgumentError(f"{call}(): priority must be a number (the greatest runs first), not {priority!r}")


def sources_of(call: str, template: Templates) -> list[TemplateRecord]:
    """Return the sources of workers: one for each template. Raises ArgumentError."""
    if template is None or not hasattr(template, "items"):
        check_template(call, template)
        return [TemplateRecord(template, inf)]
    sources = []
    for one, limit in template.items():
        check_template(call, one)
        check_number(call, "max_workers", limit)
        sources.append(TemplateRecord(one, limit))
    if not sources:
        raise ArgumentError(f"{call}() needs at least one template; the mapping is empty")
    return sources


def receiver_of(sources: Sequence[TemplateRecord]) -> Receiver:
    """Return the common receiver of values for workers of all these templates.

    Features that only some of the templates have do not count.
    """
    receivers = [ORDINARY if source.key is None else source.key._link.receiver for source in sources]
    if len(receivers) == 1:
        return receivers[0]
    if any(receiver.remote for receiver in receivers):
        return Receiver(is_importable, remote=True)
    return Receiver(is_importable, place_of=place_of, places=later_places)


def check_template(call: str, template: object) -> None:
    """Raise ArgumentError if a value is not a template. None stands for the default template."""
    if template is not None and not isinstance(template, TemplateHandle):
        kind = type(template).__name__
        raise ArgumentError(f"{call}() needs a template, or a mapping of templates to numbers of workers, not {kind}")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a pool. Times are in seconds, ``max_memory`` is in bytes.

    Zero is valid everywhere, None means no limit; see _pools.scheduler.
    """

    max_workers: int = 4
    min_idle: int = 0
    load: int = 2
    start_after: float = 0.1
    idle_timeout: float = 10.0
    max_calls: int | None = None
    max_memory: int | None = None
    max_age: float | None = None
    max_queued: int | None = None
    # A worker may have more jobs than ``load`` as long as all of them are quick, see Job.depth.
    boosts_load: bool = False
    adaptive: bool = False  # jobs that wait behind a long one are taken back
    concurrent: bool = False  # workers run all their jobs at once

    def changed(self, max_workers: int | None, min_idle: int | None, load: int | None) -> Limits:
        """Return other limits; None leaves one as it is. Where the load is given, it does not depend on durations."""
        return replace(
            self,
            max_workers=self.max_workers if max_workers is None else max_workers,
            min_idle=self.min_idle if min_idle is None else min_idle,
            load=self.load if load is None else load,
            boosts_load=self.boosts_load and load is None,
            adaptive=self.adaptive and load is None,
        )

    def ends(self, worker: WorkerRecord, size: int, now: float) -> str:
        """Return why a worker has to leave before a job of this size, for its calls or its age; or nothing."""
        if self.max_calls is not None and worker.calls + size > self.max_calls:
            return "it has had max_calls calls"
        old = self.max_age is not None and now - worker.born >= self.max_age
        return "it has reached max_age" if old else ""
