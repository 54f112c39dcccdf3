"""torch's DataLoader with the context: its workers come from a template that has loaded torch."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from owner_side import output_of

pytestmark = [
    pytest.mark.slow,
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


@pytest.mark.timeout(180)
def test_a_data_loader_takes_the_context(tmp_path):
    program = tmp_path / "program.py"  # without a guard
    program.write_text(PROGRAM)
    total = float(sum(number**2 for number in range(64)))
    assert output_of(str(program)).splitlines() == [str(total), str(total), "[1.0, 1.0, 1.0]"]
