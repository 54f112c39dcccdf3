"""Which interpreter a program's templates run in, and with which options: those of the program."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
from owner_side import environment
from shipped import SAYS, SOURCES, outcome, program, python

import anyfork

# --- Options --------------------------------------------------------------------------------------------------------

OPTIONS = textwrap.dedent("""
    import sys
    sys.path[:0] = {path!r}
    {first}
    import anyfork, faulthandler, os
    def seen():
        flags = {{name: getattr(sys.flags, name) for name in dir(sys.flags) if not name.startswith(("_", "n_", "count", "index"))}}
        return flags, sys.warnoptions, sys._xoptions, sys.stdout.write_through, faulthandler.is_enabled()
    own = seen()
    made = anyfork.Template(), anyfork.Template.new_exec(), anyfork.fork_here()
    print([anyfork.call(seen, template=template) == own for template in made], flush=True)
    print(*own[1:4])
    {end}
""")
# The paths of what anyfork needs, for interpreters that are told to look nowhere.
NEEDED = [str(SOURCES), sysconfig.get_path("purelib")]


def options_seen(*options, first="", end="", env=None):
    """Return what a program with these options says: whether its templates have the same, and some of its own."""
    source = OPTIONS.format(path=NEEDED, first=first, end=end)
    return python(*options, "-c", source, env=env).splitlines()


def slow(*values):
    """Return parameters of the slow group."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize(
    "options",
    [
        "-I", "-S", "-bb -q -u", "-X utf8=0", "-X dev -W error -b", "-P -E -s -O -X utf8 -W error",
        "-X faulthandler -X tracemalloc=3 -X int_max_str_digits=9000 -X no_debug_ranges -X mine=1 -X warn_default_encoding",
        *slow(
            "-P", "-E -s", "-O", "-OO -B", "-X utf8", "-W error", "-X dev", "-W error -W ignore::ImportWarning",
            "-I -O -X utf8 -W error",
        ),
    ],
)  # fmt: skip
def test_options_are_carried_over(options):
    assert options_seen(*options.split())[0] == "[True, True, True]"


@pytest.mark.parametrize("options", ["-P -E -s -O -X utf8 -W error", "-I -X dev"])
def test_a_copy_of_the_program_has_its_options(options):
    assert options_seen(*options.split(), first="import anyfork.early")[0] == "[True, True, True]"


def test_options_from_the_environment_are_carried_over_once():
    env = {
        "PYTHONWARNINGS": "error,ignore::ImportWarning",
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDEVMODE": "1",
    }
    same, own = options_seen(env=env)
    assert (same, own) == ("[True, True, True]", "['default', 'error', 'ignore::ImportWarning'] {} True")


def test_a_program_that_has_changed_its_list_of_warning_options_has_templates():
    assert options_seen("-X", "dev", "-bb", first="sys.warnoptions[:] = ['once']")[0].endswith("True]")


def test_what_the_program_has_switched_on_since_is_carried_over(tmp_path):
    assert (
        options_seen(first="import faulthandler; faulthandler.enable()")[0].replace("False", "True")
        == "[True, True, True]"
    )
    source = "import anyfork, faulthandler; faulthandler.enable(); print(anyfork.call(faulthandler.is_enabled))"
    assert python("-c", source) == "True\n"


# --- Virtual environments ---------------------------------------------------------------------------------------------


def make_environment(place, interpreter):
    """Make a virtual environment in which what these tests run with is found."""
    outcome([interpreter, "-m", "venv", "--without-pip", place])
    site = next(place.glob("lib/python*/site-packages"))
    (site / "anyfork.pth").write_text("\n".join(NEEDED))
    (site / f"only_in_{place.name}.py").write_text("def place():\n    return __file__\n")
    return place / "bin" / "python"


INSIDE = """
    import anyfork, sys, {module}
    def places():
        return sys.executable, sys.prefix, sys.base_prefix
    for template in anyfork.Template(), anyfork.Template.new_exec():
        assert anyfork.call(places, template=template.fork()) == places()
        print(anyfork.call({module}.place, template=template))
"""


@pytest.fixture
def outer(tmp_path):
    return make_environment(tmp_path / "outer", Path(sys.base_prefix, "bin", "python3"))


