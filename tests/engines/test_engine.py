"""Engines of adapters that are missing, too old, or broken."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from anyfork.contrib._engine import require

ROOT = Path(__file__).parents[2]
# A package that is new enough for the adapter, but needs another one that is not there.
BROKEN = {"rq/__init__.py": "import no_such_module", "rq-99.0.dist-info/METADATA": "Name: rq\nVersion: 99.0\n"}


def test_a_missing_engine_is_an_error_that_names_the_extra():
    with pytest.raises(
        ImportError, match=r"needs no-engine 1.2 or newer, but there is no no-engine: install anyfork\[x\]$"
    ):
        require("no-engine", "1.2", "x")


def test_an_engine_that_is_too_old_is_an_error_that_names_both_versions():
    with pytest.raises(
        ImportError, match=rf"needs pytest 999.0 or newer, but there is pytest {pytest.__version__}: install"
    ):
        require("pytest", "999.0", "x")


def test_an_engine_that_is_new_enough_passes():
    require("pytest", "8.4", "x")


def test_an_import_that_fails_in_an_engine_is_an_error_of_its_own(tmp_path):
    for name, text in BROKEN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    paths = filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
    done = subprocess.run(
        [sys.executable, "-c", "import anyfork.contrib.rq"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_module'"


@pytest.mark.parametrize(
    ("package", "error"),
    [
        (None, "ImportError: anyfork.joblib needs joblib 1.4 or newer: install anyfork[joblib]"),
        ("", "ImportError: anyfork.joblib needs joblib 1.4 or newer: install anyfork[joblib]"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
    ids=["missing", "too old", "broken"],
)
def test_a_joblib_that_does_not_do_is_an_error_that_names_the_extra(tmp_path, package, error):
    code = "import sys\nsys.modules['joblib'] = None\n" if package is None else ""
    (tmp_path / "joblib.py").write_text(package or "")
    paths = filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
    done = subprocess.run(
        [sys.executable, "-c", f"{code}import anyfork.joblib"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.stderr.splitlines()[-1] == error


def test_each_adapter_needs_the_version_of_its_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    needed = {}
    for path in (ROOT / "src/anyfork/contrib").glob("[!_]*.py"):
        for arguments in re.findall(r"^require(\(.*\))$", path.read_text(), re.MULTILINE):  # Prometheus needs none
            name, least, extra = ast.literal_eval(arguments)
            needed[extra] = [f"{name}>={least}"]
            assert path.stem == extra
    assert needed == {extra: extras[extra] for extra in needed}
    assert extras["joblib"] == ["joblib>=1.4"]
    assert {engine for (engine,) in needed.values()} <= {*project["dependency-groups"]["engines"]}
