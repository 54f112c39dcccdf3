"""A start method of multiprocessing that is replaced by ours, for code that only takes a name."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest
from deadlines import DEADLINE
from owner_side import output_of

import anyfork
import anyfork.context

GUARDED = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
import anyfork.context

registry = []

def register(function):
    registry.append(function.__name__)
    return function

class Point:
    pass

@register
def work(*_):
    return Point(), multiprocessing.get_start_method(), len(registry)

def nested(_):
    with multiprocessing.Pool(1) as pool:
        return pool.apply(work)

def tell(queue):
    queue.put(work())

def check(answer):
    point, method, functions = answer
    assert type(point) is Point and method == sys.argv[1] and functions == 1, answer

if __name__ == "__main__":
    method, main = sys.argv[1:]
    anyfork.context.install(method, main=main or None)
    multiprocessing.set_start_method(method, force=True)
    with ProcessPoolExecutor(1) as executor:
        check(executor.submit(work, Point()).result())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
        check(executor.submit(nested, Point()).result())
    with multiprocessing.Manager() as manager, multiprocessing.Pool(1) as pool:
        shared = manager.list([Point()])
        check(pool.apply(work, (shared,)))
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=tell, args=(queue,))
    process.start()
    check(queue.get())
    process.join()
    print(process.exitcode, type(multiprocessing.get_context(method)).__name__)
"""


@pytest.fixture
def program(tmp_path):
    """Return a function that runs a script in a directory of its own, and returns what it prints."""

    def run(source, *args):
        (tmp_path / "program.py").write_text(dedent(source))
        return output_of(str(tmp_path / "program.py"), *args, cwd=tmp_path).splitlines()

    return run


@pytest.mark.parametrize("main", ["", "import"])
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_whatever_takes_the_name_gets_our_processes_and_so_do_theirs(program, method, main):
    assert program(GUARDED, method, main) == ["0 AnyforkContext"]


def test_main_is_run_in_each_process_that_imports_it_and_in_no_other(program):
    source = """
        import sys
        import anyfork
        print(__name__, flush=True)

        def nothing():
            pass

        if __name__ == "__main__":
            for main in ("import", None):
                process = anyfork.get_context(main=main).Process(target=nothing)
                process.start()
                process.join()
                print(process.exitcode, flush=True)
    """
    assert program(source) == ["__main__", "__mp_main__", "0", "0"]


@pytest.mark.parametrize(("module", "seen_as"), [("package", "__main__"), ("package.program", "__mp_main__")])
def test_a_module_that_runs_as_the_program_is_imported_by_its_name(tmp_path, module, seen_as):
    # A file __main__.py has no guard as a rule: as in multiprocessing, it is not imported.
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    source = """
        import anyfork
        from . import __name__ as name

        class Kind:
            pass

        def told(queue):
            queue.put((Kind.__module__, name))

        if __name__ == "__main__":
            ctx = anyfork.get_context(main="import")
            queue = ctx.Queue()
            process = ctx.Process(target=told, args=(queue,))
            process.start()
            print(queue.get())
            process.join()
    """
    for name in ("__main__", "program"):
        (tmp_path / "package" / f"{name}.py").write_text(dedent(source))
    assert output_of("-m", module, cwd=tmp_path) == f"('{seen_as}', 'package')\n"


def test_a_program_without_a_guard_is_told_so_and_does_not_start_itself_for_ever(program):
    source = """
        import sys
        import anyfork
        ctx = anyfork.get_context(main="import")
        process = ctx.Process(target=print)
        try:
            process.start()
        except RuntimeError as error:
            print("__main__" in str(error), flush=True)
            sys.exit(3)
        process.join()
        print(process.exitcode)
    """
    assert program(source) == ["True", "3"]


def test_code_that_no_process_can_import_travels_by_value():
    source = """
import anyfork
ctx = anyfork.get_context(main="import")
def double(number):
    return 2 * number
with ctx.Pool(1) as pool:
    print(pool.map(double, [1, 2]))
"""
    assert output_of("-c", source) == "[2, 4]\n"


def test_a_function_without_a_name_finds_what_the_process_has_imported(program):
    source = """
        import anyfork

        class Point:
            pass

        def make(queue):
            queue.put(type(Point()))

        if __name__ == "__main__":
            ctx = anyfork.get_context(main="import")
            queue = ctx.Queue()
            process = ctx.Process(target=lambda: make(queue))
            process.start()
            print(queue.get() is Point)
            process.join()
    """
    assert program(source) == ["True"]


