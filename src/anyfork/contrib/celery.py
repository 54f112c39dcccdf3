"""The task pool for Celery: tasks run in processes that are forked from a template.

``CELERY_CUSTOM_WORKER_POOL=anyfork.contrib.celery:TaskPool celery -A project worker --pool custom``
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
from collections import deque
from concurrent.futures import Future, wait
from time import monotonic

from _anyfork_child.wire.emitter import emit

from .._blocking.template import Template
from .._errors import AnyforkError, CallCancelledError, CallTimeoutError, TemplateDiedError, WorkerDiedError
from ._engine import require
from ._renewing_executor import RenewingExecutor

require("celery", "5.7", "celery")

from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, WorkerLostError
from billiard.process import current_process
from celery.concurrency import base, prefork
from celery.concurrency.prefork import process_destructor, process_initializer
from kombu.asynchronous import get_event_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    class _BasePool:
        """What Celery, which has no types, gives its pools."""

        limit: int
        options: dict[str, Any]
        callbacks_propagate: tuple[type[BaseException], ...]

        def _get_info(self) -> dict[str, Any]: ...
else:
    _BasePool = base.BasePool

logger: logging.Logger = logging.getLogger("celery.pool")
# A private function. In a Celery without it, acknowledgements are sent when the pool has ended.
_send_acknowledgements: Callable[[object], object] | None = getattr(prefork, "_run_ready_callbacks", None)
HEARTBEAT = 0.5  # seconds between looks at the broker while the pool ends, as in Celery's own pool
# Celery binds tasks by name then, as it does in processes that billiard spawns.
FRESH = {"FORKED_BY_MULTIPROCESSING": "1"}


class TaskPool(_BasePool):
    """A pool of Celery whose processes are forked from a template that has loaded the app and its tasks.

    The worker itself never forks, so it may have threads. Callbacks run in the thread of Celery's event loop.
    """

    signal_safe: bool = False  # ending the pool waits for its thread
    uses_semaphore: bool = True  # Celery hands over a task when a process is free, unless it was revoked or has expired
    _ended: int = 0  # tasks that have ended while there was no executor
    _excess: int = 0  # tasks that Celery has handed over beyond the limit, which has shrunk meanwhile
    _executor: RenewingExecutor | None = None
    _wakeup: int = -1  # an eventfd that the event loop watches, if there is one

    def on_start(self) -> None:
        """Make the template and the executor. Celery calls this."""
        _, hostname = self.options["initargs"]
        memory = self.options.get("max_memory_per_child")  # in KiB
        self._calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._jobs: set[TaskJob] = set()
        executor = RenewingExecutor(
            self._make_template,
            max(1, self.limit),  # Celery begins with 0 where it scales by itself
            load=1,  # see Dispatcher.signal_job
            initializer=begin_process,
            initargs=(hostname,),
            max_calls=self.options.get("maxtasksperchild"),
            max_memory=memory and memory * 1024,
        )
        executor.template.ready()
        self._executor = executor
        ended, self._ended = self._ended, 0
        for _ in range(ended):
            self._let_next_in()

    def _make_template(self) -> Template:
        return Template().fork(env={**os.environ, **FRESH}).prepare(load_app, self.options["initargs"][0])

    def register_with_event_loop(self, loop: Any) -> None:
        """Let callbacks run in the thread of this event loop. Celery calls this each time that it starts the loop."""
        if self._wakeup < 0:
            self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add_reader(self._wakeup, self._run_calls)

    def on_apply(self, target: Callable[..., Any], args: Any, kwargs: Any, **options: Any) -> TaskJob:
        """Submit one task. Celery calls this."""
        soft = options.get("soft_timeout") or self.options.get("soft_timeout")
        hard = options.get("timeout") or self.options.get("timeout")
        job = TaskJob(self, hard, soft, options, (run_task, target, args, kwargs, soft))
        self._jobs.add(job)
        job.submit(self._executor)
        return job

    def note_end(self, job: TaskJob) -> None:
        """Note that a task has ended."""
        self._jobs.discard(job)
        if self.options.get("semaphore") is not None:
            self.call_back(self._let_next_in)

    def _let_next_in(self) -> None:
        """Let Celery hand over the next task. Runs in the thread of the event loop."""
        if self._executor is None:
            self._ended += 1
        elif self._excess:
            self._excess -= 1
        else:
            self.options["semaphore"].release()

    def call_back(self, function: Callable[..., object], *args: object) -> None:
        """Call a function of Celery: soon and in its event loop, if there is one."""
        if self._wakeup < 0:
            self._call_safely(function, *args)
        else:
            self._calls.append((function, args))
            os.eventfd_write(self._wakeup, 1)

    def _run_calls(self, *_: object) -> None:
        if self._wakeup >= 0:
            try:
                os.eventfd_read(self._wakeup)
            except BlockingIOError:  # nothing new
                pass
        while self._calls:
            function, args = self._calls.popleft()
            self._call_safely(function, *args)

    def _call_safely(self, function: Callable[..., object], *args: object) -> None:
        """Call a function of Celery; log what it raises, unless that ends the worker."""
        try:
            function(*args)
        except self.callbacks_propagate:
            raise
        except Exception:
            logger.exception("a callback of Celery raised in the task pool")

    def flush(self) -> None:
        """Forget the tasks that have not begun. Celery calls this without its broker, which delivers them again."""
        for job in [*self._jobs]:
            job.forget()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Do nothing: Celery calls ``TaskJob.terminate`` next, which knows whether the task still runs."""

    def grow(self, number: int = 1) -> None:
        """Allow more processes."""
        self._resize(self.limit + number)
        self.call_back(self._let_more_in, number)

    def shrink(self, number: int = 1) -> None:
        """Allow fewer processes; those in excess finish their tasks."""
        number = min(number, self.limit)
        self._resize(self.limit - number)
        self.call_back(self._let_fewer_in, number)

    def _resize(self, limit: int) -> None:
        self.limit = limit
        executor = self._executor
        if executor is not None:
            executor.resize(limit)

    # Celery's semaphore hands over too many tasks when it grows or shrinks while tasks wait for it. Those would wait in
    # the executor, where they can neither expire nor be revoked. These run in the thread of the event loop.

    def _let_more_in(self, number: int) -> None:
        semaphore = self.options.get("semaphore")
        if semaphore is not None:
            semaphore.initial_value += number
            for _ in range(number):
                self._let_next_in()

    def _let_fewer_in(self, number: int) -> None:
        semaphore = self.options.get("semaphore")
        if semaphore is not None:
            self._excess += max(0, number - semaphore.value)
            semaphore.shrink(number)

    def restart(self) -> None:
        """Start new processes, from a new template."""
        self.on_stop()
        self.on_start()

    def on_stop(self) -> None:
        """Finish the tasks that were submitted, and end the processes. Celery calls this."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        while self._jobs:
            wait([job.future for job in [*self._jobs] if job.future is not None], HEARTBEAT)
            self._serve_loop()
        executor.shutdown()
        self._serve_loop()

    def _serve_loop(self) -> None:
        """Do what the event loop has to do while it waits for the pool to end."""
        loop = get_event_loop()
        if loop is not None:
            loop.fire_timers()  # the broker expects heartbeats
        self._run_calls()
        if loop is not None and _send_acknowledgements is not None:
            _send_acknowledgements(loop)

    def on_terminate(self) -> None:
        """End the processes now, and forget their tasks. Celery calls this."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.kill()

    def _get_info(self) -> dict[str, Any]:
        executor = self._executor
        return {**super()._get_info(), "processes": [] if executor is None else executor.pids}


