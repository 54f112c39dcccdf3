"""CPython's own tests of multiprocessing, with a start method that an environment variable names.

With INSTALLED in the environment, the start method of that name is replaced by ours.

A module of its own, not ``__main__``: the processes of the tests import their classes from here.
"""

from __future__ import annotations

import os

from test._test_multiprocessing import install_tests_in_module_dict

import anyfork.context  # makes the start method known

if os.environ.get("INSTALLED"):
    anyfork.context.install(os.environ["START_METHOD"])

install_tests_in_module_dict(globals(), os.environ["START_METHOD"])
