"""A Jupyter kernel, driven as a notebook drives it, and what IPython adds to Python."""

from __future__ import annotations

import textwrap
from time import monotonic

import pytest
from deadlines import PROGRAM_DEADLINE
from shipped import CHECKS, DEFINITIONS, SAYS, clean, python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Notebook:
    """A kernel and its client: what a cell prints, and its errors."""

    def __init__(self, directory):
        manager = pytest.importorskip("jupyter_client").KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=str(directory), env=clean({"IPYTHONDIR": str(directory / "ipython")}))
        self.manager = manager
        self.client = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PROGRAM_DEADLINE)

    def run(self, code):
        """Run a cell. Raises what it raised as an AssertionError."""
        asked = self.client.execute(textwrap.dedent(code))
        said, ended, deadline = "", False, monotonic() + PROGRAM_DEADLINE
        while not ended:
            message = self.client.get_iopub_msg(timeout=max(0.0, deadline - monotonic()))
            kind, content = message["msg_type"], message["content"]
            assert kind != "error", "\n".join(content["traceback"])
            if kind == "stream":
                said += content["text"]
            ended = (
                kind == "status"
                and content["execution_state"] == "idle"
                and message["parent_header"]["msg_id"] == asked
            )
        return said

    def until(self, text):
        """Wait until something is printed, by whatever process."""
        said, deadline = "", monotonic() + PROGRAM_DEADLINE
        while text not in said:
            message = self.client.get_iopub_msg(timeout=max(0.0, deadline - monotonic()))
            said += message["content"].get("text", "")
        return said

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel()
        self.manager.cleanup_resources()


@pytest.fixture(scope="module", autouse=True)
def loop_of_jupyter():
    """Yield the loop that its client makes for itself, and keeps."""
    loop = pytest.importorskip("jupyter_core.utils").ensure_event_loop()
    yield
    loop.close()


@pytest.fixture
def notebook(tmp_path):
    notebook = Notebook(tmp_path)
    yield notebook
    notebook.close()


def test_what_cells_define_is_known_in_templates(notebook):
    notebook.run("import anyfork")
    notebook.run(DEFINITIONS)
    notebook.run(CHECKS.replace('    ("copied", anyfork.fork_here),\n', ""))
    assert "the program begins\n" + notebook.run("main()") == SAYS.replace("copied\n", "")


def test_a_class_that_is_defined_anew_is_the_new_one(notebook):
    for text in "old", "new":
        notebook.run(f"""
            import anyfork
            class ChangedError(Exception):
                which = {text!r}
            def change():
                raise ChangedError
        """)
        said = notebook.run("""
            try:
                anyfork.call(change)
            except ChangedError as error:
                print(type(error) is ChangedError, error.which)
        """)
        assert said == f"True {text}\n"


def test_a_cell_awaits_what_the_async_face_gives(notebook):
    said = notebook.run("""
        from anyfork import aio
        async with aio.Worker() as worker:
            print(await worker.call(lambda: 6 * 7))
        print(await aio.call(lambda: 6 * 8))
    """)
    assert said == "42\n48\n"


def test_the_error_of_a_cell_shows_the_line_of_the_cell(notebook):
    said = notebook.run("""
        import anyfork
        def deep():
            return 1 / 0
        try:
            anyfork.call(deep)
        except ZeroDivisionError as error:
            print(error.__cause__)
    """)
    assert "ipykernel_" in said or "<ipython-input" in said
    assert "line 3, in deep" in said


def test_a_copy_is_refused_with_the_names_of_what_the_kernel_runs(notebook):
    said = notebook.run("""
        import anyfork
        try:
            anyfork.fork_here()
        except anyfork.UnsafeTemplateError as error:
            print(error)
    """)
    assert "this program cannot become a template" in said
    assert "Heartbeat" in said or "IOPub" in said or "loop" in said


def test_what_processes_print_is_shown(notebook):
    said = notebook.run("""
        import anyfork
        def greet(channel):
            print("greetings from below", flush=True)
        with anyfork.Template.new_exec().run(greet) as process:
            pass
    """)
    # It comes by way of a thread of the kernel, maybe after the cell has ended.
    assert "greetings from below" in (said or notebook.until("greetings from below"))


def test_an_interrupted_cell_leaves_templates_alone(notebook):
    notebook.run("import anyfork; template = anyfork.Template().ready(); pid = template.pid")
    notebook.client.execute("import time\nprint('sleeping', flush=True)\ntime.sleep(1000)")
    notebook.until("sleeping")
    notebook.manager.interrupt_kernel()
    reply = None
    while reply is None or reply["content"]["status"] != "error":
        reply = notebook.client.get_shell_msg(timeout=PROGRAM_DEADLINE)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    while notebook.client.get_iopub_msg(timeout=PROGRAM_DEADLINE)["content"].get("execution_state") != "idle":
        pass
    assert notebook.run("import os; print(anyfork.call(os.getppid, template=template) == pid)") == "True\n"


def test_modules_that_autoreload_reloads_are_new_in_processes(notebook, tmp_path):
    changing = tmp_path / "changing.py"
    changing.write_text(
        "class OwnError(Exception): pass\ndef tell():\n    return 'old'\ndef fail():\n    raise OwnError('old')\n"
    )
    notebook.run(f"""
        %load_ext autoreload
        %autoreload 2
        import sys, anyfork
        sys.path.insert(0, {str(tmp_path)!r})
        sys.dont_write_bytecode = True
        import changing
        from changing import tell
        def through():
            return tell()
    """)
    show = """
        print(anyfork.call(changing.tell), anyfork.call(tell), anyfork.call(through))
        try:
            anyfork.call(changing.fail)
        except changing.OwnError as error:
            print(error)
    """
    assert notebook.run(show) == "old old old\nold\n"
    changing.write_text(changing.read_text().replace("old", "brand new"))
    assert notebook.run(show) == "brand new brand new brand new\nbrand new\n"


def test_a_script_that_ipython_runs(tmp_path):
    (tmp_path / "script.py").write_text(
        f"import anyfork\n{DEFINITIONS}{CHECKS}main()\n".replace('("copied", anyfork.fork_here),', "")
    )
    said = python(
        "-m", "IPython", "--quick", "--no-banner", "script.py", cwd=tmp_path, env={"IPYTHONDIR": str(tmp_path / "dir")}
    )
    assert said == SAYS.replace("copied\n", "")
