"""``logs=True``: log records of workers come to the handlers of their owner; and what pools log of themselves."""

from __future__ import annotations

import json
import logging
import os
import time

import observed_faces
import observed_functions as jobs
import pytest
from conftest import eventually
from observed_faces import opened

import anyfork
from _anyfork_child.wire.call_messages import MAX_BODY
from _anyfork_child.worker.logs import encode

LOGGER = jobs.logger.name


@pytest.fixture
def records(caplog):
    """Return the records so far of a logger."""
    caplog.set_level(logging.INFO)
    return lambda name=LOGGER: [record for record in caplog.records if record.name == name]


def texts(records):
    return [record.getMessage() for record in records]


@pytest.mark.parametrize("kind", observed_faces.ALL)
def test_a_record_says_which_worker_and_call_it_comes_from(kind, records):
    with opened(kind, logs=True) as face:
        pid = face.call(jobs.say_with_data, "hello")
        face.call(jobs.fail_and_say)
    hello, caught = records()
    assert (hello.levelname, hello.getMessage(), hello.funcName) == ("INFO", "hello", "say")
    assert (hello.process, hello.worker_pid) == (pid, pid)
    assert hello.worker.endswith(f"worker {pid}")
    assert 0 < hello.call < caught.call
    assert (hello.order, hello.thing, hello.nested) == (7, "a thing", {"a": [1]})
    assert "ValueError: it is wrong" in caught.exc_text


@pytest.mark.parametrize("kind", observed_faces.ALL)
def test_the_levels_of_the_owner_hold_in_workers_and_nothing_is_lost_at_the_end(kind, caplog):
    caplog.set_level(logging.ERROR)
    caplog.set_level(logging.INFO, LOGGER)
    with opened(kind, logs=True) as face:
        face.call(jobs.say_at_all_levels)
        face.map(jobs.count_up, [500, 500])
    assert [record.getMessage() for record in caplog.records] == [
        "INFO",
        "ERROR",
        *map(str, [*range(500), *range(500)]),
    ]


def test_without_the_option_no_record_comes(records):
    with opened("worker") as face:
        face.call(jobs.say, "hello")
    assert texts(records()) == []


def test_the_records_of_an_initializer_come_too(records):
    with opened("executor", logs=True, initializer=jobs.say, initargs=("ready",)) as face:
        face.call(jobs.say, "go")
    assert [(record.getMessage(), record.call) for record in records()] == [
        ("ready", None),
        ("go", 1),
    ]


def test_a_message_that_is_a_dictionary_stays_one(records):
    with opened("worker", logs=True) as face:
        face.call(jobs.say_dictionary)
    (record,) = records()
    assert record.msg == {"event": "paid", "amount": 3}


def test_logging_never_waits_for_an_owner_that_reads_nothing(records, tmp_path):
    with opened("worker", logs=True) as face:
        face.call(jobs.count_up_in_a_thread, 3000, tmp_path / "flag")
        eventually((tmp_path / "flag").exists, "the worker waits")
    assert texts(records()) == [str(number) for number in range(3000)]


def test_records_that_wait_have_a_limit_and_the_owner_learns_how_many_were_dropped(records, tmp_path):
    with opened("worker", logs=True) as face:
        face.call(jobs.drop_much, 3000, tmp_path / "flag")
        eventually((tmp_path / "flag").exists, "the worker waits")
    told = [text for text in texts(records("anyfork")) if "were dropped" in text]
    assert texts(records())[-1] == "2999"
    assert told
    assert sum(int(text.split()[0]) for text in told) == 3000 - len(records())


def test_a_signal_handler_that_logs_in_the_middle_of_a_message_does_no_harm(records):
    with opened("worker", logs=True) as face:
        for _ in range(20):
            assert face.call(jobs.return_while_a_signal_handler_logs, 500_000) == bytes(500_000)
    assert set(texts(records())) <= {"tick"}


def test_a_forked_copy_of_a_worker_sends_no_records(records):
    with opened("executor", logs=True) as face:
        face.call(jobs.say_in_a_copy)
    assert texts(records()) == ["from the worker"]


@pytest.mark.parametrize("extra", [{}, {"loop": []}, {"much": ["x" * 1000] * 2000}], ids=["long", "loop", "much"])
def test_no_record_is_too_large_or_too_odd(extra):
    if "loop" in extra:
        extra["loop"].append(extra["loop"])
    record = logging.makeLogRecord({"name": "a", "levelno": 20, "msg": "ä" * MAX_BODY, "args": (), **extra})
    body = encode(record)
    assert len(body) <= MAX_BODY
    assert json.loads(body)["msg"].startswith("ää")


@pytest.mark.untraced
@pytest.mark.parametrize("kind", observed_faces.POOLS)
def test_a_pool_logs_what_it_does_and_why(kind, caplog):
    caplog.set_level(logging.DEBUG, "anyfork")
    with opened(kind, max_calls=2, name="resize") as face:
        with pytest.raises(anyfork.CallTimeoutError):
            face.call_within(0.01, time.sleep, 60)
        face.map(abs, [1, 2])
        with pytest.raises(anyfork.WorkerDiedError):
            face.call(os._exit, 3)
        face.call(abs, -1)
    said = "\n".join(record.getMessage() for record in caplog.records)
    for part in (
        f"{'Executor' if kind == 'executor' else 'Pool'} resize starts a worker: jobs that wait: 1",
        "ran for too long",
        "it has had max_calls calls",
        "with exit code 3",
        "the pool is closed",
    ):
        assert part in said, said
