"""Finding and starting an interpreter, and what is said when that fails."""

from __future__ import annotations

import os
import sys
import textwrap

import child_side
import pytest
from deadlines import DEADLINE
from owner_side import ask, ended, output_of

import anyfork
from anyfork._processes.launch import PACKAGE_DIRECTORY, find_python

HERE = os.path.dirname(child_side.__file__)


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def wrapper(tmp_path):
    """Return an interpreter that notes that it was used, and with which arguments."""
    return script(tmp_path / "wrapper", f'#!/bin/sh\necho "$@" >> {tmp_path}/used\nexec {sys.executable} "$@"\n')


@pytest.fixture
def used(wrapper):
    """Return how often the wrapper was used."""
    path = wrapper.parent / "used"
    return lambda: len(path.read_text().splitlines()) if path.exists() else 0


# --- Which interpreter ----------------------------------------------------------------------------------------------


def test_the_running_interpreter_is_started(monkeypatch):
    monkeypatch.delenv("ANYFORK_PYTHON", raising=False)
    assert find_python() == sys.executable


def test_anyfork_python_names_another_interpreter(monkeypatch, wrapper):
    monkeypatch.setenv("ANYFORK_PYTHON", str(wrapper))
    assert find_python() == str(wrapper)


def test_an_interpreter_that_is_asked_for_goes_before_anyfork_python(monkeypatch, wrapper):
    monkeypatch.setenv("ANYFORK_PYTHON", "/no/such/python")
    assert find_python(wrapper) == str(wrapper)


def test_an_empty_anyfork_python_means_nothing(monkeypatch):
    monkeypatch.setenv("ANYFORK_PYTHON", "")
    assert find_python() == sys.executable


@pytest.mark.parametrize("wrong", ["/no/such/python", "/etc/passwd", "/", "python3"])
@pytest.mark.parametrize("source", ["python=", "ANYFORK_PYTHON"])
def test_what_is_no_executable_file_is_refused_and_the_error_says_who_named_it(monkeypatch, source, wrong):
    monkeypatch.delenv("ANYFORK_PYTHON", raising=False)
    if source == "ANYFORK_PYTHON":
        monkeypatch.setenv(source, wrong)
    with pytest.raises(anyfork.LaunchError, match=f"{source} is '{wrong}', which is not an executable file"):
        find_python(wrong if source == "python=" else None)


# More of this, with programs that are shipped in such ways: shipping/test_interpreters.py
@pytest.mark.parametrize("wrong", ["", None, "/no/such/python", "/bin/true"])
def test_instead_of_a_sys_executable_that_is_none_the_interpreter_beside_the_library_is_taken(monkeypatch, wrong):
    monkeypatch.delenv("ANYFORK_PYTHON", raising=False)
    monkeypatch.setattr(sys, "executable", wrong)
    found = find_python()
    assert os.path.basename(found).removesuffix(sys.abiflags) == "python{}.{}".format(*sys.version_info)
    assert os.path.dirname(found) == os.path.join(sys.prefix, "bin")


def test_the_default_template_is_started_by_anyfork_python(wrapper, used):
    program = f"import sys; sys.path.insert(0, {HERE!r}); import anyfork; anyfork.Template().ready().close()"
    output_of("-c", program, env={**os.environ, "ANYFORK_PYTHON": str(wrapper)})
    assert used() == 1


# --- new_exec -------------------------------------------------------------------------------------------------------


def test_a_fresh_interpreter_may_be_another_one(wrapper, used):
    assert ask(anyfork.Template.new_exec(python=wrapper), "v", 1) == [1]
    assert used() == 1


def test_a_fresh_interpreter_gets_the_options_that_are_asked_for():
    template = anyfork.Template.new_exec(flags=["-O", "-X", "utf8", "-W", "ignore"])
    expression = "(sys.flags.optimize, sys.flags.utf8_mode, sys.warnoptions)"
    assert ask(template, expression) == (1, 1, ["ignore"])


