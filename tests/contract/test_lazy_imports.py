"""Lazy imports (PEP 810, Python 3.15): a template has really loaded what it preloaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(sys, "set_lazy_imports"), reason="lazy imports came with Python 3.15")

FILES = {
    "lazy_pkg/__init__.py": "lazy import wave\nlazy from json import tool\nlazy import not_a_module\nfrom . import sub\n",
    "lazy_pkg/sub.py": "lazy from . import deep\n",
    "lazy_pkg/deep.py": "lazy import colorsys\n",
    "lazy_filter.py": "def keep(importing, imported, names): return imported != 'wave'\n",
    "ordinary.py": "import wave, colorsys\n",
}
LOADED = "sorted({'wave', 'json.tool', 'lazy_pkg.deep', 'colorsys'} & set(__import__('sys').modules))"


@pytest.fixture
def program(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def run(text, *options):
        command = [sys.executable, *options, "-c", "import anyfork, sys\n" + text]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr

    return run


def test_a_preload_resolves_the_lazy_imports_of_a_package(program):
    said, errors = program(
        f"t = anyfork.Template().preload('lazy_pkg')\nprint(anyfork.call(eval, {LOADED!r}, template=t))", "-Wdefault"
    )
    assert said == "['colorsys', 'json.tool', 'lazy_pkg.deep', 'wave']"
    assert "ImportWarning: cannot preload 'not_a_module', a lazy import of lazy_pkg: No module named" in errors


def test_what_cannot_be_resolved_is_no_error_even_where_warnings_are(program):
    said, errors = program(
        "t = anyfork.Template().preload('lazy_pkg').ready()\nprint(anyfork.call(max, 1, 2, template=t))", "-Werror"
    )
    assert (said, errors) == ("2", "")


@pytest.mark.parametrize("way", ["option", "call"])
def test_the_mode_of_the_program_is_passed_on(program, way):
    lazy = "sys.set_lazy_imports('all')\n" if way == "call" else ""
    options = ["-X", "lazy_imports=all"] if way == "option" else []
    said, _ = program(
        lazy + "t = anyfork.Template()\n"
        "code = \"(__import__('sys').get_lazy_imports(), __import__('ordinary') and 'wave' in __import__('sys').modules)\"\n"
        "print(anyfork.call(eval, code, template=t), anyfork.call(eval, code, template=anyfork.Template().preload('ordinary')))",
        *options,
    )
    assert said == "('all', False) ('all', True)"


def test_a_filter_of_a_module_is_passed_on(program):
    said, _ = program(
        "import lazy_filter\nsys.set_lazy_imports('all'); sys.set_lazy_imports_filter(lazy_filter.keep)\n"
        "code = \"__import__('ordinary') and [name in __import__('sys').modules for name in ('wave', 'colorsys')]\"\n"
        "print(anyfork.call(eval, code))"
    )
    assert said == "[True, False]"


def test_a_filter_of_the_main_program_stays_there(program):
    said, _ = program(
        "sys.set_lazy_imports('all'); sys.set_lazy_imports_filter(lambda *names: True)\n"
        "print(anyfork.call(eval, \"__import__('sys').get_lazy_imports(), __import__('sys').get_lazy_imports_filter()\"))"
    )
    assert said == "('all', None)"


def test_workers_and_pools_work_where_all_imports_are_lazy(program):
    said, _ = program(
        "with anyfork.Executor(max_workers=1) as e, anyfork.Worker() as w:\n"
        "    print(e.submit(divmod, 7, 2).result(), w.call(max, 1, 2))\n"
        "with anyfork.get_context().Pool(1) as pool:\n    print(pool.map(abs, [-3]))",
        "-X",
        "lazy_imports=all",
    )
    assert said == "(3, 1) 2\n[3]"
