"""The benchmark ``remote``: processes and calls over one connection of ssh on loopback, beside execnet and mitogen."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from . import sshd
from .contenders import IN_FLIGHT, REMOTE_CONTENDERS, SEQUENTIAL
from .contest import contest
from .remote_owner import SSH
from .report import Report, Settings
from .rounds import measure_in_rounds
from .tables import number, rate
from .targets import Target, at_least, targets_data, targets_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .samples import Samples

ANYFORK = "anyfork"
PEERS = ("execnet", "mitogen")
PROCESSES = "processes"
MEASURES = {PROCESSES: "processes", SEQUENTIAL: "calls, one at a time", IN_FLIGHT: "calls, 64 in flight"}
NAMES = tuple(contender.name for contender in REMOTE_CONTENDERS)


def run(settings: Settings) -> Report:
    """Measure everything that is wanted, against a server of our own."""
    if missing := sshd.missing():
        return Report([f"not measured: {missing} is not installed"])
    with tempfile.TemporaryDirectory() as directory, sshd.Sshd(Path(directory)) as server:
        os.environ[SSH] = json.dumps(server.ssh(sys.executable))
        samples, missing_here = measure_in_rounds("remote", REMOTE_CONTENDERS, tuple(MEASURES), settings)
    targets = peer_targets(samples)
    data = {"remote": samples.data(), "missing": missing_here, "targets": targets_data(targets)}
    return Report([remote_table(samples, missing_here), targets_table(targets)], data)


def remote_table(samples: Samples, missing: dict[str, str]) -> str:
    """Who does how much a second, and how much more that is for anyfork."""
    heads = [""]
    for text in MEASURES.values():
        heads += [f"{text}\na second", "\nanyfork x"]
    title = "Over one connection of ssh on loopback: medians of interleaved slices; ratios are medians within a round"

    def cells(name: str) -> list[str]:
        pairs = [(samples.median(name, measure), samples.ratio(ANYFORK, name, measure)) for measure in MEASURES]
        return [cell for middle, ratio in pairs for cell in (rate(middle), number(ratio, 2))]

    return contest(title, heads, REMOTE_CONTENDERS, samples, missing, cells)


def peer_targets(samples: Samples) -> list[Target]:
    """As fast as the faster of the two in each."""
    targets = []
    for measure, text in MEASURES.items():
        ratios = [samples.ratio(ANYFORK, peer, measure) for peer in PEERS]
        measured = [ratio for ratio in ratios if ratio is not None]
        targets.append(at_least(f"{text}, x the faster of execnet and mitogen", 1, min(measured, default=None)))
    return targets
