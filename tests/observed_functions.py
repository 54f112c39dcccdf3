"""What workers do in the tests of logs and statistics. Workers import this module by its name."""

from __future__ import annotations

import logging
import os
import signal
import threading

logger = logging.getLogger("tests.of.logs")


def say(text, **extra):
    logger.info("%s", text, extra=extra)
    return os.getpid()


def say_with_data(text):
    return say(text, order=7, thing=Thing(), nested={"a": [1]})


def say_dictionary():
    logger.warning({"event": "paid", "amount": 3})


def say_at_all_levels():
    for level in (logging.DEBUG, logging.INFO, logging.ERROR):
        logger.log(level, logging.getLevelName(level))


def fail_and_say():
    try:
        raise ValueError("it is wrong")
    except ValueError:
        logger.exception("caught")


def count_up(count):
    for number in range(count):
        logger.info("%d", number)
    return count


def count_up_in_a_thread(count, flag):
    """Log in a thread that goes on after the call, and say when it is done."""

    def run() -> None:
        count_up(count)
        flag.touch()

    threading.Thread(target=run).start()


def drop_much(count, flag):
    from _anyfork_child.worker import logs

    logs.MOST_BYTES = 20_000
    count_up_in_a_thread(count, flag)


def return_while_a_signal_handler_logs(size):
    signal.signal(signal.SIGALRM, lambda *_: logger.info("tick"))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    return bytes(size)


def say_in_a_copy():
    pid = os.fork()
    if not pid:
        logger.info("from the copy")
        os._exit(0)
    os.waitpid(pid, 0)
    logger.info("from the worker")


class Thing:
    def __str__(self) -> str:
        return "a thing"


kept = []


def keep_memory(size):
    kept.append(b"x" * size)


def own_title(_=None):
    """Return what ``ps`` shows of this process."""
    with open("/proc/self/cmdline") as file:
        return file.read().rstrip("\0")
