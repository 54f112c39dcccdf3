"""Draw the pictures of the explanation, as SVG beside this file: ``python docs/pictures/drawings.py``."""

from __future__ import annotations

from html import escape
from pathlib import Path

HERE = Path(__file__).parent
STYLE = """\
  text { font: 13px system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
  .left { text-anchor: start } .head { font-weight: 600 } .note { fill: #656d76; font-size: 12px }
  .code { font: 12px ui-monospace, monospace } .box { fill: #f6f8fa; stroke: #afb8c1 }
  .ours { fill: #ddf4ff; stroke: #0969da } .own { fill: #0969da } .copy { fill: #bc4c00 }
  .shared { fill: none; stroke: #0969da; stroke-dasharray: 4 3 } .line { fill: none; stroke: #656d76 }
  .socket { fill: none; stroke: #0969da; stroke-width: 2 } .tip { fill: #656d76 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #8d96a0 } .box { fill: #161b22; stroke: #57606a }
    .ours { fill: #0d2d52; stroke: #4493f8 } .own { fill: #4493f8 } .copy { fill: #f0883e }
    .shared, .socket { stroke: #4493f8 } .line { stroke: #8d96a0 } .tip { fill: #8d96a0 } }"""
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" markerWidth="8"'
    ' markerHeight="8" orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker>'
)


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Write words at a place."""
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, lines: tuple[str, ...], kind: str = "box") -> str:
    """Draw a box with lines in its middle, of which the first is its name."""
    top = y + height / 2 - 9 * len(lines) + 13
    words = [text(x + width / 2, top + 18 * row, line, "note" if row else "head") for row, line in enumerate(lines)]
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>' + "".join(words)


def line(path: str, kind: str = "line", *, tip: bool = True) -> str:
    """Draw a line along a path."""
    end = ' marker-end="url(#tip)"' if tip else ""
    return f'<path class="{kind}" d="{path}"{end}/>'


def bar(x: float, y: float, width: float, kind: str) -> str:
    """Draw memory: a bar as wide as it is large."""
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="20" rx="2"/>'


def picture(title: str, height: int, parts: list[str]) -> str:
    """Return a whole picture."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" viewBox="0 0 760 {height}"'
        ' role="img">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>\n<defs>{TIP}</defs>\n{body}\n</svg>\n"
    )


def processes() -> str:
    """Draw who forks whom, and who has a socket to whom."""
    parts = [
        box(16, 110, 170, 90, ("Your program", "threads, event loop,", "gigabytes of data")),
        box(300, 110, 170, 90, ("Template", "one thread, idle;", "pandas is loaded"), "ours"),
        line("M186 155 H300", "socket", tip=False),
        text(242, 146, "requests", "note"),
        text(242, 174, "reports", "note"),
    ]
    for number, top in enumerate((16, 125, 234)):
        parts.append(box(590, top, 154, 60, (f"Process {number + 1}", "runs your function"), "ours"))
        parts.append(line(f"M470 155 L586 {top + 30}"))
    parts += [
        text(506, 105, "fork", "note"),
        line("M101 110 C120 20 400 20 590 38", "socket", tip=False),
        line("M160 200 C240 250 480 230 590 172", "socket", tip=False),
        line("M101 200 C120 300 400 300 590 272", "socket", tip=False),
        text(300, 24, "channel: a socket to each process, yours alone", "note"),
        text(
            300,
            318,
            "Blue lines are sockets. They have no names, and end with your program: so do the processes.",
            "note",
        ),
    ]
    return picture("Processes and sockets", 334, parts)


STAGES = (
    ("Template()", "forked from the", "default template"),
    ("preload(...)", "modules are", "imported"),
    ("fork(...)", "a clone, with", "attributes"),
    ("start(f)", "arguments", "are decoded"),
    ("ready()", "f has been", "entered"),
    ("channel", "f runs", ""),
    ("wait()", "exit code", "or signal"),
)


def life() -> str:
    """Draw what your program calls, and what that does to the process."""
    step = 104
    parts = [text(16, 24, "Your program calls, and what the other process does", "left head")]
    parts.append('<rect class="box" x="16" y="96" width="308" height="60" rx="6"/>')
    parts.append('<rect class="ours" x="328" y="96" width="416" height="60" rx="6"/>')
    for number, (call, *happens) in enumerate(STAGES):
        x = 68 + step * number
        parts.append(text(x, 50, call, "code"))
        parts.append(line(f"M{x} 58 V92" if call != "wait()" else f"M{x} 92 V60"))
        parts += [text(x, 122 + 18 * row, words, "note") for row, words in enumerate(happens)]
    parts += [
        text(170, 178, "a template: it can be prepared and forked", "note"),
        text(536, 178, "a process: it has its function and its channel, and ends once", "note"),
    ]
    return picture("The life of a process", 194, parts)


def memory() -> str:
    """Draw what processes share with their template, and what copies cost."""
    parts = [text(16, 24, "Processes of a template", "left head")]
    parts += [text(16, 55, "template", "left"), bar(120, 40, 300, "own")]
    for row in range(3):
        top = 70 + 30 * row
        parts += [
            text(16, top + 15, f"process {row + 1}", "left"),
            bar(120, top, 300, "shared"),
            bar(424, top, 8, "own"),
        ]
    parts += [
        text(450, 55, "modules and data, loaded once", "left note"),
        text(450, 85, "the same memory; own pages: what it has written", "left note"),
        text(16, 186, "Processes of spawn, each a new interpreter", "left head"),
    ]
    for row in range(3):
        top = 200 + 30 * row
        parts += [text(16, top + 15, f"process {row + 1}", "left"), bar(120, top, 300, "copy")]
    parts.append(text(450, 215, "loads everything again, and keeps a copy", "left note"))
    return picture("Sharing of memory", 300, parts)


PICTURES = {"processes": processes, "life": life, "memory": memory}


def main() -> None:
    """Write all pictures."""
    for name, draw in PICTURES.items():
        (HERE / f"{name}.svg").write_text(draw())


if __name__ == "__main__":
    main()
