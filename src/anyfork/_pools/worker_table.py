"""The workers of a pool, as its scheduler sees them: how many jobs each has, and which jobs wait behind others."""

from __future__ import annotations

from math import inf

from .records import WorkerState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .records import Job, TemplateRecord, WorkerRecord

STALL = 0.01  # seconds that a call may run until the calls behind it are taken back from its worker


class WorkerTable:
    """A table of all workers of a pool.

    ``by_load[n]`` are the WORKING workers that have n jobs, in the order in which they came to have n.
    """

    __slots__ = ("beyond_load", "by_load", "leaving", "load", "lowest", "paused", "starting", "working")

    def __init__(self, load: int, most: int = 0) -> None:
        self.load = load
        self.beyond_load = 0  # jobs that workers have above their load
        self.starting: dict[WorkerRecord, None] = {}
        self.leaving: dict[WorkerRecord, None] = {}  # with jobs; killed ones too
        self.working: dict[WorkerRecord, None] = {}
        self.paused: dict[WorkerRecord, None] = {}  # working, and not in ``by_load``
        self.by_load: list[dict[WorkerRecord, None]] = [{} for _ in range(max(load, most) + 1)]
        self.lowest = 0  # no worker has fewer jobs

    @property
    def count(self) -> int:
        """The number of workers that count against the limits: all that have, or may get, jobs."""
        return len(self.starting) + len(self.working) + len(self.leaving)

    @property
    def idle(self) -> dict[WorkerRecord, None]:
        """The workers that have no jobs, longest idle first."""
        return self.by_load[0]

    def least_loaded(self) -> WorkerRecord | None:
        """Return the least loaded worker that takes a job, or None.

        Of idle workers, return the one that became idle last, so that the others may be stopped.
        """
        by_load, lowest, last = self.by_load, self.lowest, len(self.by_load) - 1
        while lowest < last and not by_load[lowest]:
            lowest += 1
        self.lowest = lowest
        if lowest >= self.load:
            return None
        return next(iter(by_load[lowest])) if lowest else next(reversed(by_load[0]))

    def least_loaded_quick(self, depth: int) -> WorkerRecord | None:
        """Return a worker of the lowest load if it has fewer than ``depth`` jobs, and only quick ones, or None.

        Call ``least_loaded`` before.
        """
        lowest = self.lowest
        if lowest < min(depth, len(self.by_load) - 1):
            for worker in self.by_load[lowest]:
                if not worker.slow:
                    return worker
        return None

    def add_job(self, worker: WorkerRecord, job: Job) -> None:
        """Note that a worker has one more job."""
        jobs = worker.jobs
        by_load, load = self.by_load, len(jobs)
        del by_load[load][worker]
        by_load[load + 1][worker] = None
        jobs[job] = None
        if load >= self.load:
            self.beyond_load += 1

    def remove_job(self, worker: WorkerRecord, job: Job) -> None:
        """Note that a worker has one job less."""
        jobs = worker.jobs
        if worker.state is WorkerState.WORKING:
            by_load, load = self.by_load, len(jobs)
            if load > self.load:
                self.beyond_load -= 1
            if not worker.paused:
                del by_load[load][worker]
                by_load[load - 1][worker] = None
                if load <= self.lowest:
                    self.lowest = load - 1
        del jobs[job]

    def pause(self, worker: WorkerRecord) -> None:
        """Give no jobs to a working worker until ``resume``."""
        del self.by_load[len(worker.jobs)][worker]
        self.paused[worker] = None
        worker.paused = True

    def resume(self, worker: WorkerRecord) -> None:
        """Give jobs to a paused worker again. Does nothing if it leaves meanwhile."""
        worker.paused = False
        if self.paused.pop(worker, self) is None:
            self.by_load[len(worker.jobs)][worker] = None
            self.lowest = min(self.lowest, len(worker.jobs))

    def start(self, worker: WorkerRecord) -> None:
        """Add a worker that is being started."""
        self.starting[worker] = None
        worker.source.count += 1

    def enter(self, worker: WorkerRecord) -> None:
        """Let a worker take jobs from now on."""
        del self.starting[worker]
        worker.state = WorkerState.WORKING
        self.working[worker] = None
        self.by_load[0][worker] = None
        self.lowest = 0

    def adopt(self, worker: WorkerRecord) -> None:
        """Add a worker of an earlier scheduler, with its jobs."""
        if worker.state is WorkerState.STARTING:
            self.start(worker)
            return
        count, worker.paused = len(worker.jobs), False
        if worker.state is WorkerState.WORKING:
            self.by_load += [{} for _ in range(count + 2 - len(self.by_load))]
            self.working[worker] = self.by_load[count][worker] = None
            self.beyond_load += max(0, count - self.load)
        elif count:
            self.leaving[worker] = None
        else:
            return
        worker.source.count += 1

    def stop_giving(self, worker: WorkerRecord, state: WorkerState) -> None:
        """Let a worker take no more jobs. A worker without jobs no longer counts."""
        self._forget(worker)
        worker.state = state
        if worker.jobs:
            self.leaving[worker] = None
        else:
            worker.source.count -= 1

    def remove(self, worker: WorkerRecord) -> None:
        """Remove a worker in any state: it is gone."""
        counted = self._forget(worker)
        worker.state = WorkerState.GONE
        worker.source.count -= counted

    def _forget(self, worker: WorkerRecord) -> bool:
        if worker.state is WorkerState.STARTING:
            del self.starting[worker]
        elif worker.state is WorkerState.WORKING:
            del self.working[worker]
            if self.paused.pop(worker, self) is self:
                del self.by_load[len(worker.jobs)][worker]
            self.beyond_load -= max(0, len(worker.jobs) - self.load)
        else:
            return self.leaving.pop(worker, self) is None
        return True

    def places(self, max_workers: int) -> int:
        """Return how many more jobs can go to workers.

        Present workers and workers that are being started count; if there are none, the first worker does.
        """
        load = self.load
        if not self.count:
            return load if max_workers else 0
        taken = sum(load if worker.paused else min(len(worker.jobs), load) for worker in self.working)
        return (len(self.working) + len(self.starting)) * load - taken

    def surplus(self, limit: float, source: TemplateRecord | None) -> list[WorkerRecord]:
        """Return the workers above a limit, of one template or of all: those that have the fewest jobs."""
        present = [*(worker for level in self.by_load for worker in level), *self.paused, *self.starting]
        if source is not None:
            present = [worker for worker in present if worker.source is source]
        present.sort(key=lambda worker: (worker.state is WorkerState.WORKING, len(worker.jobs)))
        return present[: int(max(0, len(present) - limit))]

    def all(self) -> list[WorkerRecord]:
        """Return all workers of the table."""
        return [*self.starting, *self.working, *self.leaving]

    def resize(self, load: int) -> None:
        """Set how many jobs each worker may have from now on. Workers that have more finish them."""
        self.load = load
        most = max([load, *(len(worker.jobs) for worker in self.working)])
        self.by_load = [{} for _ in range(most + 1)]
        for worker in self.working:
            if not worker.paused:
                self.by_load[len(worker.jobs)][worker] = None
        self.beyond_load = sum(max(0, len(worker.jobs) - load) for worker in self.working)
        self.lowest = 0