def test_a_fresh_interpreter_has_the_options_of_the_program():
    program = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        import anyfork
        from asking import ask
        expression = "(sys.flags.optimize, sys.flags.dont_write_bytecode, sys.flags.utf8_mode)"
        print(ask(anyfork.Template.new_exec(), expression), ask(anyfork.Template(), expression))
    """)
    assert output_of("-OO", "-B", "-X", "utf8", "-c", program, HERE) == "(2, 1, 1) (2, 1, 1)\n"


def test_an_isolated_interpreter_works_too():
    program = textwrap.dedent("""
        import sys
        sys.path[:0] = sys.argv[1:]
        import anyfork
        from asking import ask
        expression = "(sys.flags.isolated, sys.flags.safe_path)"
        print(ask(anyfork.Template.new_exec(), expression), ask(anyfork.Template(), expression))
    """)
    assert output_of("-I", "-c", program, HERE, PACKAGE_DIRECTORY) == "(1, True) (1, True)\n"


def test_no_options_are_asked_for_by_an_empty_list():
    assert ask(anyfork.Template.new_exec(flags=[]), "sys.flags.optimize") == 0


@pytest.mark.parametrize("wrong", ["/no/such/python", "/etc/passwd"])
def test_an_interpreter_that_is_none_is_an_error_of_the_call(wrong):
    with pytest.raises(anyfork.LaunchError, match="which is not an executable file"):
        anyfork.Template.new_exec(python=wrong)


def test_an_interpreter_that_does_not_come_up_is_told_with_its_status_and_what_it_said(tmp_path):
    python = script(tmp_path / "python", "#!/bin/sh\necho 'no licence for this' >&2\nexit 3\n")
    with anyfork.Template.new_exec(python=python) as template, pytest.raises(anyfork.LaunchError) as caught:
        template.ready(DEADLINE)
    assert caught.value.stderr == "no licence for this"
    assert f"the interpreter {str(python)!r} did not come up as a template (ended with exit code 3)" in str(
        caught.value
    )
    assert "no licence for this" in str(caught.value)


def test_an_interpreter_that_does_not_come_up_fails_a_start_as_well(tmp_path):
    python = script(tmp_path / "python", "#!/bin/sh\nexit 3\n")
    with pytest.raises(anyfork.LaunchError, match="did not come up"):
        anyfork.Template.new_exec(python=python).run(child_side.enter, timeout=DEADLINE)


def test_an_interpreter_that_does_not_come_up_fails_the_forks_queued_behind_it(tmp_path):
    python = script(tmp_path / "python", "#!/bin/sh\necho 'no licence for this' >&2\nexit 3\n")
    with (
        anyfork.Template.new_exec(python=python) as template,
        template.fork() as fork,
        pytest.raises(anyfork.LaunchError) as caught,
    ):
        fork.ready(DEADLINE)
    assert caught.value.stderr == "no licence for this"


def test_an_interpreter_that_does_not_come_up_leaves_others_alone(tmp_path):
    python = script(tmp_path / "python", "#!/bin/sh\nexit 3\n")
    with anyfork.Template() as other, anyfork.Template.new_exec(python=python) as template:
        with pytest.raises(anyfork.LaunchError):
            template.ready(DEADLINE)
        assert ask(other, "v", 1) == [1]


def test_of_much_that_an_interpreter_said_the_end_is_told(tmp_path):
    python = script(
        tmp_path / "python", "#!/bin/sh\nyes 'noise noise noise' | head -100000 >&2\necho 'the end' >&2\nexit 3\n"
    )
    with anyfork.Template.new_exec(python=python) as template, pytest.raises(anyfork.LaunchError) as caught:
        template.ready(DEADLINE)
    assert caught.value.stderr.endswith("noise\nthe end")
    assert len(caught.value.stderr) < 10_000


def test_an_option_that_the_interpreter_does_not_know_is_told():
    with (
        anyfork.Template.new_exec(flags=["--no-such-option"]) as template,
        pytest.raises(anyfork.LaunchError) as caught,
    ):
        template.ready(DEADLINE)
    assert "no-such-option" in caught.value.stderr


def test_a_file_that_cannot_be_executed_is_told(tmp_path):
    python = tmp_path / "python"
    python.write_bytes(b"\0\1\2\3")
    python.chmod(0o755)
    with (
        anyfork.Template.new_exec(python=python) as template,
        pytest.raises(anyfork.LaunchError, match="cannot be executed: OSError"),
    ):
        template.ready(DEADLINE)


def test_a_program_that_is_no_interpreter_is_told():
    with (
        anyfork.Template.new_exec(python="/bin/true") as template,
        pytest.raises(anyfork.LaunchError, match="exit code 0"),
    ):
        template.ready(DEADLINE)


def test_an_interpreter_that_dies_of_a_signal_is_told(tmp_path):
    python = script(tmp_path / "python", "#!/bin/sh\nkill -KILL $$\n")
    with anyfork.Template.new_exec(python=python) as template, pytest.raises(anyfork.LaunchError, match="SIGKILL"):
        template.ready(DEADLINE)


BROKEN_DEFAULT = textwrap.dedent("""
    import os, sys
    sys.path.insert(0, sys.argv[1])
    import anyfork
    from asking import ask
    os.environ["ANYFORK_PYTHON"] = sys.argv[2]
    try:
        anyfork.Template().ready(10)
    except anyfork.LaunchError as error:
        print(repr(error.stderr))
    del os.environ["ANYFORK_PYTHON"]
    print(ask(anyfork.Template(), "v", "works"))
