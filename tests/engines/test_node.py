"""The example of a host in Node, and its kernels as jupyter_client sees them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ipykernel", reason="ipykernel is not installed, or has no wheel for this interpreter")

from conftest import eventually
from in_program import SECONDS, TEST_DEADLINE, in_program
from jupyter_client import BlockingKernelClient

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "twenty_kernels.mjs"
KERNELS = 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(TEST_DEADLINE),
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]


def client_of(path):
    """Return a client, when the kernel has written its connection file."""
    eventually(lambda: path.exists() and path.read_text().endswith("}"))
    client = BlockingKernelClient()
    client.load_connection_file(str(path))
    client.start_channels()
    return client


@in_program
def test_twenty_kernels_of_a_program_in_node_answer_and_end_with_it():
    with subprocess.Popen(
        ["node", EXAMPLE, os.getcwd(), sys.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as node:
        said = [re.fullmatch(r"kernel (\d+) is process (\d+)\n", node.stdout.readline()) for _ in range(KERNELS)]
        pids = {int(line[1]): int(line[2]) for line in said}
        assert len({*pids.values()}) == KERNELS
        keys = set()
        for number, pid in pids.items():
            path = Path(f"kernel-{number}.json")
            client = client_of(path)
            reply = client.execute("import os", user_expressions={"pid": "os.getpid()"}, reply=True, timeout=SECONDS)
            assert reply["content"]["user_expressions"]["pid"]["data"]["text/plain"] == str(pid)
            keys.add(json.loads(path.read_text())["key"])
            client.stop_channels()
        assert len(keys) == KERNELS
        node.stdin.close()
        assert node.wait() == 0
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids.values()))
    assert not Path("keeper.socket").exists()


def test_the_documentation_shows_the_example():
    (shown,) = re.findall(r"^```js\n(.*?)^```$", (ROOT / "docs" / "keep.md").read_text(), re.MULTILINE | re.DOTALL)
    assert EXAMPLE.read_text().endswith(f"\n{shown}")