class Stalls:
    """The time at which the pool looks for calls that wait behind another one: ``look_at``, infinity for never.

    With ``adaptive`` no call waits behind a long one, even if no worker is idle.
    """

    __slots__ = ("_some_wait", "_workers", "adaptive", "look_at")

    def __init__(self, workers: WorkerTable, adaptive: bool) -> None:
        self._workers = workers
        self.adaptive = adaptive
        self._some_wait = False  # a worker may have calls that it has not begun
        self.look_at = inf

    def note_waiting(self, now: float) -> None:
        """Note that a worker has got a call behind another one."""
        self._some_wait = True
        if self.adaptive and self.look_at == inf:
            self.look_at = now + STALL

    def note_adopted(self, now: float) -> None:
        """Note that a worker was adopted with calls behind another one, which it has had for an unknown time."""
        self._some_wait, self.look_at = True, now + STALL

    def note_idle(self, now: float) -> None:
        """Note that a worker is idle."""
        if self._some_wait and self.look_at == inf:
            self.look_at = now + STALL

    def find(self, now: float) -> list[WorkerRecord]:
        """Return the workers from which calls are taken back. Pause those that run a long call."""
        workers = self._workers
        one_is_idle = any(worker.idle_since + STALL <= now for worker in workers.idle)
        waiting = [each for each in (*workers.working, *workers.leaving) if each.some_wait and not each.paused]
        self.look_at = inf
        self._some_wait = False
        found = []
        for worker in waiting:
            stalled = self.adaptive and worker.began + STALL <= now
            if stalled and worker in workers.working:
                workers.pause(worker)
            if stalled or one_is_idle:
                found.append(worker)
                continue
            self._some_wait = True
            if self.adaptive:
                self.look_at = min(self.look_at, worker.began + STALL)
        if self._some_wait and workers.idle:
            self.look_at = min(self.look_at, *(worker.idle_since + STALL for worker in workers.idle))
        return found
