"""The choice of tests for each kind of template: what is left out for templates on other machines is there, once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from local_only import LOCAL_ONLY

HERE = Path(__file__).parent


def test_each_test_that_is_left_out_for_remote_templates_is_there_once():
    files = [path for folder in ("contract", "calls") for path in (HERE / folder).glob("test_*.py")]
    found = Counter(name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    assert {name: found[name] for name in LOCAL_ONLY if found[name] != 1} == {}, (
        "their names stand in tests/local_only.py, and mean one test each"
    )