""")


def test_a_default_template_that_does_not_come_up_is_told_and_replaced_by_the_next(tmp_path):
    python = script(tmp_path / "python", "#!/bin/sh\necho 'no licence for this' >&2\nexit 3\n")
    assert output_of("-c", BROKEN_DEFAULT, HERE, str(python)) == "'no licence for this'\n['works']\n"


def test_what_an_interpreter_says_after_it_has_come_up_goes_to_the_real_standard_error(tmp_path):
    with (tmp_path / "err").open("w") as err:
        ended(anyfork.Template.new_exec(stderr=err).run(child_side.print_unflushed, "", "to the real one"))
    assert (tmp_path / "err").read_text() == "to the real one"


# --- Where modules are found ----------------------------------------------------------------------------------------


def test_modules_are_found_where_the_program_finds_them(tmp_path):
    (tmp_path / "beside_the_script.py").write_text("def main(channel):\n    channel.sendall(__file__.encode())\n")
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
            import anyfork, beside_the_script
            for template in anyfork.Template(), anyfork.Template.new_exec():
                with template.run(beside_the_script.main) as process:
                    print(process.channel.recv(1000).decode())
        """)
    )
    path = str(tmp_path / "beside_the_script.py")
    assert output_of(str(tmp_path / "script.py"), cwd="/") == f"{path}\n{path}\n"


def test_modules_in_the_directory_of_a_program_from_the_command_line_are_found(tmp_path):
    (tmp_path / "in_the_directory.py").write_text("def main(channel):\n    channel.sendall(b'found')\n")
    program = textwrap.dedent("""
        import anyfork, os
        template = anyfork.Template().ready()
        os.chdir("/")
        with template.run("in_the_directory:main") as process:
            print(process.channel.recv(1000).decode())
    """)
    assert output_of("-c", program, cwd=tmp_path) == "found\n"


def test_a_module_that_is_called_like_ours_hides_nothing(tmp_path):
    for name in ("socket", "_anyfork_child", "signal", "resource"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the wrong {name}')\n")
    program = textwrap.dedent("""
        import sys, anyfork
        sys.path.append(sys.argv[1])
        template = anyfork.Template.new_exec().ready().execute("def nothing(channel): pass")
        with template.run("nothing") as process:
            print(process.pid is not None)
    """)
    assert output_of("-c", program, str(tmp_path), cwd="/") == "True\n"


# There `import socket`, by itself and without anyfork, ends in a SystemError of the interpreter.
@pytest.mark.skipif(sys.version_info[:3] == (3, 13, 0), reason="CPython 3.13.0 cannot import socket in such a place")
def test_a_program_whose_directory_was_removed_has_templates(tmp_path):
    program = textwrap.dedent("""
        import os, sys
        sys.path.insert(1, sys.argv[1])
        import anyfork
        from asking import ask
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")
        print(ask(anyfork.Template(), "v", "works"))
    """)
    assert output_of("-c", program, HERE, cwd=tmp_path) == "['works']\n"


# --- Standard streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_a_daemon_without_standard_streams_has_templates(closed, tmp_path):
    program = textwrap.dedent("""
        import os, sys
        sys.path.insert(0, sys.argv[1])
        for fd in map(int, sys.argv[2]):
            os.close(fd)
        import anyfork
        from asking import ask
        expression = "[os.path.exists(f'/proc/self/fd/{fd}') for fd in (0, 1, 2)]"
        result = [ask(anyfork.Template(), expression), ask(anyfork.Template.new_exec(), expression)]
        with open(sys.argv[3], "w") as file:
            file.write(repr(result))
        os._exit(0)
    """)
    output_of("-c", program, HERE, closed, str(tmp_path / "result"))
    assert (tmp_path / "result").read_text() == "[[True, True, True], [True, True, True]]"
