"""The ways to call a function in one worker, behind one interface. Each runs in an owner program of its own.

Start methods are the cheapest that a library offers: a worker is there before anything is measured.
"""

from __future__ import annotations

from collections import deque
from operator import neg
from time import perf_counter

from .call_floor import IN_FLIGHT, CallFloor
from .child import die_saying_when, nothing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor
    from typing import Any

BLOCK = 64  # items between two looks at the clock


def until(deadline: float) -> Iterator[int]:
    """Tiny arguments, until it is so late."""
    while perf_counter() < deadline:
        yield from range(BLOCK)


class Caller:
    """One way to have a function called in a worker."""

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        """A round trip."""
        raise NotImplementedError

    def results(self, items: Iterable[int]) -> Iterable[int]:
        """The negatives of these, with 64 calls on their way at a time."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the worker."""

    def sequential(self, seconds: float) -> list[float]:
        """How many round trips one after the other, and the seconds that they took."""
        count = 0
        begin = perf_counter()
        while not count or perf_counter() < begin + seconds:
            self.call(neg, 1)
            count += 1
        return [count, perf_counter() - begin]

    def in_flight(self, seconds: float) -> list[float]:
        """The same with 64 on their way at a time, the last answer included."""
        begin = perf_counter()
        count = sum(1 for _ in self.results(until(begin + seconds)))
        return [count, perf_counter() - begin]


class Anyfork(Caller):
    """A worker of anyfork, by the blocking face. ``preload`` is what else its template loads."""

    def __init__(self, *preload: str) -> None:
        from anyfork import Template, Worker

        self._worker = Worker(Template().preload("bench.child", *preload)).ready()

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        return self._worker.call(function, argument)

    def results(self, items: Iterable[int]) -> Iterable[int]:
        return self._worker.map(neg, items)

    def deaths(self, count: float) -> list[float]:
        """Seconds from the death of a worker, by its own clock, to the error of its call, so often."""
        from anyfork import Template, Worker, WorkerDiedError

        said: list[float] = []
        died: list[float] = []
        with Template().preload("bench.child", "anyfork") as template:
            for _ in range(int(count)):
                with Worker(template.fork(), on_event=said.append) as worker:
                    try:
                        worker.call(die_saying_when)
                    except WorkerDiedError:
                        died.append(perf_counter())
        return [end - begin for begin, end in zip(said, died, strict=True)]

    def close(self) -> None:
        self._worker.close()


class CallOnce(Caller):
    """``anyfork.call``: a new process of a warm template for each call."""

    def __init__(self) -> None:
        from anyfork import Template, call

        self._template = Template().preload("bench.child").ready()
        self._call = call

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        return self._call(function, argument, template=self._template)

    def close(self) -> None:
        self._template.close()


class StartAndTrip(Anyfork):
    """The parts of it: a process that does nothing is started and waited for, and a worker that is there answers."""

    def __init__(self) -> None:
        from anyfork import Template

        super().__init__()
        self._template = Template().preload("bench.child").ready()

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        self._template.fork().run(nothing).wait()
        return super().call(function, argument)

    def close(self) -> None:
        super().close()
        self._template.close()


class Windowed(Caller):
    """Contenders that know no window: the oldest of 64 calls is waited for."""

    def begin(self, function: Callable[..., Any], argument: object) -> Any:
        """Ask; what stands for the answer."""
        raise NotImplementedError

    def finish(self, asked: Any) -> Any:
        """Wait for the answer."""
        return asked.result()

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        return self.finish(self.begin(function, argument))

    def results(self, items: Iterable[int]) -> Iterator[int]:
        window: deque[Any] = deque()
        for item in items:
            window.append(self.begin(neg, item))
            if len(window) == IN_FLIGHT:
                yield self.finish(window.popleft())
        while window:
            yield self.finish(window.popleft())


class Futures(Windowed):
    """An executor of concurrent.futures."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def begin(self, function: Callable[..., Any], argument: object) -> Any:
        return self._executor.submit(function, argument)

    def close(self) -> None:
        self._executor.shutdown()


def executor() -> Futures:
    """That of the standard library."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return Futures(ProcessPoolExecutor(1, mp_context=get_context("fork")))


def loky() -> Futures:
    """loky's."""
    from loky import ProcessPoolExecutor

    return Futures(ProcessPoolExecutor(1))


class Pool(Caller):
    """multiprocessing.Pool. It has no window: its thread goes on sending while the pipe takes it."""

    def __init__(self) -> None:
        from multiprocessing import get_context

        self._pool = get_context("fork").Pool(1)

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        return self._pool.apply(function, (argument,))

    def results(self, items: Iterable[int]) -> Iterable[int]:
        return self._pool.imap(neg, items, chunksize=1)

    def close(self) -> None:
        self._pool.terminate()


class Pebble(Windowed):
    """pebble's pool."""

    def __init__(self) -> None:
        from multiprocessing import get_context

        from pebble import ProcessPool

        self._pool: Any = ProcessPool(1, context=get_context("fork"))

    def begin(self, function: Callable[..., Any], argument: object) -> Any:
        return self._pool.schedule(function, args=(argument,))

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()


class Mpire(Caller):
    """mpire's pools: one to apply, one to map, because a pool that has applied does not map rightly any more."""

    def __init__(self) -> None:
        from mpire.pool import WorkerPool

        self._applying = WorkerPool(1, start_method="fork", keep_alive=True)
        self._mapping = WorkerPool(1, start_method="fork", keep_alive=True)
        sum(self.results(range(1)))  # its worker is there only then

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        return self._applying.apply(function, (argument,))

    def results(self, items: Iterable[int]) -> Iterable[int]:
        return self._mapping.imap(neg, items, chunk_size=1, max_tasks_active=IN_FLIGHT)

    def close(self) -> None:
        self._applying.terminate()
        self._mapping.terminate()


class Execnet(Windowed):
    """An execnet channel. It sends no functions, but code once, and then data."""

    def __init__(self) -> None:
        import execnet

        self._gateway = execnet.makegateway("popen")
        self._channel = self._gateway.remote_exec(
            "from operator import neg\nfor item in channel:\n    channel.send(neg(item))\n"
        )

    def begin(self, _function: Callable[..., Any], argument: object) -> None:
        self._channel.send(argument)

    def finish(self, _asked: None) -> Any:
        return self._channel.receive()

    def close(self) -> None:
        self._gateway.exit()


KINDS: dict[str, Callable[[], Caller | CallFloor]] = {
    "floor": CallFloor,
    "anyfork": Anyfork,
    "call-once": CallOnce,
    "start-and-trip": StartAndTrip,
    "executor": executor,
    "mp-pool": Pool,
    "loky": loky,
    "pebble": Pebble,
    "mpire": Mpire,
    "execnet": Execnet,
}
