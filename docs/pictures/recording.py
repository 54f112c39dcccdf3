"""Record a program that imports pandas, cold and by ``anyfork run``: ``python docs/pictures/recording.py``.

The result is a moving SVG beside this file. Each line appears in it when it did in the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CODE = "import pandas; print(pandas.Series([20, 22]).sum())"
RUN = [sys.executable, "-m", "_anyfork_client", "run"]
WARM = [*RUN, "--preload", "pandas", "-c", CODE]
COMMANDS = (
    (f"python -c '{CODE}'", [sys.executable, "-c", CODE]),
    (f"anyfork run --preload pandas -c '{CODE}'", WARM),
    (f"anyfork run --preload pandas -c '{CODE}'", WARM),
)
TYPING, PAUSE = 0.6, 4.0  # seconds before a command, and at the end
WIDTH, ROW = 760, 22
STYLE = """\
  text { font: 13px ui-monospace, monospace; fill: #e6edf3; white-space: pre } .took { fill: #7ee787 }
  .prompt { fill: #8d96a0 } rect { fill: #161b22; stroke: #57606a }
  @media (prefers-reduced-motion: reduce) { text { animation: none !important } }"""


@dataclass(frozen=True)
class Line:
    """A line of the terminal: what it says, its kind, and the second at which it appears."""

    words: str
    kind: str
    at: float


def record(begin: float, shown: str, command: list[str], env: dict[str, str]) -> list[Line]:
    """Run a command; return its lines, and a last one that says how long it took."""
    lines = [Line(f"$ {shown}", "prompt", begin)]
    started = perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines += [Line(words.rstrip("\n"), "", begin + perf_counter() - started) for words in process.stdout]
    took = perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{shown} ended with {process.returncode}")
    return [*lines, Line(f"({took:.2f} s)", "took", begin + took)]


def warm_up(command: list[str], env: dict[str, str]) -> None:
    """Run a command until it starts warm, which its option --verbose says by silence."""
    verbose = [*RUN, "--verbose", *command[len(RUN) :]]
    while subprocess.run(verbose, cwd=ROOT, env=env, capture_output=True, check=True).stderr:
        pass


def record_all() -> list[Line]:
    """Run all commands one after the other, in a directory of keepers of their own."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as runtime:
        env = {**os.environ, "XDG_RUNTIME_DIR": runtime, "PYTHONPATH": path}
        warm_up(WARM, env)
        lines: list[Line] = []
        for shown, command in COMMANDS:
            lines += record(lines[-1].at + TYPING if lines else TYPING, shown, command, env)
        subprocess.run([*RUN[:-1], "stop"], env=env, check=True, capture_output=True)
    return lines


def picture(lines: list[Line]) -> str:
    """Draw a terminal in which the lines appear one after the other, again and again."""
    whole = lines[-1].at + PAUSE
    frames, shown = [], []
    for row, line in enumerate(lines):
        part = 100 * line.at / whole
        frames.append(
            f"@keyframes l{row} {{ 0%, {part:.2f}% {{ opacity: 0 }} {part + 0.01:.2f}%, 100% {{ opacity: 1 }} }}"
        )
        style = f"animation: l{row} {whole:.2f}s infinite"
        shown.append(
            f'<text class="{line.kind}" style="{style}" x="16" y="{28 + ROW * row}">{escape(line.words)}</text>'
        )
    height = 24 + ROW * len(lines)
    newline = "\n"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' role="img">\n'
        f"<title>A program that imports pandas: cold, and by anyfork run</title>\n<style>\n{STYLE}\n"
        f"  {newline.join(frames)}\n</style>\n"
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        f"{newline.join(shown)}\n</svg>\n"
    )


if __name__ == "__main__":
    (HERE / "run.svg").write_text(picture(record_all()))