class TaskJob:
    """One task in the pool, from its submission to its end."""

    def __init__(
        self, pool: TaskPool, hard: float | None, soft: float | None, callbacks: dict[str, Any], call: tuple[Any, ...]
    ) -> None:
        self.future: Future[Any] | None = None
        self._pool = pool
        self._executor: RenewingExecutor | None = None
        self._hard = hard
        self._soft = soft
        self._callbacks = callbacks
        self._call = call  # what runs in the process
        self._begun = False
        self._signal: int = 0

    def submit(self, executor: RenewingExecutor | None) -> None:
        """Submit the task. It fails if that is not possible."""
        assert executor is not None
        again, self._executor = self._executor is not None, executor
        submitter = executor.options(timeout=self._hard, on_event=self.note_event)
        try:
            self.future = executor.submit_by(submitter.submit, *self._call)
        except (AnyforkError, OSError, RuntimeError) as error:  # RuntimeError: the pool or the interpreter ends
            self.future = Future()
            self.future.set_exception(error)
        self.future.add_done_callback(self.note_end if again else self._note_first_end)

    def _note_first_end(self, future: Future[Any]) -> None:
        """Submit the task again, once, if its template has died, and so nothing of the task has run."""
        if not future.cancelled() and isinstance(future.exception(), TemplateDiedError):
            self.submit(self._executor)
        else:
            self.note_end(future)

    def terminate(self, signal: int) -> None:
        """End the process of the task by a signal if the task runs. Celery calls this to revoke the task."""
        self._signal = signal
        if self._begun:  # otherwise Celery calls this again when it has begun
            assert self._executor is not None
            assert self.future is not None
            self._executor.signal_job(self.future, signal)

    def forget(self) -> None:
        """Take the task back, unless a process has got it. None of its callbacks is called then."""
        if self.future is not None:
            self.future.cancel()

    def note_event(self, event: tuple[int, float] | None) -> None:
        """Pass on that the task has begun, in which process and when, or has reached its soft time limit."""
        if event is None:
            self._tell("timeout_callback", True, self._soft)
            return
        self._begun = True
        self._tell("accept_callback", *event)

    def note_end(self, future: Future[Any]) -> None:
        """Pass on the result of the task, or why it has none."""
        self._pool.note_end(self)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._tell("callback", future.result())
        elif isinstance(error, CallTimeoutError):
            self._tell("timeout_callback", False, self._hard)
        elif not isinstance(error, CallCancelledError):
            self._tell("error_callback", _info_of(self._seen_by_celery(error)))

    def _seen_by_celery(self, error: BaseException) -> BaseException:
        if not isinstance(error, WorkerDiedError | TemplateDiedError):
            return error
        return Terminated(-self._signal) if self._signal else WorkerLostError(str(error))  # type: ignore[no-any-return]

    def _tell(self, name: str, *args: object) -> None:
        function = self._callbacks.get(name)
        if function is not None:
            self._pool.call_back(function, *args)


