"""The contenders of the benchmark ``create``, for each face: who is measured, by what measures, in which order."""

from __future__ import annotations

from dataclasses import dataclass

from .driver import ROOT, Driver

FIRST_BYTE, SEQUENTIAL, IN_FLIGHT, MANY = "first_byte", "sequential", "in_flight", "many"
ALL = (FIRST_BYTE, SEQUENTIAL, IN_FLIGHT)
RATES = (SEQUENTIAL, IN_FLIGHT)
AT_ONCE = 500  # processes of the measure MANY
HEAVY = ("numpy", "pandas")
ASYNC = "bench.async_owner"
SLOW = 3  # those that need seconds for 64 processes are measured in every third round only


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to start processes, from an owner of one size.

    ``megabytes`` is the size its owner is brought to, 0 to leave it as small as it comes.
    """

    name: str
    label: str
    kind: str
    megabytes: int = 0
    preload: tuple[str, ...] = ()
    measures: tuple[str, ...] = ALL
    every: int = 1
    owner: str = "bench.owner"

    def launch(self) -> Driver:
        """Start its owner."""
        if self.kind.startswith("perl-"):
            return Driver(["perl", str(ROOT / "bench" / "perl" / "contender.pl")], [self.kind.removeprefix("perl-")])
        size = [] if self.owner == ASYNC else [str(self.megabytes)]
        return Driver.python(self.owner, self.kind, *size, *self.preload)


# What is compared by a target stands close together, so that it is measured within a second or two.
CONTENDERS = (
    Contender("floor", "floor: the smallest possible template", "floor"),
    Contender("anyfork", "anyfork: template.fork().run()", "anyfork"),
    Contender("perl-new", "Perl AnyEvent::Fork: new", "perl-new"),
    Contender("anyfork-new", "anyfork: Template().start()", "anyfork-new"),
    Contender("anyfork-20mb", "anyfork, owner of 20 MB", "anyfork", megabytes=20),
    Contender("anyfork-2gb", "anyfork, owner of 2 GB", "anyfork", megabytes=2000),
    Contender("os-fork-2gb", "os.fork, owner of 2 GB", "os-fork", megabytes=2000, every=SLOW),
    Contender("os-fork-200mb", "os.fork, owner of 200 MB", "os-fork", megabytes=200),
    Contender("os-fork-20mb", "os.fork, owner of 20 MB", "os-fork", megabytes=20),
    Contender("posix-spawn", "os.posix_spawn /bin/true", "posix-spawn", measures=RATES),
    Contender("subprocess", "subprocess /bin/true", "subprocess", measures=RATES),
    Contender("mp-fork", "multiprocessing fork", "mp-fork"),
    Contender("mp-forkserver", "multiprocessing forkserver", "mp-forkserver"),
    Contender("anyfork-heavy", "anyfork, numpy+pandas loaded", "anyfork", preload=HEAVY),
    Contender("mp-forkserver-heavy", "forkserver, numpy+pandas loaded", "mp-forkserver", preload=HEAVY),
    Contender("anyfork-exec", "anyfork: Template.new_exec().start()", "anyfork-exec", every=SLOW),
    Contender("perl-new-exec", "Perl AnyEvent::Fork: new_exec", "perl-new_exec"),
    Contender("mp-spawn", "multiprocessing spawn", "mp-spawn", every=SLOW),
)

ASYNC_RATES = (SEQUENTIAL, IN_FLIGHT, MANY)
AIO_CONTENDERS = (
    Contender("anyfork", "anyfork: template.fork().run()", "anyfork", measures=ASYNC_RATES),
    Contender("aio", "anyfork.aio, asyncio", "aio", measures=ASYNC_RATES, owner=ASYNC),
    Contender("aio-uvloop", "anyfork.aio, asyncio with uvloop", "aio-uvloop", measures=ASYNC_RATES, owner=ASYNC),
    Contender("aio-trio", "anyfork.aio, trio", "aio-trio", measures=ASYNC_RATES, owner=ASYNC),
    Contender(
        "asyncio-subprocess",
        "asyncio.create_subprocess_exec /bin/true",
        "asyncio-subprocess",
        measures=ASYNC_RATES,
        owner=ASYNC,
    ),
    Contender("trio-run-process", "trio.run_process /bin/true", "trio-run-process", measures=ASYNC_RATES, owner=ASYNC),
    Contender(
        "to-process",
        "anyio.to_process, a new worker each",
        "to-process",
        measures=(SEQUENTIAL, IN_FLIGHT),
        owner=ASYNC,
        every=SLOW,
    ),
)