def test_a_virtual_environment(outer, tmp_path):
    (tmp_path / "program.py").write_text(program("plain"))
    assert outcome([outer, tmp_path / "program.py"]) == SAYS
    said = outcome([outer, "-c", textwrap.dedent(INSIDE.format(module="only_in_outer"))])
    assert said.splitlines() == [str(next(tmp_path.glob("outer/lib/*/site-packages/only_in_outer.py")))] * 2


def test_a_virtual_environment_that_was_made_from_inside_another(outer, tmp_path):
    inner = make_environment(tmp_path / "inner", outer)
    (tmp_path / "program.py").write_text(program("plain"))
    assert outcome([inner, tmp_path / "program.py"]) == SAYS
    said = outcome([inner, "-c", textwrap.dedent(INSIDE.format(module="only_in_inner"))])
    assert said.splitlines() == [str(next(tmp_path.glob("inner/lib/*/site-packages/only_in_inner.py")))] * 2


# --- No sys.executable, or a wrong one ----------------------------------------------------------------------------------

WRONG = ["", "/bin/true", "python3", *slow(None, "/no/such/python", "/etc/passwd", "/")]
FIRST_OF_WRONG = "import sys; sys.executable = eval(sys.argv[1])\n"


@pytest.mark.parametrize("wrong", WRONG)
def test_a_program_whose_sys_executable_is_wrong_is_run_by_the_interpreter_beside_its_library(wrong):
    source = FIRST_OF_WRONG + program("plain") + "assert sys.executable == eval(sys.argv[1])"
    assert python("-c", source, repr(wrong)) == SAYS


# Where there is no interpreter to be found: no installation has a `bin` of this kind.
NOWHERE = FIRST_OF_WRONG + textwrap.dedent("""
    import os, sysconfig
    sys.prefix = sys.exec_prefix = sys.base_prefix = "/nowhere"
    sysconfig.get_config_vars()["BINDIR"] = "/nowhere"  # last: since 3.14, a new prefix makes sysconfig read all anew
""")


@pytest.mark.parametrize("wrong", WRONG)
def test_where_there_is_no_interpreter_the_error_says_what_to_do(wrong):
    source = NOWHERE + "import anyfork\ntry:\n anyfork.Template()\nexcept anyfork.LaunchError as error:\n print(error)"
    said = python("-c", source, repr(wrong))
    for part in (
        f"sys.executable is {repr(wrong) if wrong else 'empty'}",
        "import anyfork.early",
        "python=",
        "ANYFORK_PYTHON",
    ):
        assert part in said


@pytest.mark.parametrize("wrong", WRONG)
def test_a_program_without_an_interpreter_has_templates_that_are_copies_of_it(wrong):
    assert python("-c", NOWHERE + program("early"), repr(wrong)) == SAYS


def test_a_program_without_an_interpreter_may_name_one():
    source = NOWHERE + "os.environ['ANYFORK_PYTHON'] = sys.argv[2]\n" + program("plain")
    assert python("-c", source, "None", sys.executable) == SAYS


OTHER_PACKAGES = """
import sys
import anyfork
python, *names = sys.argv[1:]
with anyfork.Template.new_exec(python=python).preload(*names) as template:
    print(*(anyfork.call("source:place", name, template=template) for name in names))
"""
SOURCE = """
def place(name):
    return __import__(name).__file__.split("/")[-2]
"""


def test_a_template_of_another_environment_finds_its_own_packages_first(tmp_path):
    other, own = environment(tmp_path / "other")
    program, sources = tmp_path / "program-packages", tmp_path / "sources"
    for place, names in ((own, ["both", "source", "other"]), (program, ["both", "one"]), (sources, ["source"])):
        place.mkdir(exist_ok=True)
        for name in names:
            (place / f"{name}.py").write_text(SOURCE)
    (own / "colorsys.py").write_text("raise ImportError('it hides the standard library')")
    here, library = ["source", "both", "one"], "python{}.{}".format(*sys.version_info)
    for interpreter, names, found in (
        (other, ["colorsys", *here, "other"], f"{library} sources site-packages program-packages site-packages"),
        (sys.executable, here, "sources program-packages program-packages"),
    ):
        command = [sys.executable, "-c", OTHER_PACKAGES, interpreter, *names]
        assert outcome(command, env={"PYTHONPATH": f"{sources}:{program}"}).strip() == found