def test_modules_that_are_preloaded_by_name_are_loaded_in_every_default_template(program):
    source = """
        import multiprocessing, os, signal
        import anyfork, anyfork.context

        def loaded():
            import sys
            return "wave" in sys.modules

        anyfork.context.install("forkserver")
        multiprocessing.set_start_method("forkserver", force=True)
        multiprocessing.set_forkserver_preload(["wave", "not_a_module"])
        with multiprocessing.Pool(1) as pool:
            print(pool.apply(loaded))
        template = anyfork.Template().ready()
        os.kill(anyfork.call(os.getppid), signal.SIGKILL)
        try:
            anyfork.call(abs, 1)
        except anyfork.AnyforkError:
            pass
        print(anyfork.call(loaded))
    """
    assert program(source) == ["True", "True"]


def test_the_default_of_the_interpreter_is_replaced_where_it_has_that_name(program):
    source = """
        import multiprocessing, sys
        import anyfork.context
        before = multiprocessing.get_start_method()
        anyfork.context.install("forkserver")
        ours = isinstance(multiprocessing.get_context(), anyfork.context.AnyforkContext)
        print(ours == (before == "forkserver") == (sys.version_info >= (3, 14)))
    """
    assert program(source) == ["True"]


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (("fork",), {}, "replaces the start methods forkserver and spawn, not 'fork'"),
        (("forkserver", 1), {}, "a Template of the blocking face, not int"),
        (("forkserver",), {"main": True}, r"main=True\): pass 'import'"),
    ],
)
def test_what_cannot_be_installed_says_why(given, options, words):
    with pytest.raises(anyfork.ArgumentError, match=words):
        anyfork.context.install(*given, **options)


def test_a_context_takes_no_other_rule_for_main():
    with pytest.raises(anyfork.ArgumentError, match="pass 'import'"):
        anyfork.get_context(main="run")


# --- The command ----------------------------------------------------------------------------------------------------

UNCHANGED = """
import multiprocessing, os, sys

top = "top level of " + __name__

def tell():
    print(top if __name__ == "__mp_main__" else "by value", multiprocessing.get_start_method(), flush=True)

if __name__ == "__main__":
    print(sys.argv[1:], os.path.basename(__file__), flush=True)
    multiprocessing.set_start_method("forkserver")
    process = multiprocessing.Process(target=tell)
    process.start()
    process.join()
    print(type(multiprocessing.get_context()).__name__)
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("given", [["script.py"], ["-m", "script"]])
@pytest.mark.parametrize(("options", "told"), [([], "by value"), (["--import-main"], "top level of __mp_main__")])
def test_a_program_runs_unchanged_with_our_processes(tmp_path, given, options, told):
    (tmp_path / "script.py").write_text(UNCHANGED)
    said = output_of("-m", "anyfork", "as-forkserver", *options, *given, "-x", "1", cwd=tmp_path)
    assert said.splitlines() == ["['-x', '1'] script.py", f"{told} forkserver", "AnyforkContext"]


TELLING = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor

def tell():
    return multiprocessing.get_start_method(), type(multiprocessing.get_context()).__name__

if __name__ == "__main__":
    print(multiprocessing.get_start_method(allow_none=True))
    for method in sys.argv[1:]:
        multiprocessing.set_start_method(method)
    with ProcessPoolExecutor(1) as executor:
        print(*executor.submit(tell).result())
"""


@pytest.mark.parametrize(
    ("given", "told"),
    [([], "forkserver AnyforkContext"), (["fork"], "fork ForkContext"), (["spawn"], "spawn SpawnContext")],
)
def test_the_default_start_method_of_a_program_becomes_ours_and_the_program_may_set_another(tmp_path, given, told):
    (tmp_path / "script.py").write_text(TELLING)
    said = output_of("-m", "anyfork", "as-forkserver", "script.py", *given, cwd=tmp_path)
    assert said.splitlines() == ["None", told]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "there is no command 'nothing'"),
        (["as-forkserver"], "needs a script, or -m and a module"),
        (["as-forkserver", "-m"], "needs a script, or -m and a module"),
        (["as-forkserver", "not_there.py"], "cannot read the script 'not_there.py': No such file or directory"),
    ],
)
def test_a_wrong_command_is_told_with_the_right_ones(tmp_path, arguments, words):
    done = subprocess.run(
        [sys.executable, "-m", "anyfork", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "as-forkserver [--import-main]" in done.stderr
