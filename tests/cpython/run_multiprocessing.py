"""Runs tests of the suite and prints a line of JSON for each: its name, what became of it, and what it said.

Run as ``START_METHOD=anyfork python -m run_multiprocessing NAME... -NAME...``, with names of classes or tests as
unittest has them, without the module; those behind a ``-`` are left out. Without names, it prints those of all classes.
"""
# ruff: noqa: N802  # unittest's names

from __future__ import annotations

import json
import signal
import sys
import unittest
from typing import TYPE_CHECKING

import multiprocessing_suite

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from unittest.result import _SysExcInfoType as Raised


class Results(unittest.TestResult):
    """Prints each result when it is there, so that those before a test that hangs are known."""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        _say(test, "started")

    def addSuccess(self, test: unittest.TestCase) -> None:
        _say(test, "passed")

    def addExpectedFailure(self, test: unittest.TestCase, _: Raised) -> None:
        _say(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        _say(test, "skipped", reason)

    def addFailure(self, test: unittest.TestCase, error: Raised) -> None:
        _say(test, "failed", self._exc_info_to_string(error, test))

    addError = addFailure  # noqa: N815  # unittest's name

    def addSubTest(self, test: unittest.TestCase, _: unittest.TestCase, error: Raised | None) -> None:
        if error is not None:
            self.addFailure(test, error)


def _name(test: unittest.TestCase) -> str:
    return test.id().removeprefix("multiprocessing_suite.")


def _say(test: unittest.TestCase, outcome: str, text: str = "") -> None:
    print(json.dumps([_name(test), outcome, text]), flush=True)


def _flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def _run(names: Collection[str], without: Collection[str]) -> None:
    suite = unittest.defaultTestLoader.loadTestsFromNames(names, multiprocessing_suite)
    unittest.TestSuite(test for test in _flat(suite) if _name(test) not in without).run(Results())


def _classes() -> list[str]:
    found = vars(multiprocessing_suite).items()
    return [name for name, value in found if isinstance(value, type) and issubclass(value, unittest.TestCase)]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    without = {name.removeprefix("-") for name in sys.argv[1:]} - {*names}
    if names:
        _run(names, without)
    else:
        print(json.dumps(_classes()))
