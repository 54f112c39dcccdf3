"""Runs tests of the suite and prints a line of JSON for each: its name, what became of it, and what it said.

Run as ``START_METHOD=anyfork python -m run_multiprocessing NAME...``, names as unittest has them, without the module.
"""

from __future__ import annotations

import json
import signal
import sys
import unittest

import multiprocessing_suite


class Results(unittest.TestResult):
    """Prints each result when it is there, so that those before a test that hangs are known."""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        _say(test, "started", "")

    def addSuccess(self, test: unittest.TestCase) -> None:
        _say(test, "passed", "")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        _say(test, "skipped", reason)

    def addExpectedFailure(self, test, error) -> None:
        _say(test, "passed", "")

    def addFailure(self, test, error) -> None:
        super().addFailure(test, error)
        _say(test, "failed", self.failures[-1][1])

    def addError(self, test, error) -> None:
        super().addError(test, error)
        _say(test, "failed", self.errors[-1][1])

    def addSubTest(self, test, subtest, error) -> None:
        super().addSubTest(test, subtest, error)
        if error is not None:
            _say(test, "failed", (self.failures + self.errors)[-1][1])


def _say(test: unittest.TestCase, outcome: str, text: str) -> None:
    print(json.dumps([test.id().removeprefix("multiprocessing_suite."), outcome, text]), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
    unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:], multiprocessing_suite).run(Results())
