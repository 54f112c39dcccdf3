"""Engines of adapters that are missing or too old."""

import pytest

from anyfork.contrib._engine import Engine


def test_a_missing_engine_is_an_error_that_names_the_extra():
    with pytest.raises(
        ImportError, match=r"needs no-engine 1.2 or newer, but there is no no-engine: install anyfork\[x\]$"
    ):
        with Engine("no-engine", "1.2", "x"):
            import no_engine  # noqa: F401


def test_an_engine_that_is_too_old_is_an_error_that_names_both_versions():
    with pytest.raises(
        ImportError, match=rf"needs pytest 999.0 or newer, but there is pytest {pytest.__version__}: install"
    ):
        with Engine("pytest", "999.0", "x"):
            pass


def test_an_engine_that_is_new_enough_is_imported():
    with Engine("pytest", "8.4", "x"):
        import pytest as engine  # noqa: PT013
    assert engine is pytest


def test_other_errors_of_an_engine_are_its_own():
    with pytest.raises(ZeroDivisionError):
        with Engine("pytest", "8.4", "x"):
            _ = 1 // 0
