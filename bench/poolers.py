"""Pools behind one interface, each in an owner program of its own: two workers, started the cheapest way there is."""

from __future__ import annotations

from operator import neg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

WORKERS = 2
IN_FLIGHT = 64  # callers of an async pool


class Pooler:
    """One way to have many jobs done by some workers."""

    heavy_preload = False  # it can have modules loaded before its workers start
    pool: Any = None

    def __init__(self, workers: int = WORKERS, heavy: Sequence[str] = ()) -> None:
        self.workers = workers
        self.heavy = heavy  # modules to load before the workers start, where that is possible
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """What is done once, before pools are made."""

    def start(self) -> None:
        """Make a pool."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it."""
        raise NotImplementedError

    def renew(self) -> None:
        """Make a pool again where one is broken."""

    def run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The results of single jobs, which are all submitted at once."""
        raise NotImplementedError

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> list[Any]:
        """The results of jobs that are handed over in chunks."""
        raise NotImplementedError

    def close(self) -> None:
        """End everything."""
        self.stop()


class Futures(Pooler):
    """An executor of concurrent.futures."""

    def run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        submit = self.pool.submit
        return [future.result() for future in [submit(function, *args) for args in arguments]]

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> list[Any]:
        return list(self.pool.map(function, items, chunksize=chunk))

    def stop(self) -> None:
        self.pool.shutdown()


class Anyfork(Futures):
    """anyfork.Executor."""

    heavy_preload = True

    def prepare(self) -> None:
        from anyfork import Template

        modules = ("bench.pool_jobs", "numpy", *self.heavy)
        self.template = Template().preload(*modules).ready()

    def start(self) -> None:
        from anyfork import Executor

        self.pool = Executor(self.template, self.workers)

    def close(self) -> None:
        super().close()
        self.template.close()


class AnyforkImmortal(Anyfork):
    """anyfork.Executor, with a template whose objects are immortal."""

    def prepare(self) -> None:
        from anyfork import TemplateError

        super().prepare()
        try:
            self.template.immortalize().ready()
        except TemplateError as error:
            raise ImportError(str(error)) from error


class Stdlib(Futures):
    """ProcessPoolExecutor with a start method."""

    method = "fork"

    def prepare(self) -> None:
        import multiprocessing

        self.context: Any = multiprocessing.get_context(self.method)
        if self.method == "fork":
            __import__("bench.pool_jobs")
            __import__("numpy")
            for module in self.heavy:
                __import__(module)
        self.context.set_forkserver_preload(["bench.pool_jobs", "numpy", *self.heavy])
        if self.method == "forkserver":
            from multiprocessing.forkserver import ensure_running

            ensure_running()

    def start(self) -> None:
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(self.workers, self.context)

    def renew(self) -> None:
        self.pool.shutdown()
        self.start()


class Forkserver(Stdlib):
    """From a server that has loaded what it can."""

    method = "forkserver"
    heavy_preload = True


class Spawn(Stdlib):
    """With fresh interpreters."""

    method = "spawn"


class MultiprocessingPool(Pooler):
    """multiprocessing.Pool, forked."""

    def start(self) -> None:
        import multiprocessing

        __import__("bench.pool_jobs")
        self.pool = multiprocessing.get_context("fork").Pool(self.workers)

    def run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        begin = self.pool.apply_async
        return [result.get(10) for result in [begin(function, args) for args in arguments]]

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> list[Any]:
        return list(self.pool.imap(function, items, chunk))

    def stop(self) -> None:
        self.pool.terminate()
        self.pool.join()


class Loky(Futures):
    """loky's executor, whose interpreters are always fresh."""

    def start(self) -> None:
        from loky import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(self.workers)

    def renew(self) -> None:
        self.pool.shutdown(kill_workers=True)
        self.start()


class Pebble(Futures):
    """pebble.ProcessPool, forked."""

    def start(self) -> None:
        import multiprocessing

        from pebble import ProcessPool

        self.pool = ProcessPool(self.workers, context=multiprocessing.get_context("fork"))

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> list[Any]:
        return list(self.pool.map(function, items, chunksize=chunk).result())

    def run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        schedule = self.pool.schedule
        return [future.result() for future in [schedule(function, args) for args in arguments]]

    def stop(self) -> None:
        self.pool.stop()
        self.pool.join()


