"""What is imported where: little in the program, less in templates, and nothing of anyfork in processes."""

from __future__ import annotations

import ast
import json
import os
import sys
from functools import cache

import child_side
import pytest
from conftest import COMPOSED
from owner_side import KINDS, ask, output_of, result_of

import anyfork

HERE = os.path.dirname(child_side.__file__)
HEAVY = {
    "asyncio",
    "anyio",
    "multiprocessing",
    "cloudpickle",
    "subprocess",
    "dataclasses",
    "typing",
    "inspect",
    "logging",
}


CLEAN = [
    kind for kind in KINDS if kind not in ("early", *COMPOSED)
]  # a copy of a program that has imported anyfork has it too


def loaded_by(code):
    """Return the modules that a bare interpreter has after some code, beside those it has anyway."""
    program = f"import sys; before = set(sys.modules); {code}; import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    return set(json.loads(output_of("-S", "-c", PATH + program)))


PATH = f"import sys; sys.path.extend({[path for path in sys.path if path]!r}); "


def test_importing_anyfork_loads_nothing_heavy():
    assert loaded_by("import anyfork") & HEAVY == set()


def test_importing_anyfork_loads_no_socket_module():
    assert loaded_by("import anyfork") & {"socket", "selectors", "pickle", "tempfile", "threading", "resource"} == set()


def test_importing_anyfork_starts_no_thread_and_no_process():
    program = "import anyfork, os; print(os.listdir('/proc/self/task') == [str(os.getpid())]); print(open(f'/proc/self/task/{os.getpid()}/children').read())"
    assert output_of("-c", program) == "True\n\n"


def test_importing_anyfork_opens_no_descriptor():
    program = "import os; before = len(os.listdir('/proc/self/fd')); import anyfork; print(len(os.listdir('/proc/self/fd')) - before)"
    assert output_of("-c", program) == "0\n"


def test_importing_anyfork_changes_no_signal_handler():
    program = (
        "import signal; see = lambda: [signal.getsignal(n) for n in signal.valid_signals()]; before = see(); "
        "import anyfork; anyfork.Template().ready().close(); print(see() == before)"
    )
    assert output_of("-c", program) == "True\n"


def test_making_templates_and_processes_loads_nothing_heavy_in_the_program():
    program = (
        "import anyfork; t = anyfork.Template(); t.send(1, 'x').preload('json').execute('def f(*_): pass'); "
        "p = t.run('f', timeout=10); p.wait(); p.close()"
    )
    assert loaded_by(program) & {"asyncio", "anyio", "multiprocessing", "cloudpickle", "logging"} == set()


@cache
def in_another_program(kind):
    """Return the modules of a template of this kind and of a process of it, in a program that did nothing else.

    Functions that went by value make the template they were forked from load cloudpickle, the default one as well.
    """
    program = f"""
import sys; sys.path.insert(0, {HERE!r})
import owner_side
template = owner_side.KINDS[{kind!r}]()
seen = "import sys; seen = list(sys.modules)"
for each, expression in (template, "list(sys.modules)"), (template.execute(seen), "sys.modules['__main__'].seen"):
    print(sorted(owner_side.ask(each.fork(), expression)))
"""
    of_process, of_template = map(ast.literal_eval, output_of("-c", program).splitlines())
    return set(of_template), set(of_process)


@pytest.fixture(params=[kind for kind in KINDS if kind not in COMPOSED])
def modules(request):
    """Return the modules of an idle template, as it sees them itself."""
    return in_another_program(request.param)[0]


@pytest.mark.parametrize("modules", CLEAN, indirect=True)
def test_a_template_has_nothing_of_anyfork(modules):
    assert not {name for name in modules if name.split(".")[0] == "anyfork"}


@pytest.mark.untraced
def test_a_template_has_nothing_heavy(modules):
    heavy = HEAVY | {"threading", "traceback", "tempfile", "ssl", "random", "pickle"}
    assert modules & heavy == set()


@pytest.mark.untraced
def test_a_template_has_the_socket_module_before_it_gets_the_path_of_the_program():
    with anyfork.Template.new_exec() as template:
        template.execute("import sys; early = 'socket' in sys.modules").ready()
        assert ask(template, "sys.modules['__main__'].early") is True


def test_a_template_has_nothing_of_the_programs_main_module(modules):
    assert "pytest" not in modules
    assert "conftest" not in modules


