"""Programs of the package index do the same warm as cold: output, exit status, and files."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from cold_and_warm import PLAIN, Runs, preloaded

pytestmark = pytest.mark.slow

TESTS = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_passes(n, tmp_path, capsys):
    print(n)
    assert capsys.readouterr().out == f"{n}\\n"

def test_fails():
    assert [1, 2] == [1, 3]
"""
MODULE = "def f(x: int) -> str:\n    return x\n\n\nclass   A:\n  b=1\nprint( f (1) )\n"
FLASK = "from flask import Flask\napp = Flask(__name__)\n@app.route('/')\ndef home(): return 'hello'\n"
NOTEBOOK = """{"cells": [
    {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Title"},
    {"cell_type": "code", "id": "b", "metadata": {}, "source": "print(1)", "outputs": [], "execution_count": 1}
], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
"""
CONF = "project = 'x'\nextensions = ['sphinx.ext.autodoc']\n"


def make(place):
    """Write what the programs work on."""
    (place / "test_it.py").write_text(TESTS)
    (place / "module.py").write_text(MODULE)
    (place / "broken.py").write_text("def f(:\n")
    (place / "app.py").write_text(FLASK)
    (place / "notebook.ipynb").write_text(NOTEBOOK)
    (place / "docs").mkdir()
    (place / "docs" / "conf.py").write_text(CONF)
    (place / "docs" / "index.rst").write_text("Title\n=====\n\n* :doc:`missing`\n")


# What is preloaded, and the command lines; without the package, the test is skipped.
PROGRAMS = {
    "pytest": (
        "pytest _pytest.assertion",
        "-p no:randomly -p no:cacheprovider -q|-p no:randomly --collect-only -q|-p no:randomly missing.py|--version|--nonsense",
    ),
    "mypy": ("mypy.main", "--cache-dir=/dev/null module.py|--version|missing.py|--cache-dir=/dev/null broken.py|-h"),
    "coverage": ("coverage.cmdline", "run module.py|report|--version|nonsense|run missing.py"),
    "pygments": ("pygments.cmdline", "module.py|-f html module.py|-l nonsense module.py|-L lexers|missing.py"),
    "uvicorn": ("uvicorn.main", "--version|--help|missing:app|module:app|"),
    "IPython": ("IPython.core.application", "--version|-c print(1+1) --colors=nocolor|--help"),
    "PyInstaller": ("PyInstaller.building", "--version|--help|"),
    "ipykernel": ("ipykernel.kernelapp", "--version|--help"),
    "hatchling": ("hatchling.cli", "--help|version|build"),
    "dask": ("dask.dataframe", "--help|config list|nonsense"),
    "trio": ("trio", "-c"),
    "pip": ("pip._internal.cli.main", "--version|list --format=json|show missing|config list|nonsense"),
    "joblib": ("joblib", ""),
    "numpy.f2py": ("numpy.f2py", "-v|-h|missing.f"),
    "debugpy": ("", "--version|--help"),
    "black": ("black", "--check module.py|--diff module.py|module.py|broken.py|--version"),
    "sphinx": ("sphinx.application", "-b text -q docs out|--version|-b nonsense docs out"),
    "django": ("django.core.management", "startproject project|--version|check|nonsense"),
    "flask": ("flask.cli", "--app app routes|--app missing routes|--version|nonsense"),
    "alembic": ("alembic.config", "init migrations|--version|current"),
    "httpie": ("httpie.core", "--version|--offline example.org a=b|"),
    "yt_dlp": ("yt_dlp", "--help|--version|"),
    "streamlit": ("streamlit.web.cli", "--help|--version|run missing.py"),
    "jupyter": ("jupyter_core.command", "--version|--paths|nonsense"),
    "nbconvert": (
        "nbconvert.nbconvertapp",
        "--to markdown --stdout notebook.ipynb|--to python notebook.ipynb|missing.ipynb",
    ),
    "docutils": ("docutils.core", "docs/index.rst|--version|missing.rst"),
    "pylint": ("pylint.lint", "module.py --score=n|--version|missing.py"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_the_package_index_does_the_same(tmp_path, name):
    if find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed")
    modules, lines = PROGRAMS[name]
    env = {**PLAIN, "PYTHONHASHSEED": "0"}  # some print sets
    with preloaded(modules, env) as template:
        runs = Runs(tmp_path / "here", make, template)
        for line in lines.split("|"):
            runs.check(["-m", name, *line.split()], env=env)
