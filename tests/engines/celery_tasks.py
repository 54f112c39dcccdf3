"""An app of Celery for tests, with its tasks."""

import logging
import os
import signal
import time
from pathlib import Path

from billiard.exceptions import SoftTimeLimitExceeded
from billiard.process import current_process
from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

if Path("broken").exists():
    raise RuntimeError("this module was broken meanwhile")

app = Celery("celery_tasks", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BROKER"])
app.conf.update(broker_transport_options={"visibility_timeout": 1})  # seconds; Celery looks when it has connected
app.conf.update(
    worker_pool_restarts=True,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    result_backend_thread_safe=True,
)

initialised = []
LOADED_IN = os.getpid()


@worker_process_init.connect
def note(**_):
    """Note that Celery's signal has been sent in this process."""
    initialised.append(os.getpid())


@worker_process_shutdown.connect
def note_end(**_):
    """Note that Celery's signal has been sent at the end of this process."""
    Path(f"ended-{os.getpid()}").touch()


KEPT = []


@app.task
def keep(size):
    """Keep so many bytes in this process. Return its number."""
    KEPT.append(b"x" * size)
    return os.getpid()


@app.task
def processes():
    """Say which process runs this, which one has loaded this module, and whether Celery's signal was sent."""
    return os.getpid(), LOADED_IN, os.getppid(), initialised == [os.getpid()]


@app.task
def logged_as():
    """Say how log records call this process."""
    return logging.makeLogRecord({}).processName, current_process().name


@app.task
def add(x, y):
    """Add."""
    return x + y


@app.task
def fail():
    """Raise an error."""
    raise ArithmeticError("a task's own error")


@app.task
def die():
    """End the process by a signal."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, max_retries=1)
def retried(self):
    """Fail the first time."""
    if not self.request.retries:
        raise self.retry(countdown=0)
    return "again"


@app.task(acks_late=True, reject_on_worker_lost=True)
def die_once(path):
    """End the process by a signal the first time; the broker delivers the task again."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@app.task
def wait(path):
    """Say that the task has begun, with its process, and run for long."""
    Path(f"{path}.new").write_text(str(os.getpid()))
    Path(f"{path}.new").rename(path)
    time.sleep(50)


@app.task(acks_late=True)
def finish(path, fifo):
    """Say that the task has begun, and wait for a FIFO."""
    Path(f"{path}.new").write_text(str(os.getpid()))
    Path(f"{path}.new").rename(path)
    with open(fifo):
        Path(f"{path}.done").touch()


@app.task
def hold(path, fifo):
    """Do the same, and be acknowledged before."""
    finish(path, fifo)


@app.task
def add_line(path, text):
    """Add a line to a file."""
    with open(path, "a") as file:
        file.write(f"{text}\n")


@app.task(soft_time_limit=0.3)
def soft():
    """Reach the soft time limit."""
    try:
        time.sleep(50)
    except SoftTimeLimitExceeded:
        return "noticed"


@app.task(time_limit=0.3)
def hard():
    """Reach the hard time limit."""
    time.sleep(50)
