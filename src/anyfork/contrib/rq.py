"""The worker for RQ: each job runs in a work horse that is forked from a template.

``rq worker -w anyfork.contrib.rq.Worker``, or a subclass that says what the template loads.
"""

from __future__ import annotations

import os
import traceback
from resource import struct_rusage

from .._blocking.template import Template
from .._blocking.warm import Warm
from .._errors import ArgumentError, TemplateDiedError
from ._engine import require

require("rq", "3", "rq")

import rq
from redis import ConnectionPool
from rq.connections import parse_connection
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.executions import Execution
from rq.logutils import setup_loghandlers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .._blocking.process import Process
    from .._status import ExitStatus

NEEDED = "rq.worker", __name__  # what runs a job in the work horse
# The attributes of a worker that decide what its work horses do. SpawnWorker of RQ hands the same ones over.
SETTINGS = (
    "job_class",
    "queue_class",
    "death_penalty_class",
    "_exc_handlers",
    "default_result_ttl",
    "job_monitoring_interval",
    "log_job_description",
    "log_result_lifespan",
    "disable_default_exception_handler",
)


class Worker(rq.Worker):  # type: ignore[misc]  # the checker does not look into RQ
    """An RQ worker whose work horses are forked from a template, not from the worker.

    The worker never forks itself, so it may have threads and be large, and it never imports your jobs. A subclass sets
    ``preload`` to the modules of the jobs, which the template imports once, or overrides ``make_template``.
    """

    preload: Sequence[str] = ()
    _template: Template | Warm | None = None
    _horse: Process | None = None
    _logging: tuple[str | None, str, str] = "INFO", DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT

    def make_template(self) -> Template | Warm:
        """Return the template of the work horses. Modules of ``preload`` are imported there afterwards.

        If it is a ``Warm``, the template is made again before the next job when it is stale. It loads its own modules:
        name those of RQ there, ``NEEDED``, and those of the jobs, and leave ``preload`` empty.
        """
        return Template()

    def bootstrap(
        self,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """Make the template before the worker says that it is there. Raises what is wrong with the template."""
        self._logging = logging_level, date_format, log_format
        self._renew_template()
        super().bootstrap(*self._logging)

    def _renew_template(self) -> Template | Warm:
        made = self.make_template()
        if isinstance(made, Warm):
            if self.preload:
                raise ArgumentError(
                    f"{type(self).__name__}.preload does not reach the Warm of make_template(): "
                    "name the modules in the Warm, and leave preload empty"
                )
            made.template()
        else:
            made = made.preload(*NEEDED, *self.preload).ready()
        self._template = made
        return made

    def fork_work_horse(self, job: rq.job.Job, queue: rq.Queue) -> None:
        """Start a work horse for a job. RQ calls this. If that is not possible, the job fails, and the worker ends."""
        try:
            horse = self._new_horse(job, queue)
        except Exception:  # any error, because ``make_template`` and pickling run user code
            self.handle_job_failure(job, queue, exc_string=traceback.format_exc(), execution=self.execution)
            queue.intermediate_queue.remove(job.id)  # otherwise RQ would find it there, and fail it once more
            raise
        horse.channel.close()
        self._horse, self._horse_pid = horse, horse.pid
        self.procline(f"Forked {horse.pid}")

    def _new_horse(self, job: rq.job.Job, queue: rq.Queue) -> Process:
        template = self._template or self._renew_template()
        try:
            return self._start_horse(template, job, queue)
        except TemplateDiedError:
            # A Warm makes another template by itself.
            return self._start_horse(template if isinstance(template, Warm) else self._renew_template(), job, queue)

    def _start_horse(self, template: Template | Warm, job: rq.job.Job, queue: rq.Queue) -> Process:
        settings = {name: getattr(self, name) for name in SETTINGS}
        execution = self.execution
        names = self.key, self._serializer_arg, job.id, queue.name, execution and execution.id
        connection = parse_connection(self.connection)
        # Not set in the worker, as RQ does it: a Warm with ``make`` is stale when any variable of its program changes.
        env = {**os.environ, "RQ_WORKER_ID": self.name, "RQ_JOB_ID": job.id}
        # A session of its own, and so a process group: RQ kills the group.
        return template.fork(env=env, new_session=True).run(
            run_horse, type(self), settings, connection, names, self._logging
        )

    def wait_for_horse(self) -> tuple[int | None, int | None, struct_rusage | None]:
        """Wait until the work horse ends. Return its pid, wait status and resource usage. RQ calls this."""
        horse = self._horse
        if horse is None:
            return None, None, None
        status = horse.wait()
        return horse.pid, _wait_status(status), _usage(status)

    def teardown(self) -> None:
        """End the template with the worker. RQ calls this."""
        try:
            super().teardown()
        finally:  # it raises without Redis
            template, self._template = self._template, None
            if template is not None:
                template.close()


def _wait_status(status: ExitStatus) -> int | None:
    """Return the status as ``os.wait4`` returns it, or None if it is unknown."""
    return status.signal if status.code is None else status.code << 8


def _usage(status: ExitStatus) -> struct_rusage | None:
    usage = status.usage
    if usage is None:
        return None
    memory = usage.max_rss, 0, 0, 0, usage.minor_faults, usage.major_faults, 0
    rest = usage.blocks_in, usage.blocks_out, 0, 0, 0, usage.voluntary_switches, usage.involuntary_switches
    return struct_rusage((usage.user_time, usage.system_time, *memory, *rest))


def run_horse(
    channel: Any, kind: type[Worker], settings: dict[str, Any], connection: Any, names: Any, logging: Any
) -> None:
    """Run a job. Runs in the work horse, with a copy of the worker, as in RQ's SpawnWorker."""
    channel.close()
    key, serializer, job_id, queue_name, execution_id = names
    client, connection_class, options = connection
    redis = client(connection_pool=ConnectionPool(connection_class=connection_class, **options))
    classes = {name: settings[name] for name in ("job_class", "queue_class")}
    worker = kind.find_by_key(key, redis, serializer=serializer, **classes)
    if worker is None:
        raise SystemExit(1)
    for name, value in settings.items():
        setattr(worker, name, value)
    for name in ("rq.worker", "rq.job"):
        setup_loghandlers(*logging, name=name)
    job = worker.job_class.fetch(job_id, connection=redis, serializer=worker.serializer)
    shared = {"connection": redis, "job_class": worker.job_class, "serializer": worker.serializer}
    queue = worker.queue_class(queue_name, death_penalty_class=worker.death_penalty_class, **shared)
    if execution_id is not None:
        worker.execution = execution = Execution.fetch(execution_id, job_id, connection=redis)
        execution._job = job
    worker.main_work_horse(job, queue)
