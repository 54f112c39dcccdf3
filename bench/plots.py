"""Plots of results, as SVG for the documentation: readable on light and dark pages, without a background."""

from __future__ import annotations

import re
from io import StringIO
from statistics import median
from typing import TYPE_CHECKING

import matplotlib

from .calls import LABELS
from .contenders import SEQUENTIAL
from .driver import ROOT
from .growth import MEMORY, OWNER, TEMPLATE
from .samples import figure

matplotlib.use("svg")
from matplotlib import pyplot  # it looks at the backend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from matplotlib.axes import Axes

PICTURES = ROOT / "docs" / "pictures"
# What is drawn with the first colour becomes that of a light page, or the other one on a dark page.
COLOURS = {
    "text": ("#1f2328", "#e6edf3"),
    "grid": ("#d0d7de", "#30363d"),
    "ours": ("#0969da", "#4493f8"),
    "second": ("#bc4c00", "#f0883e"),
    "third": ("#1a7f37", "#3fb950"),
    "fourth": ("#8250df", "#a371f7"),
    "others": ("#afb8c1", "#57606a"),
}
LINES = ("ours", "second", "third", "fourth", "text")
MARKS = "osD^v"
TEXTS = {  # title, horizontal axis, vertical axis
    TEMPLATE: ("From the call to the first byte of a new process", "MB of objects in the template", "ms"),
    OWNER: ("Starts a second, one at a time", "MB of the program that starts them", "starts a second"),
    MEMORY: ("Memory of a pool of 8 workers that have 180 MB of modules and data", "requests served", "MB"),
}
FILES = {TEMPLATE: "start-latency", OWNER: "start-rate", MEMORY: "pool-memory"}
OWN = ("anyfork", "aio", "aio-trio")
PEERS = ("executor", "mp-pool", "loky", "pebble", "mpire", "execnet", "to-process", "perl-rpc")


def draw(results: Mapping[str, Any]) -> list[Path]:
    """Draw what there is of the plots; return the files."""
    drawn = []
    for name, curves in results.get("growth", {}).get("curves", {}).items():
        drawn.append(_save(FILES[name], _curves, TEXTS[name], curves, results["growth"]["machine"]))
    if "calls" in results:
        rates = _rates(results["calls"]["calls"])
        drawn.append(
            _save("calls", _bars, ("Calls a second, one at a time", "", ""), rates, results["calls"]["machine"])
        )
    return drawn


def _rates(slices: Mapping[str, Any]) -> dict[str, float]:
    """Return the calls a second by the label of who does them, the fastest first."""
    found = {
        name: median(figure(SEQUENTIAL, numbers) for numbers in slices[name][SEQUENTIAL].values())
        for name in (*OWN, *PEERS)
        if SEQUENTIAL in slices.get(name, {})
    }
    return {LABELS[name]: found[name] for name in sorted(found, key=found.__getitem__)}


def _save(name: str, fill: Any, texts: tuple[str, str, str], content: Any, machine: Mapping[str, Any]) -> Path:
    with matplotlib.rc_context(_style()):
        shown, axes = pyplot.subplots(figsize=(7.6, 3.6), layout="constrained")
        fill(axes, texts, content)
        about = (
            f"{machine['python']}, {machine['processor']}, {machine['cpus']} CPUs, load {machine['load_before']:.0f}"
        )
        shown.supxlabel(about, fontsize=8, x=0.99, ha="right")
        drawn = StringIO()
        shown.savefig(
            drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": texts[0]}
        )
        pyplot.close(shown)
    path = PICTURES / f"{name}.svg"
    path.write_text(_for_both_pages(drawn.getvalue()))
    return path


def _style() -> dict[str, Any]:
    text, grid = COLOURS["text"][0], COLOURS["grid"][0]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "anyfork",  # the same numbers give the same file
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": text,
        "axes.edgecolor": grid,
        "axes.labelcolor": text,
        "xtick.color": text,
        "ytick.color": text,
        "grid.color": grid,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "axes.titlelocation": "left",
    }


def _curves(axes: Axes, texts: tuple[str, str, str], curves: Mapping[str, list[tuple[float, float]]]) -> None:
    title, across, up = texts
    for (label, curve), colour, mark in zip(curves.items(), LINES, MARKS, strict=False):
        axes.plot(*zip(*curve, strict=True), color=COLOURS[colour][0], marker=mark, markersize=5, label=label)
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _bars(axes: Axes, texts: tuple[str, str, str], rates: Mapping[str, float]) -> None:
    own = {LABELS[name] for name in OWN}
    colours = [COLOURS["ours" if label in own else "others"][0] for label in rates]
    bars = axes.barh([*rates], [*rates.values()], color=colours)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates.values()], padding=4)
    axes.set(title=texts[0])
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)


def _for_both_pages(svg: str) -> str:
    """Let colours be those of the page, and fonts those of the system."""
    for name, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    light, dark = (" ".join(f"--{name}: {pair[which]};" for name, pair in COLOURS.items()) for which in (0, 1))
    style = f"<style>svg {{ {light} }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    return re.sub(r"(<svg [^>]*>)", rf"\1{style}", svg, count=1)
