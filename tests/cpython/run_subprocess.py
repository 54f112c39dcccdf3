"""Runs CPython's tests of subprocess, with the module that an argument names, and prints what became of each as JSON.

Run as ``python -m run_subprocess MODULE NAME...``. The private names of the module that the tests use are those of the
standard one. The last line has the names of tests that passed, the others with what they said, and the number of
programs that a template has started.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import unittest
from types import ModuleType
from typing import TYPE_CHECKING

import test.test_subprocess as suite

from anyfork._programs import popen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from unittest.result import _SysExcInfoType as Raised

started = 0


class Results(unittest.TestResult):
    """Collects the tests that passed, and the texts of those that did not."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[str] = []
        self.bad: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802  # unittest's name
        self.passed.append(name_of(test))

    def addFailure(self, test: unittest.TestCase, error: Raised) -> None:  # noqa: N802  # as above
        self.bad[name_of(test)] = self._exc_info_to_string(error, test)

    addError = addFailure  # noqa: N815  # as above


def name_of(test: unittest.TestCase) -> str:
    return test.id().removeprefix("test.test_subprocess.")


def module(name: str) -> ModuleType:
    """Return a module with the public names of one module, and the private names of the standard one."""
    mixed = ModuleType("subprocess")
    vars(mixed).update(vars(subprocess))
    public = importlib.import_module(name)
    vars(mixed).update({name: getattr(public, name) for name in public.__all__})
    return mixed


def count() -> None:
    """Count the programs that a template starts."""
    start = popen.start_warm

    def counted(*arguments: object) -> object:
        global started
        process, why = start(*arguments)
        started += not why
        return process, why

    popen.start_warm = counted


def main(name: str, tests: Sequence[str]) -> None:
    count()
    suite.subprocess = module(name)
    loader = unittest.defaultTestLoader
    loaded = loader.loadTestsFromNames(tests, suite) if tests else loader.loadTestsFromModule(suite)
    result = Results()
    loaded.run(result)
    print(json.dumps({"passed": result.passed, "bad": result.bad, "warm": started}))


main(sys.argv[1], sys.argv[2:])
