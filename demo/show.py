"""The demonstration: four scenes, as bars in the terminal and as one picture."""

from __future__ import annotations

import argparse
import os
import platform
import time
from contextlib import ExitStack
from pathlib import Path

import anyfork

from . import scenes
from .chart import Chart, picture
from .progress import progress
from .ways import all_ways

SCENES = (scenes.programs, scenes.killed_workers, scenes.memory, scenes.starts)


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(
        "scripts/demo", description="Show anyfork beside multiprocessing, in about a minute."
    )
    parser.add_argument("--picture", type=Path, default=Path("anyfork-demo.svg"), help="where it is put (%(default)s)")
    options = parser.parse_args()
    about = f"anyfork {anyfork.__version__}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    print(f"{about}: anyfork beside multiprocessing's forkserver and spawn\n", flush=True)
    began = time.perf_counter()
    charts = show_all()
    options.picture.write_text(picture(charts, about))
    print(f"It took {time.perf_counter() - began:.0f} seconds. The picture: {options.picture.resolve()}")


def show_all() -> list[Chart]:
    """Measure one scene after the other, and print each when it is done."""
    charts = []
    with ExitStack() as stack:
        ways = [stack.enter_context(way) for way in all_ways()]
        for scene in SCENES:
            charts.append(scene(ways))
            progress("")
            print(charts[-1].as_text(), flush=True)
    return charts
