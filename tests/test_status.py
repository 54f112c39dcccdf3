"""ExitStatus and Usage are values: they say how a process has ended and do not change."""

from __future__ import annotations

import copy
import pickle
import signal

import pytest

from anyfork import ExitStatus, Usage
from anyfork._status import UNKNOWN, exit_status

USAGE = Usage(1.5, 0.25, 2048, 10, 0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("wait_status", "code", "number"),
    [
        (0, 0, None),
        (3 << 8, 3, None),
        (255 << 8, 255, None),
        (9, None, 9),
        (15, None, 15),
        (11 | 0x80, None, 11),
        (64, None, 64),
    ],
)
def test_a_wait_status_is_a_code_or_a_signal(wait_status, code, number):
    status = exit_status(wait_status)
    assert (status.code, status.signal) == (code, number)


@pytest.mark.parametrize(
    ("status", "returncode", "known", "text"),
    [
        (ExitStatus(0), 0, True, "ended with exit code 0"),
        (ExitStatus(7), 7, True, "ended with exit code 7"),
        (ExitStatus(signal=signal.SIGTERM), -15, True, "ended by signal 15 (SIGTERM)"),
        (ExitStatus(signal=35), -35, True, "ended by signal 35 (signal 35)"),
        (UNKNOWN, None, False, "ended with an unknown exit status"),
    ],
)
def test_a_status_tells_its_return_code_and_its_words(status, returncode, known, text):
    assert (status.returncode, status.known, str(status)) == (returncode, known, text)


def test_a_status_cannot_be_both_a_code_and_a_signal():
    with pytest.raises(ValueError, match="not both"):
        ExitStatus(1, 9)


def test_a_status_keeps_usage_and_error():
    status = exit_status(1 << 8, USAGE, "Traceback")
    assert (status.code, status.usage, status.error) == (1, USAGE, "Traceback")


@pytest.mark.parametrize(
    "value", [ExitStatus(3, None, USAGE, "text"), UNKNOWN, USAGE], ids=["status", "unknown", "usage"]
)
def test_a_status_survives_pickle_and_copying(value):
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value


@pytest.mark.parametrize(("value", "field"), [(ExitStatus(3), "code"), (USAGE, "max_rss")])
def test_a_status_does_not_change(value, field):
    with pytest.raises(AttributeError):
        setattr(value, field, 5)


@pytest.mark.parametrize(("value", "field"), [(ExitStatus(3), "code"), (USAGE, "max_rss")])
def test_nothing_of_a_status_can_be_deleted(value, field):
    with pytest.raises(AttributeError):
        delattr(value, field)


def test_a_status_gets_no_new_attributes():
    with pytest.raises(AttributeError):
        ExitStatus(3).note = "x"


def test_statuses_are_equal_when_all_of_them_is():
    assert ExitStatus(3) == ExitStatus(3)
    assert ExitStatus(3) != ExitStatus(4)
    assert ExitStatus(3) != ExitStatus(3, usage=USAGE)
    assert ExitStatus(3) != 3


def test_equal_statuses_have_equal_hashes():
    assert len({ExitStatus(3), ExitStatus(3), ExitStatus(signal=3)}) == 2


def test_a_status_can_be_matched():
    match ExitStatus(signal=9):
        case ExitStatus(signal=9):
            pass
        case _:
            pytest.fail("it did not match")


def test_a_status_shows_its_fields():
    assert repr(ExitStatus(3)) == "ExitStatus(code=3, signal=None, usage=None, error=None)"


def test_usage_shows_its_fields():
    assert repr(USAGE).startswith("Usage(user_time=1.5, system_time=0.25, max_rss=2048, minor_faults=10, ")


def test_usage_needs_all_its_numbers():
    with pytest.raises((TypeError, ValueError)):
        Usage(1.0, 2.0)


def test_statuses_are_public_and_say_so():
    assert (ExitStatus.__module__, Usage.__module__) == ("anyfork", "anyfork")
