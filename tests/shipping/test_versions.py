"""Programs whose templates are another version of Python: all that is here and has another version than this one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from shipped import SOURCES, outcome

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PROGRAM = HERE / "versions_program.py"
VERSIONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "anyfork-interpreters")
SID = Path(os.environ.get("ANYFORK_INTERPRETERS") or CACHE, "sid")  # see scripts/interpreters
# Runs one of those outside its root directory, with the C library that it needs. Its own default template does so too.
OUTSIDE = """#!/bin/sh
python={root}/usr/bin/python{version}
ANYFORK_PYTHON=$0 exec {loader} --library-path {libraries} --argv0 $python $python "$@"
"""


def of_pyenv(version):
    return sorted(PYENV.glob(f"{version}.*/bin/python3"))


def of_sid(version, place):
    """Return programs that are the interpreter of that version which scripts/interpreters has installed, if it has."""
    loaders = [*SID.glob("usr/lib*/ld-linux-*.so.*"), *SID.glob("usr/lib/*/ld-linux-*.so.*")]
    libraries = [str(path.parent) for path in SID.glob("usr/lib/*/libc.so.6")]
    if not (loaders and libraries and (SID / f"usr/bin/python{version}").exists()):
        return []
    script = place / f"python{version}"
    script.write_text(OUTSIDE.format(root=SID, loader=loaders[0], libraries=":".join(libraries), version=version))
    script.chmod(0o755)
    return [script]


def find_python(version, place):
    """Return the path of an interpreter of this version. Skips the test where there is none."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return Path(sys.executable)
    for found in [*of_pyenv(version), Path(f"/usr/bin/python{version}"), *of_sid(version, place)]:
        command = [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if found.exists() and subprocess.run(command, capture_output=True, text=True).stdout.strip() == version:
            return found
    return pytest.skip(f"there is no Python {version} here")


PATH = os.pathsep.join([str(HERE), str(SOURCES), str(Path(str(find_spec("cloudpickle").origin)).parent.parent)])
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
PAIRS = [pair for other in VERSIONS if other != OWN for pair in ((OWN, other), (other, OWN))]


@pytest.fixture(params=PAIRS, ids="-".join)
def said(request, tmp_path):
    """Return what the program says in one version, with templates of the other; and these versions."""
    owner, template = request.param
    pythons = [find_python(version, tmp_path) for version in request.param]
    found = outcome([pythons[0], PROGRAM, pythons[1]], env={"PYTHONPATH": PATH})
    return json.loads(found), owner, template


def test_a_template_of_another_version(said):
    found, owner, template = said
    refused = (
        rf"OtherPythonError: a function or class of Python {re.escape(owner)} came by value, .*put it into a module"
    )
    assert found["version"] == [int(part) for part in template.split(".")]
    assert (found["named"], found["goes on"]) == ([9, 16], 25)
    assert (found["values"], found["results"]) == (True, True)
    assert found["errors"] == [
        ["ValueError", ["é", [1]], "", True],
        ["RefusedError", ["é"], "\udc80", False],
    ]
    assert found["limits"] is True
    assert found["text"] == ["é\N{SNOWMAN}", "utf-8", "utf-8"]
    kinds = ["ArgumentDecodeError"] * 4 + ["PrepareError"]
    for (kind, text), expected in zip(found["by value"], kinds, strict=True):
        assert kind == expected
        assert re.search(refused, text)
    kind, text = found["back by value"]
    assert kind == "ResultError"
    assert re.search(refused.replace(re.escape(owner), re.escape(template)), text)


# --- A locale that is not UTF-8 ---------------------------------------------------------------------------------------

LOCALE = "de_DE.ISO-8859-1"
SOURCE = "def {}(text):\n    return [len(text), text]\n"


@pytest.fixture(scope="session")
def locale(tmp_path_factory):
    """Return the environment of a program in a locale of ISO-8859-1. Skips the test where it cannot be made."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/charmaps").exists():
        pytest.skip("there is no localedef here, or no definitions of locales (package locales)")
    place = tmp_path_factory.mktemp("locales")
    subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", "--no-archive", place / LOCALE], check=True)
    return {"LOCPATH": str(place), "LC_ALL": LOCALE}


def named_in_latin_1(place):
    """Return a directory whose name is no UTF-8, with a module, and below it another one."""
    directory = os.fsencode(place) + b"/verz\xe4ichnis"
    os.makedirs(directory + b"/sp\xe4ter")
    for name, function in ((b"/im_verzeichnis.py", "größe"), (b"/sp\xe4ter/im_spaeteren.py", "länge")):
        Path(os.fsdecode(directory + name)).write_text(SOURCE.format(function), encoding="utf-8")
    return os.fsdecode(directory)


@pytest.mark.parametrize(("owner", "template"), [("3.11", "3.15"), ("3.15", "3.11")])
def test_names_of_files_and_texts_do_not_depend_on_the_default_encoding_of_the_other_side(
    owner, template, locale, tmp_path
):
    # In this locale, 3.15 uses UTF-8 by default and 3.11 does not.
    pythons = [find_python(version, tmp_path) for version in (owner, template)]
    directory = named_in_latin_1(tmp_path)
    env = {**locale, "PYTHONPATH": os.pathsep.join([PATH, directory])}
    found = json.loads(outcome([pythons[0], HERE / "encodings_program.py", pythons[1], directory], env=env))
    assert sorted(found["encodings"]) == ["iso8859-1", "utf-8"]
    assert found == {
        "encodings": found["encodings"],
        "arguments": True,
        "found": [1, "ä"],
        "found later": [1, "ä"],
        "found by name": [1, "ä"],
        "cwd": True,
        "environment": [0xE9],
        "values": True,
        "file": True,
        "written": "ä",
        "refused": found["refused"],
    }
    assert found["refused"].endswith("schade: ä")