@pytest.mark.parametrize("kind", CLEAN)
def test_a_process_has_nothing_of_anyfork(kind):
    with KINDS[kind]() as template, open(os.devnull) as file:
        expression = "[name for name in sys.modules if name.split('.')[0] == 'anyfork']"
        assert ask(template, expression, anyfork.Descriptor(0), file) == []


@pytest.mark.parametrize("kind", CLEAN)
def test_a_process_that_got_a_function_by_value_has_nothing_of_anyfork(kind):
    with KINDS[kind]() as template:
        names = result_of(template.run(lambda channel: child_side.answer(channel, "list(sys.modules)")))
    assert not [name for name in names if name.split(".")[0] == "anyfork"]


@pytest.mark.untraced
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in COMPOSED])
def test_a_process_has_nothing_of_asyncio_and_its_like(kind):
    unwanted = {"asyncio", "anyio", "multiprocessing", "cloudpickle", "subprocess"}
    assert in_another_program(kind)[1] & unwanted == set()


def test_a_process_may_import_anyfork_itself():
    with anyfork.Template() as template:
        for name in ("anyfork", "_anyfork_child"):
            assert ask(template.fork(), f"__import__({name!r}).__version__") == anyfork.__version__


def test_what_a_process_gets_is_what_anyfork_calls_it():
    with anyfork.Template() as template:
        assert ask(template, "type(v[0]) is __import__('anyfork').Descriptor", anyfork.Descriptor(0)) is True


def test_public_names_say_that_they_are_public():
    public = [name for name in dir(anyfork) if not name.startswith("_")]
    classes = [getattr(anyfork, name) for name in public if isinstance(getattr(anyfork, name), type)]
    assert {cls.__module__ for cls in classes} == {"anyfork"}


def test_nothing_but_the_public_names_is_in_the_root():
    public = {name for name in dir(anyfork) if not name.startswith("_")}
    assert public >= {"Template", "Process", "ExitStatus", "Usage", "Descriptor", "DEVNULL", "CHANNEL", "AnyforkError"}
    assert not public & {"sys", "os", "annotations", "TYPE_CHECKING"}


NOT_LINUX = """
import _signal, os, posix, select, _socket
epoll = select.epoll
for module, names in {
    _signal: ["pidfd_send_signal"],
    os: (linux := "eventfd eventfd_read eventfd_write memfd_create pidfd_open pipe2 sched_getaffinity waitid".split()),
    posix: linux,
    select: [name for name in dir(select) if "epoll" in name.lower()],
    _socket: ["MSG_CMSG_CLOEXEC", "SOCK_CLOEXEC", "SOCK_NONBLOCK"],
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
select.kqueue, select.__spec__ = epoll, None  # the other class that holds a descriptor; this is all there is
import anyfork
for name in dir(anyfork):
    getattr(anyfork, name)
"""


@pytest.mark.untraced
def test_everything_can_be_imported_without_what_only_linux_has():
    assert output_of("-c", NOT_LINUX) == ""


@pytest.mark.untraced
def test_processes_run_without_what_only_linux_has():
    program = "\nprint(anyfork.Template().execute('def work(channel): pass').run('work').wait().code)"
    assert output_of("-c", NOT_LINUX + program) == "0\n"


# What Windows has not, as far as the interpreter has loaded it already.
WINDOWS = """
import os, sys
for name in "fcntl", "_posixsubprocess", "_posixshmem", "grp", "pwd", "resource", "select", "termios":
    sys.modules[name] = None
for name in "fork", "register_at_fork", "posix_spawn", "getpriority", "openpty", "set_blocking", "environb":
    delattr(os, name)
import anyfork
for name in dir(anyfork):
    try:
        getattr(anyfork, name)
    except ImportError as error:
        assert "fork(), which Windows does not have" in str(error), error
    else:
        assert name.startswith("_") or name.endswith("Error") or name in ("ExitStatus", "Usage", "PoolStats"), name
try:
    import anyfork.context
except ImportError as error:
    print(error)
"""


@pytest.mark.untraced
def test_on_windows_anyfork_can_be_imported_and_each_use_says_what_is_missing():
    assert output_of("-c", WINDOWS).startswith("anyfork needs fork(), which Windows does not have: ")


@pytest.mark.untraced
def test_a_worker_says_that_it_needs_epoll():
    program = """
try:
    anyfork.call(abs, -1)
except anyfork.StartError as error:
    print(error)
"""
    assert "workers need epoll" in output_of("-c", NOT_LINUX + program)
