"""The plug-in for Dask's distributed scheduler: tasks run in processes that each worker forks from a template.

``client.register_plugin(TemplatePlugin("pandas"))``, then ``with dask.annotate(executor="anyfork"):``.
"""

from __future__ import annotations

import asyncio

from .._blocking.template import Template
from ._engine import require
from ._renewing_executor import RenewingExecutor

require("distributed", "2024.8", "dask")

from distributed import Status, Worker, WorkerPlugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from .._executor.executor import ExecutorOptions

NEEDED = "distributed.worker"  # what runs a task in the process


class TemplatePlugin(WorkerPlugin):  # type: ignore[misc]  # the checker does not look into Dask
    """A plug-in that gives each Dask worker an executor, whose processes are forked from a template on its machine.

    Workers that join later get it, too. Tasks use it if they are annotated with ``executor=name``. Each worker makes
    its template itself: it calls ``make``, or takes a clean one, and imports the modules of ``preload`` there.

    ``name`` is "anyfork" unless it is given. There are as many processes as the worker has threads, unless
    ``max_workers`` is given; further options are those of Executor. If a process dies, its task fails with
    WorkerDiedError, and ``retries=`` of Dask run it again.
    """

    def __init__(
        self,
        *preload: str,
        make: Callable[[], Template] = Template,
        max_workers: int | None = None,
        **options: Unpack[ExecutorOptions],
    ) -> None:
        # Dask's own, too: a second plug-in with this name replaces the first
        self.name: str = options.setdefault("name", "anyfork")
        self._preload = preload
        self._make = make
        self._max_workers = max_workers
        self._options = options

    async def setup(self, worker: Worker) -> None:
        """Make the template and the executor, without delaying the worker's event loop. Dask calls this.

        Raises what is wrong with the template. Tasks that come to this worker nevertheless fail with the same error.
        """
        workers = worker.state.nthreads if self._max_workers is None else self._max_workers
        executor = await asyncio.to_thread(RenewingExecutor, self._make_template, workers, **self._options)
        if self not in worker.plugins.values():  # it was removed or replaced meanwhile, or the worker has ended
            executor.kill()
            return
        worker.executors[self.name] = executor
        await asyncio.to_thread(executor.template.ready)

    def _make_template(self) -> Template:
        return self._make().preload(NEEDED, *self._preload)

    def teardown(self, worker: Worker) -> None:
        """End the executor. Dask calls this when the worker ends, or when the plug-in is removed or replaced.

        A worker that goes on finishes the tasks that it has begun. Those of a worker that ends are run by others.
        """
        executor = worker.executors.pop(self.name, None)
        if executor is None:  # ``make`` has failed
            return
        if worker.status is Status.closing:
            executor.kill()
        else:
            executor.shutdown(wait=False)
