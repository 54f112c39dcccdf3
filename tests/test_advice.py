"""advise() lists what processes import that their template has not loaded."""

from __future__ import annotations

import sys

import pytest
from owner_side import ended, forked_template

import anyfork
from anyfork import DEVNULL, aio

template = pytest.fixture(forked_template)


def test_late_imports_are_listed_with_their_price(template):
    advice = anyfork.advise(template)
    assert (advice.imports, advice.unshared) == ([], None)
    assert str(advice) == "no process has imported a module that its template had not loaded"
    for code in ("import fractions, csv", "import fractions", "import no_such_module"):
        ended(template.fork(stderr=DEVNULL).run_code(code))
    found = {one.module: one for one in advice.imports}
    assert [found[name].processes for name in ("fractions", "csv")] == [2, 1]
    assert all(one.seconds > 0 and one.memory >= 0 for one in advice.imports)
    assert "decimal" not in found  # a part of the import of fractions
    assert not any(name.startswith("_anyfork_child") or name == "no_such_module" for name in found)
    assert "preload('fractions'" in str(advice) or ", 'fractions'" in str(advice)


def test_an_import_without_a_free_descriptor_goes_on(template):
    advice = anyfork.advise(template)
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "import _symtable"
    )
    assert ended(template.fork().run_code(code)).code == 0
    assert "_symtable" in {one.module for one in advice.imports}


def test_what_is_preloaded_costs_nothing_more(template):
    advice = anyfork.advise(template.preload("fractions"))
    ended(template.fork().run_code("import fractions, importlib; importlib.import_module('csv')"))
    assert {"csv", "fractions"} & {one.module for one in advice.imports} == {"csv"}


def test_workers_and_forks_of_forks_are_observed(template):
    advice = anyfork.advise(template)
    with template.fork() as fork, anyfork.Worker(fork) as worker:
        worker.call("importlib:import_module", "wave")
        assert "wave" in {one.module for one in advice.imports}


FIRST_CALLS = """
import fnmatch, re
re.match("[ab]+", "ab")
re.match("late", "late")
fnmatch.fnmatch("a", "*.py")
"""


def test_first_calls_are_listed_that_the_template_could_have_made(template):
    advice = anyfork.advise(template.preload("fnmatch").execute("import re; re.match('[ab]+', 'ab')"))
    ended(template.fork().run_code(FIRST_CALLS))
    with anyfork.Worker(template.fork()) as worker:
        worker.call("fnmatch:fnmatch", "a", "*.c")
    found = {late.pattern: late for late in advice.patterns}
    assert "'[ab]+'" not in found
    assert found["'late'"].processes == 1
    assert found["'late'"].seconds > 0
    filled = {late.function: late for late in advice.caches}
    assert filled["fnmatch._compile_pattern"].processes == 2
    assert filled["fnmatch._compile_pattern"].entries == 1
    assert "re.compile('late'): 1 process" in str(advice)
    assert "the cache of fnmatch._compile_pattern: 2 processes, 1.0 further entries each" in str(advice)


ODD_CACHES = """
import functools
of_partial = functools.lru_cache(functools.partial(divmod, 7))
of_lines = functools.lru_cache(lambda: 0)
of_lines.__wrapped__.__qualname__ = "two\\nlines"
"""


def test_caches_of_objects_without_a_name_are_listed(template):
    advice = anyfork.advise(template.execute(ODD_CACHES))
    with anyfork.Worker(template.fork()) as worker:
        worker.call("__main__:of_partial", 2)
        worker.call("__main__:of_lines")
    assert {late.function for late in advice.caches} == {"builtins.divmod", "__main__.two lines"}
    assert advice.unshared is not None


SIZE = 32 << 20  # bytes


@pytest.mark.parametrize(
    ("code", "written"),
    [(f"own = bytearray(b'x') * {SIZE}", False), ("import builtins; builtins.data[::4096] = bytes(1 << 13)", True)],
    ids=["its own", "the template's"],
)
def test_memory_of_the_template_that_processes_write_to_is_told(template, code, written):
    template.execute("import builtins; builtins.data = bytearray(b'x') * args[0]", SIZE)
    advice = anyfork.advise(template)
    ended(template.fork().run_code(code))
    assert (advice.unshared >= SIZE) is written
    assert "MB of its template's memory" in str(advice)


def test_a_file_that_has_taken_the_number_is_left_alone(template, tmp_path):
    advice = anyfork.advise(template)
    file = tmp_path / "file"
    code = f"import os; os.closerange(3, 200); [os.open({str(file)!r}, os.O_CREAT | os.O_RDWR) for _ in range(100)]; import csv"
    assert ended(template.fork().run_code(code)).code == 0
    assert file.read_bytes() == b""
    assert "csv" not in {one.module for one in advice.imports}


@pytest.mark.anyio
async def test_it_observes_templates_of_the_async_face(anyio_backend):
    async with aio.Template() as template:
        advice = anyfork.advise(template)
        async with await template.fork().run_code("import csv") as process:
            await process.wait()
        assert "csv" in {one.module for one in advice.imports}


def test_an_executor_and_a_warm_are_observed(template):
    with anyfork.Warm("json") as warm, anyfork.Executor({template: 1, warm: 1}, 1) as executor:
        for observed, use in (
            (executor, lambda: executor.submit("importlib:import_module", "csv").result()),
            (warm, lambda: anyfork.call("importlib:import_module", "csv", template=warm)),
        ):
            advice = anyfork.advise(observed)
            use()
            assert "csv" in {late.module for late in advice.imports}
    with anyfork.Executor() as executor, pytest.raises(anyfork.ArgumentError, match="template of your own"):
        anyfork.advise(executor)


@pytest.mark.anyio
async def test_a_pool_is_observed(anyio_backend):
    async with aio.Template() as template, aio.Pool(template) as pool:
        advice = anyfork.advise(pool)
        await pool.call("importlib:import_module", "csv")
        assert "csv" in {late.module for late in advice.imports}
    async with aio.Warm("json") as warm, aio.Pool(warm) as pool:
        with pytest.raises(anyfork.ArgumentError, match="call a function before"):
            anyfork.advise(pool)
        await pool.call(abs, -1)
        assert anyfork.advise(pool).imports == []


@pytest.mark.anyio
async def test_a_warm_of_the_async_face_is_observed(anyio_backend):
    async with aio.Warm("json") as warm:
        with pytest.raises(anyfork.ArgumentError, match="await warm.template"):
            anyfork.advise(warm)
        template = await warm.template()
        advice = anyfork.advise(warm)
        for each in (warm, template):
            await aio.call("importlib:import_module", "csv", template=each)
        assert {late.module: late.processes for late in advice.imports}["csv"] == 2


def test_only_templates_on_this_machine_can_be_observed():
    with (
        anyfork.RemoteTemplate([sys.executable]) as remote,
        pytest.raises(anyfork.ArgumentError, match="another machine"),
    ):
        anyfork.advise(remote)
    with pytest.raises(anyfork.ArgumentError, match=r"advise\(\) needs a template"):
        anyfork.advise(3)