def _info_of(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:
        return ExceptionInfo()


# --- In the template and its processes ------------------------------------------------------------------------------

_apps: list[Any] = []  # the app of this template


def load_app(app: Any) -> None:
    """Load the app with all modules of its tasks. Runs in the template."""
    _apps.append(app)
    app.loader.init_worker()
    app.finalize()


def begin_process(hostname: str) -> None:
    """Do what Celery does at the start of each process of its own pool."""
    for process in current_process(), multiprocessing.current_process():  # logging and titles show this name
        process.name = f"PoolWorker-{os.getpid()}"
    process_initializer(_apps[0], hostname)
    atexit.register(process_destructor, os.getpid(), 0)


def run_task(target: Callable[..., Any], args: Any, kwargs: Any, soft: float | None) -> Any:
    """Run a task. Say before that it has begun, and raise SoftTimeLimitExceeded in it after ``soft`` seconds."""
    emit((os.getpid(), monotonic()))
    if soft is None:
        return target(*args, **kwargs)
    signal.signal(signal.SIGALRM, _exceed)
    signal.setitimer(signal.ITIMER_REAL, soft)
    try:
        return target(*args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _exceed(_: int, frame: FrameType | None) -> None:
    """Raise SoftTimeLimitExceeded in the task. Do nothing when the task has just ended, or has still to begin."""
    if frame is None or frame.f_code is run_task.__code__:
        return
    emit(None)
    raise SoftTimeLimitExceeded
