"""torch's DataLoader with the context: its workers come from a template that has loaded torch."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from owner_side import output_of

DEADLINE = 150.0  # seconds: torch takes long to load
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        find_spec("torch") is None, reason="torch is too large to be required: pip install torch==2.13.0"
    ),
]

PROGRAM = """
import torch
from torch.utils.data import DataLoader, Dataset
import anyfork

class Squares(Dataset):
    def __len__(self): return 64
    def __getitem__(self, index): return torch.full((1000,), float(index * index))

def increase(tensor):
    tensor += 1

with anyfork.Template().preload("torch") as template:
    ctx = anyfork.get_context(template)
    loader = DataLoader(Squares(), batch_size=4, num_workers=2, multiprocessing_context=ctx, persistent_workers=True)
    for _ in range(2):
        print(sum(batch[:, 0].sum().item() for batch in loader))
    shared = torch.zeros(3).share_memory_()
    process = ctx.Process(target=increase, args=(shared,))
    process.start()
    process.join()
    print(shared.tolist())
    del loader
"""


def test_a_data_loader_takes_the_context(tmp_path):
    program = tmp_path / "program.py"  # without a guard
    program.write_text(PROGRAM)
    total = float(sum(number**2 for number in range(64)))
    assert output_of(str(program), timeout=DEADLINE).splitlines() == [str(total), str(total), "[1.0, 1.0, 1.0]"]


UNCHANGED = """
import multiprocessing
import torch
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self): return 8
    def __getitem__(self, index): return torch.tensor(float(index * index)), type(multiprocessing.get_context()).__name__

[(squares, contexts)] = DataLoader(Squares(), batch_size=8, num_workers=1)
print(squares.sum().item(), {*contexts})
"""


def test_a_data_loader_of_a_program_that_is_not_changed_gets_our_processes(tmp_path):
    (tmp_path / "program.py").write_text(UNCHANGED)
    said = output_of("-m", "anyfork", "as-forkserver", "program.py", timeout=DEADLINE, cwd=tmp_path)
    assert said == "140.0 {'AnyforkContext'}\n"
