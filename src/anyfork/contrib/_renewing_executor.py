"""The executor of an adapter: it makes its template again when that has died, because engines run for months."""

from __future__ import annotations

from functools import partial
from threading import Lock

from .._errors import TemplateDiedError
from .._executor.executor import Executor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any, Unpack

    from .._blocking.template import Template
    from .._executor.executor import ExecutorOptions


class RenewingExecutor(Executor):
    """An Executor that owns its template. When a job cannot run because the template has died, ``make`` makes another.

    That job fails with TemplateDiedError, and has not run; jobs that are submitted after that run in processes of the
    new template. ``shutdown`` and ``kill`` close the template.
    """

    def __init__(self, make: Callable[[], Template], max_workers: int, **options: Unpack[ExecutorOptions]) -> None:
        self._make = make
        self._renewing = Lock()
        self.template: Template = make()
        super().__init__(self.template, max_workers, **options)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do the same as ``Executor.submit``. Raises what ``make`` raises, too."""
        return self.submit_by(super().submit, fn, *args, **kwargs)

    def submit_by(self, submit: Callable[..., Future[Any]], fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do the same with the ``submit`` of a view of this executor with other options."""
        template = self.template
        try:
            future = submit(fn, *args, **kwargs)
        except TemplateDiedError:
            self._renew(template)
            template = self.template
            future = submit(fn, *args, **kwargs)
        future.add_done_callback(partial(self._look, template))  # the first callback: others find the new template
        return future

    def _look(self, template: Template, future: Future[Any]) -> None:
        if not future.cancelled() and isinstance(future.exception(), TemplateDiedError):
            self._renew(template)

    def _renew(self, template: Template) -> None:
        """Replace this template, unless another thread has done so."""
        with self._renewing:
            if self.template is not template:
                return
            new = self._make()
            try:
                self.replace_template(new)
            except RuntimeError:  # the executor was shut down, so there are no more jobs
                new.close()
                return
            self.template = new
            template.close()

    def signal_job(self, future: Any, number: int) -> None:
        """Send a signal to the process that runs the job of a future. Do nothing if the job has ended."""
        job = future._job
        if job is not None:  # the future has not ended
            self._dispatcher.signal_job(job, number)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do the same as ``Executor.shutdown``. The template ends with the last job."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait:  # otherwise jobs may still need it, and it is closed when this object is deleted
            self.template.close()

    def kill(self) -> None:
        """Do the same as ``Executor.kill``, and end the template."""
        super().kill()
        self.template.close()
