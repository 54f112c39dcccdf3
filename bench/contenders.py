"""The contenders of every benchmark that goes in rounds: who is measured, by what measures, in which order."""

from __future__ import annotations

from dataclasses import dataclass

from .ballast import MEGABYTES
from .driver import ROOT, Driver

FIRST_BYTE, SEQUENTIAL, IN_FLIGHT, MANY = "first_byte", "sequential", "in_flight", "many"
ALL = (FIRST_BYTE, SEQUENTIAL, IN_FLIGHT)
RATES = (SEQUENTIAL, IN_FLIGHT)
SIZES = ("1MB", "10MB", "100MB")
TINY, MAP, CHUNKS, ARRAYS, SHORT_JOBS, LONG_JOBS = "tiny", "map", "chunks", "arrays", "1ms", "10ms"
BEHIND, FIRST_RESULT, REPLACE = "behind", "first", "replace"
POOL_MEASURES = (TINY, MAP, CHUNKS, ARRAYS, SHORT_JOBS, LONG_JOBS, BEHIND, FIRST_RESULT, REPLACE)
LATENCIES = frozenset({FIRST_BYTE, *SIZES, BEHIND, FIRST_RESULT, REPLACE})  # measures that are times, not rates
AT_ONCE = 500  # processes of the measure MANY
HEAVY = ("numpy", "pandas")
STARTS, ASYNC, CALLS, DATA = "bench.owner", "bench.async_owner", "bench.call_owner", "bench.data_owner"
POOLS = "bench.pool_owner"
REMOTE = "bench.remote_owner"
PERL = {STARTS: "contender.pl", CALLS: "calls.pl"}  # by the owner whose place the program takes
SLOW = 3  # those that need seconds for 64 processes are measured in every third round only


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do what a benchmark measures.

    ``megabytes``, where processes are started, is the size its owner is brought to; 0 leaves it as small as it comes.
    ``objects`` is the size in MB of what bench.ballast loads, if it is preloaded.
    """

    name: str
    label: str
    kind: str
    megabytes: int = 0
    preload: tuple[str, ...] = ()
    measures: tuple[str, ...] = ALL
    every: int = 1
    owner: str = STARTS
    objects: int = 0

    def launch(self) -> Driver:
        """Start its owner."""
        if self.kind.startswith("perl-"):
            script = ROOT / "bench" / "perl" / PERL[self.owner]
            return Driver(["perl", str(script)], [self.kind.removeprefix("perl-")])
        size = [str(self.megabytes)] if self.owner == STARTS else []
        return Driver.python(self.owner, self.kind, *size, *self.preload, environment={MEGABYTES: str(self.objects)})


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
    Contender("program", "anyfork: template.fork().run_program()", "program", measures=RATES),
    Contender("program-heavy", "the same, numpy+pandas loaded", "program", preload=HEAVY, measures=RATES),
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


def _caller(name: str, label: str, kind: str = "", measures: tuple[str, ...] = RATES, owner: str = CALLS) -> Contender:
    return Contender(name, label, kind or name, measures=measures, owner=owner)


CALL_CONTENDERS = (
    _caller("floor", "floor: pickles on a socketpair"),
    _caller("anyfork", "anyfork: worker.call, worker.map"),
    _caller("aio", "anyfork.aio, asyncio", "call-aio", owner=ASYNC),
    _caller("aio-tasks", "anyfork.aio, asyncio, 64 tasks that call", "call-aio-tasks", (IN_FLIGHT,), ASYNC),
    _caller("to-process", "anyio.to_process, asyncio", "call-to-process", owner=ASYNC),
    _caller("aio-trio", "anyfork.aio, trio", "call-aio-trio", owner=ASYNC),
    _caller("to-process-trio", "anyio.to_process, trio", "call-to-process-trio", owner=ASYNC),
    _caller("perl-rpc", "Perl AnyEvent::Fork::RPC"),
    _caller("executor", "ProcessPoolExecutor(1)"),
    _caller("mp-pool", "multiprocessing.Pool(1)"),
    _caller("loky", "loky"),
    _caller("pebble", "pebble"),
    _caller("mpire", "mpire"),
    _caller("execnet", "execnet"),
    _caller("call-once", "anyfork.call: a process for each call", measures=(SEQUENTIAL,)),
    _caller("start-and-trip", "a bare start and a round trip", measures=(SEQUENTIAL,)),
)

DATA_CONTENDERS = (
    _caller("floor", "floor: two copies into new memory", "fresh-copy", SIZES, DATA),
    _caller("numpy-copy", "two copies as numpy makes them", "numpy-copy", SIZES, DATA),
    _caller("anyfork", "anyfork: worker.call", "anyfork", SIZES, DATA),
    _caller("executor", "ProcessPoolExecutor(1)", "executor", SIZES, DATA),
    _caller("mp-pool", "multiprocessing.Pool(1)", "mp-pool", SIZES, DATA),
    _caller("loky", "loky", "loky", SIZES, DATA),
)

BUT_REPLACE = tuple(measure for measure in POOL_MEASURES if measure != REPLACE)
POOL_CONTENDERS = tuple(
    Contender(name, label, name, preload=("heavy",), measures=measures, every=every, owner=POOLS)
    for name, label, measures, every in (
        ("anyfork", "anyfork.Executor", POOL_MEASURES, 1),
        ("ppe-fork", "ProcessPoolExecutor, fork", POOL_MEASURES, 1),
        ("aio", "anyfork.aio.Pool, asyncio", POOL_MEASURES, 1),
        ("ppe-forkserver", "ProcessPoolExecutor, forkserver preloaded", POOL_MEASURES, 1),
        ("mp-pool", "multiprocessing.Pool", BUT_REPLACE, 1),  # it may wait for a killed worker for ever
        ("pebble", "pebble", POOL_MEASURES, 1),
        ("mpire", "mpire", BUT_REPLACE, 1),
        ("joblib-anyfork", "joblib on anyfork", BUT_REPLACE, 1),
        ("joblib", "joblib on loky", BUT_REPLACE, SLOW),
        ("loky", "loky", POOL_MEASURES, SLOW),
        ("ppe-spawn", "ProcessPoolExecutor, spawn", POOL_MEASURES, SLOW),
    )
)

OVER_SSH = ("processes", *RATES)
REMOTE_CONTENDERS = (
    _caller("anyfork", "anyfork: template.fork().run(), worker.call, worker.map", "anyfork", OVER_SSH, REMOTE),
    _caller("execnet", "execnet: gateways via a gateway, a channel", "execnet", OVER_SSH, REMOTE),
    _caller("execnet-via", "execnet: a channel to a process of its own", "execnet-via", RATES, REMOTE),
    _caller("mitogen", "mitogen: contexts via a context, calls", "mitogen", OVER_SSH, REMOTE),
)
