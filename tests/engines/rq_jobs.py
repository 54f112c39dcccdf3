"""Jobs of the tests of RQ, and workers for them."""

import os
import signal
import threading
import time
from pathlib import Path

import anyfork
from anyfork.contrib.rq import NEEDED, Worker


class Preloading(Worker):
    """A worker whose template has loaded this module and has data."""

    preload = ("rq_jobs",)

    def make_template(self):
        return anyfork.Template().prepare("rq_jobs:load", 1, 2, 3)


class Killing(Preloading):
    """A worker whose template is killed before each job."""

    def fork_work_horse(self, job, queue):
        if self._template is not None and self._template.pid is not None:
            os.kill(self._template.pid, signal.SIGKILL)
        super().fork_work_horse(job, queue)


class Unrepeatable(Killing):
    """A worker whose template is killed before each job, and cannot be made again."""

    def make_template(self):
        template = super().make_template()
        return template if self._template is None else template.preload("no_such_module")


class Renewing(Worker):
    """A worker that makes its template again when the module of the jobs has changed."""

    def make_template(self):
        return anyfork.Warm(*NEEDED, "changing_jobs")


class KillingRenewed(Renewing):
    """A worker whose template is killed before each job, and whose Warm makes another one."""

    def fork_work_horse(self, job, queue):
        os.kill(self._template.template().pid, signal.SIGKILL)
        super().fork_work_horse(job, queue)


class RenewingOwn(Worker):
    """A worker that does the same with a template of its own making."""

    def make_template(self):
        return anyfork.Warm(make=lambda: anyfork.Template().preload(*NEEDED, "changing_jobs"))


class PreloadingTwice(Renewing):
    """A worker whose modules do not reach its template."""

    preload = ("json",)


class Broken(Worker):
    """A worker whose template cannot be made."""

    preload = ("no_such_module",)


DATA = []


def load(*items):
    """Prepare data in a template."""
    DATA.extend(items)


def processes():
    """Say which process runs this, which one has forked it, its session, and what the template has prepared."""
    return os.getpid(), os.getppid(), os.getsid(0), threading.active_count(), DATA


def environment():
    """Return what RQ says to jobs in their environment."""
    return os.environ["RQ_WORKER_ID"], os.environ["RQ_JOB_ID"], os.environ.get("FOR_JOBS")


def fail():
    """Raise an error."""
    raise ArithmeticError("a job's own error")


def die():
    """End this process by a signal."""
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    """End this process with an exit code."""
    os._exit(7)


def sleep_long():
    """Run longer than allowed."""
    time.sleep(60)


def say_and_wait(begun):
    """Say that the job has begun, with its process and a child of it, and wait to be killed."""
    child = os.fork()
    if child == 0:
        signal.pause()
    Path(f"{begun}.new").write_text(f"{os.getpid()} {child}")
    Path(f"{begun}.new").rename(begun)
    time.sleep(60)


def finish(begun, fifo):
    """Say that the job has begun, with its process, and wait for a FIFO."""
    Path(f"{begun}.new").write_text(str(os.getpid()))
    Path(f"{begun}.new").rename(begun)
    with open(fifo):
        pass


def note(job, connection, result, *more):
    """Record what a callback has got."""
    connection.set(f"noted {job.id}", repr(result))


def handle(job, *error):
    """Handle the error of a job."""
    job.meta["handled"] = str(error[1])
    job.save_meta()
    return True
