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


def test_only_templates_on_this_machine_can_be_observed():
    with (
        anyfork.RemoteTemplate([sys.executable]) as remote,
        pytest.raises(anyfork.ArgumentError, match="another machine"),
    ):
        anyfork.advise(remote)
    with pytest.raises(anyfork.ArgumentError, match=r"advise\(\) needs a template"):
        anyfork.advise(3)
