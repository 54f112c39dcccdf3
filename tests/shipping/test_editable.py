"""Packages that are installed where they are developed: each way in which a builder makes them found."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from shipped import SOURCES, clean, outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SETUPTOOLS = """
    [build-system]
    requires = ["setuptools"]
    build-backend = "setuptools.build_meta"
    [project]
    name = "shop"
    version = "1"
    [tool.setuptools]
    {layout}
"""
HATCHLING = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"
    [project]
    name = "shop"
    version = "1"
    [tool.hatch.build.targets.wheel]
    packages = ["code/shop"]
    {layout}
"""
MODULE = """
class OwnError(Exception):
    pass
def place():
    return __file__
def fail():
    from .below import text
    raise OwnError(text)
"""
PROGRAM = """
    import anyfork, os, shop, sys
    for first in "none", "shop":
        for make in anyfork.Template, anyfork.Template.new_exec:
            template = make()
            if first == "shop":
                template.preload("shop.below")
            print(anyfork.call(shop.place, template=template.fork()))
            try:
                anyfork.call(shop.fail, template=template)
            except shop.OwnError as error:
                print(error)
    print(*[entry for entry in sys.path if entry.startswith(sys.argv[1])])
"""


@pytest.fixture
def project(tmp_path):
    """Return a package, and a virtual environment with what its builders and anyfork need."""
    code = tmp_path / "code" / "shop"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text(MODULE)
    (code / "below.py").write_text("text = 'from below'\n")
    outcome([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"])
    found = Path(pytest.__file__).parent.parent
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    (site / "0_needed.pth").write_text(f"{SOURCES}\n{found}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("builder", "layout", "config", "in_path"),
    [
        (SETUPTOOLS, 'packages = ["shop"]\npackage-dir = {{"" = "code"}}', [], True),
        (SETUPTOOLS, 'packages = ["shop"]\npackage-dir = {{"shop" = "code/shop"}}', [], False),  # a finder
        (
            SETUPTOOLS,
            'packages = ["shop"]\npackage-dir = {{"" = "code"}}',
            ["--config-settings=editable_mode=strict"],
            False,
        ),
        (
            SETUPTOOLS,
            'packages = ["shop"]\npackage-dir = {{"" = "code"}}',
            ["--config-settings=editable_mode=compat"],
            True,
        ),
        (HATCHLING, "", [], True),
        (HATCHLING, "dev-mode-exact = true", [], False),  # a finder of `editables`
    ],
    ids=["setuptools", "setuptools-finder", "setuptools-strict", "setuptools-compat", "hatchling", "hatchling-exact"],
)
def test_an_editable_install(project, builder, layout, config, in_path):
    layout = layout.replace("{{", "{").replace("}}", "}")
    (project / "pyproject.toml").write_text(textwrap.dedent(builder).format(layout=layout.replace("\n", "\n")))
    python = project / "venv" / "bin" / "python"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run(
        [*install, *config, "-e", project], capture_output=True, text=True, env=clean({}), timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    said = outcome([python, "-c", textwrap.dedent(PROGRAM), project / "code"], cwd="/").splitlines()
    *places, shown = said
    source = project / "code" / "shop" / "__init__.py"
    assert [Path(place).resolve() for place in places[::2]] == [source] * 4
    assert places[1::2] == ["from below"] * 4
    assert bool(shown) is in_path
