"""CPython's own tests of multiprocessing, with a start method that an environment variable names.

A module of its own, not ``__main__``: the processes of the tests import their classes from here.
"""

from __future__ import annotations

import os

from test._test_multiprocessing import install_tests_in_module_dict

import anyfork.context  # noqa: F401  # makes the start method known

install_tests_in_module_dict(globals(), os.environ["START_METHOD"])