@pytest.mark.parametrize(("source", "version"), [("", "an older version"), ("__version__ = '9.0.0'", "9.0.0")])
def test_an_interpreter_that_has_another_version_of_anyfork_is_no_template(tmp_path, monkeypatch, source, version):
    monkeypatch.delenv("PYTHONPATH", raising=False)  # where that of the program may be found first
    other, own = environment(tmp_path / "other")
    (own / "_anyfork_child").mkdir()
    (own / "_anyfork_child" / "__init__.py").write_text(source)
    with pytest.raises(anyfork.LaunchError) as raised, anyfork.Template.new_exec(python=other) as template:
        template.ready()
    assert f"{str(other)!r} has anyfork {version} in {own}, and this program has {anyfork.__version__}" in str(
        raised.value
    )
    assert "install the same version there, or none" in str(raised.value)


def test_a_program_that_is_no_interpreter_is_never_executed_to_see_what_it_is(tmp_path):
    other = tmp_path / "editor"
    other.write_text(f"#!/bin/sh\necho started >> {tmp_path}/started\n")
    other.chmod(0o755)
    assert python("-c", FIRST_OF_WRONG + program("plain"), repr(str(other))) == SAYS
    assert not (tmp_path / "started").exists()


def test_an_interpreter_by_another_name_is_known_by_what_it_leads_to(tmp_path):
    (tmp_path / "tool").symlink_to(sys.executable)
    source = "import sys; sys.executable = sys.argv[1]\n" + program("plain")
    assert python("-c", source, str(tmp_path / "tool")) == SAYS


@pytest.mark.parametrize(
    ("name", "is_one"),
    {
        "python": True, "python3": True, "python3.11": True, "python3.13t": True, "python3.12d": True, "python3.11-dbg": True,
        ".python3-wrapped": True, "Python": True, "pypy3.10": True, "pythonw": True,
        "python-config": False, "ipython": False, "python_host": False, "pythonista": False, "uwsgi": False, "blender": False,
        "pytest": False, "py": False, "learn-python": False,
    }.items(),
)  # fmt: skip
def test_interpreters_are_known_by_their_names(tmp_path, name, is_one):
    from anyfork._system.interpreter import is_python

    file = tmp_path / name
    file.write_text("")
    assert not is_python(str(file))
    file.chmod(0o755)
    assert is_python(str(file)) is is_one


# --- Programs that embed Python ------------------------------------------------------------------------------------------