class Mpire(Pooler):
    """mpire's WorkerPool, forked."""

    def start(self) -> None:
        from mpire import WorkerPool

        self.pool = WorkerPool(self.workers, start_method="fork", keep_alive=True)

    def run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        begin = self.pool.apply_async
        return [result.get(10) for result in [begin(function, args) for args in arguments]]

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> list[Any]:
        return list(self.pool.map(function, [(item,) for item in items], chunk_size=chunk))

    def stop(self) -> None:
        self.pool.terminate()


class Joblib(Pooler):
    """joblib.Parallel on a backend."""

    backend = "loky"

    def start(self) -> None:
        from joblib import Parallel

        if self.backend == "anyfork":
            __import__("anyfork.joblib")
        self.pool = Parallel(n_jobs=self.workers, backend=self.backend, batch_size=1)
        self.pool.__enter__()

    def run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        return list(self.pool((function, args, {}) for args in arguments))

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> list[Any]:
        self.pool.batch_size = chunk
        try:
            return list(self.pool((function, (item,), {}) for item in items))
        finally:
            self.pool.batch_size = 1

    def stop(self) -> None:
        self.pool.__exit__(None, None, None)

    def close(self) -> None:
        self.stop()
        if self.backend == "loky":
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True, kill_workers=True)


class JoblibAnyfork(Joblib):
    """joblib.Parallel on anyfork."""

    backend = "anyfork"


class AioPool(Pooler):
    """anyfork.aio.Pool on asyncio: 64 tasks call one job after the other."""

    heavy_preload = True

    def prepare(self) -> None:
        import asyncio

        self.loop = asyncio.new_event_loop()
        self.template = self.loop.run_until_complete(self._make_template())

    async def _make_template(self) -> Any:
        from anyfork.aio import Template

        modules = ("bench.pool_jobs", "numpy", *self.heavy)
        return await Template().preload(*modules).ready()

    def start(self) -> None:
        self.pool = self.loop.run_until_complete(self._start())

    async def _start(self) -> Any:
        from anyfork.aio import Pool

        return Pool(self.template, max_workers=self.workers, start_after=0)

    def run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        return self.loop.run_until_complete(self._run(function, arguments))

    async def _run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        import asyncio

        rest = iter(arguments)
        results: list[Any] = []

        async def caller() -> None:
            results.extend([await self.pool.call(function, *args) for args in rest])

        await asyncio.gather(*(caller() for _ in range(min(IN_FLIGHT, len(arguments)))))
        return results

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunk: int) -> list[Any]:  # noqa: ARG002  # it has its own
        return self.loop.run_until_complete(self._map(function, items))

    async def _map(self, function: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return [result async for result in self.pool.map(function, items)]

    def stop(self) -> None:
        self.loop.run_until_complete(self.pool.aclose())

    def close(self) -> None:
        super().close()
        self.loop.run_until_complete(self.template.aclose())
        self.loop.close()


KINDS: dict[str, type[Pooler]] = {
    "anyfork": Anyfork,
    "anyfork-immortal": AnyforkImmortal,
    "aio": AioPool,
    "ppe-fork": Stdlib,
    "ppe-forkserver": Forkserver,
    "ppe-spawn": Spawn,
    "mp-pool": MultiprocessingPool,
    "loky": Loky,
    "pebble": Pebble,
    "mpire": Mpire,
    "joblib": Joblib,
    "joblib-anyfork": JoblibAnyfork,
}


def checked(kind: str, workers: int = WORKERS, heavy: Sequence[str] = ()) -> Pooler:
    """A pool of this kind whose workers are there. Raises ImportError."""
    made = KINDS[kind](workers, heavy)
    if made.run(neg, [(1,)] * IN_FLIGHT) != [-1] * IN_FLIGHT:
        raise RuntimeError(f"{kind} gives wrong results")
    return made