EMBEDDING = """\
#include <Python.h>

/* A program that runs a Python program: its arguments are how Python is configured, the file, and those of the program. */
int main(int argc, char **argv)
{
    if (argv[1][0] == 'd') {  /* by default: Python looks for its executable in the PATH, and knows no arguments */
        Py_Initialize();
    } else {
        PyConfig config;
        if (argv[1][0] == 'i')
            PyConfig_InitIsolatedConfig(&config);
        else
            PyConfig_InitPythonConfig(&config);
        config.parse_argv = 0;
        config.use_environment = 1;
        PyConfig_SetBytesArgv(&config, argc, argv);
        PyStatus status = Py_InitializeFromConfig(&config);
        if (PyStatus_Exception(status))
            Py_ExitStatusException(status);
    }
    printf("embedded\\n");
    fflush(stdout);
    FILE *file = fopen(argv[2], "r");
    int failed = PyRun_SimpleFile(file, argv[2]);
    return Py_FinalizeEx() < 0 || failed;
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Return a C program that links libpython."""
    place = tmp_path_factory.mktemp("host")
    (place / "host.c").write_text(EMBEDDING)
    library, name = sysconfig.get_config_var("LIBDIR"), f"python{sysconfig.get_config_var('LDVERSION')}"
    system = (sysconfig.get_config_var(name) or "" for name in ("LIBS", "SYSLIBS", "LINKFORSHARED"))
    command = [
        "gcc",
        "host.c",
        "-o",
        "host",
        f"-I{sysconfig.get_path('include')}",
        f"-L{library}",
        f"-Wl,-rpath,{library}",
    ]
    done = subprocess.run(
        [*command, f"-l{name}", *" ".join(system).split()], cwd=place, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return place / "host"


@pytest.mark.slow
@pytest.mark.parametrize("first", ["plain", "early"])
@pytest.mark.parametrize("configured", ["default", "isolated", "python"])
@pytest.mark.parametrize("path", [f"{sys.base_prefix}/bin", "/nowhere"])
def test_a_program_that_embeds_python(host, tmp_path, first, configured, path):
    (tmp_path / "program.py").write_text(f"import sys; sys.path[:0] = {NEEDED!r}\n" + program(first))
    assert outcome([host, configured, tmp_path / "program.py"], env={"PATH": path}) == "embedded\n" + SAYS


@pytest.mark.slow
@pytest.mark.parametrize("configured", ["default", "isolated"])
def test_a_program_that_embeds_python_and_has_no_interpreter_is_told_what_to_do(host, tmp_path, configured):
    source = f"import sys; sys.path[:0] = {NEEDED!r}\n{NOWHERE.partition(chr(10))[2]}"
    source += "import anyfork\ntry:\n anyfork.Template()\nexcept anyfork.LaunchError as error:\n print(error)"
    (tmp_path / "program.py").write_text(source)
    said = outcome([host, configured, tmp_path / "program.py"], env={"PATH": "/nowhere"})
    assert said.startswith("embedded\nsys.executable is ")
    assert said.count("embedded") == 1
    for remedy in ("import anyfork.early", "python=", "ANYFORK_PYTHON"):
        assert remedy in said


# --- Frozen programs, as those that are built in shipping/test_frozen_programs.py ----------------------------------------


@pytest.fixture
def frozen(tmp_path):
    """Return a function that makes a program which is its own interpreter, as far as it can tell."""

    def make(source):
        executable = tmp_path / "application"
        head = f"import sys\nsys.frozen, sys.executable = True, {str(executable)!r}\n"
        (tmp_path / "program.py").write_text(head + source)
        executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/program.py" "$@"\n')
        executable.chmod(0o755)
        return executable

    return make


@pytest.mark.parametrize("first", ["early", "frozen"])
def test_a_frozen_program_is_its_own_interpreter(frozen, first):
    assert outcome([frozen(program(first))]) == SAYS


def test_a_frozen_program_that_would_not_notice_is_not_started_again(frozen):
    source = "print('it begins')\nimport anyfork\ntry:\n anyfork.Template()\nexcept anyfork.LaunchError as error:\n print(error)"
    begins, error = outcome([frozen(source)]).splitlines()
    assert begins == "it begins"
    for remedy in ("import anyfork.frozen", "import anyfork.early", "python=", "ANYFORK_PYTHON"):
        assert remedy in error


def test_a_frozen_program_is_not_named_as_an_interpreter_either(frozen):
    source = "import anyfork\ntry:\n anyfork.Template.new_exec(python=sys.executable)\nexcept anyfork.LaunchError as error:\n print(error)"
    assert "import anyfork.frozen" in outcome([frozen(source)])


def test_a_frozen_program_may_name_an_interpreter(frozen):
    assert outcome([frozen(program("plain"))], env={"ANYFORK_PYTHON": sys.executable}) == SAYS


def test_a_frozen_program_cannot_be_given_options(frozen):
    source = """
import anyfork.frozen
for flags in [], ["-O"]:
    try:
        print(anyfork.call(len, "abc", template=anyfork.Template.new_exec(flags=flags)))
    except anyfork.ArgumentError as error:
        print(error)
"""
    assert outcome([frozen(source)]) == "3\nnew_exec() cannot give options to a frozen program: ['-O']\n"


def test_a_frozen_program_that_is_started_for_the_resource_tracker_becomes_it(frozen):
    source = """
import os
import anyfork.frozen
if os.environ.setdefault("BEGUN_BY", str(os.getpid())) != str(os.getpid()):
    print("it runs again", flush=True)  # and would start a tracker of its own, without end
    os._exit(1)
print(anyfork.get_context().Lock().acquire())
"""
    assert outcome([frozen(source)]) == "True\n"


def test_the_arguments_of_a_frozen_program_are_those_of_its_templates(frozen):
    source = """
import anyfork.frozen
def seen():
    return sys.argv[1:], hasattr(sys.modules["__main__"], "anyfork")  # it has, where the program has run
print(anyfork.call(seen), anyfork.call(seen, template=anyfork.Template.new_exec()))
"""
    assert outcome([frozen(source), "one", "two"]) == "(['one', 'two'], False) (['one', 'two'], False)\n"
