"""What scripts/demo measures and draws."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from owner_side import output_of

ROOT = Path(__file__).parent.parent
CHART = "from demo.chart import Bar, Chart, picture; chart = Chart('1 < 2', [Bar('a & b', 1, '1 ms'), Bar('c', 4, '4 ms')], 'x'); "


def test_a_chart_has_bars_in_proportion():
    _, first, second, _ = output_of("-c", CHART + "print(chart.as_text().rstrip())", cwd=ROOT).splitlines()
    assert 3.5 < second.count("█") / first.count("█") < 4.5


def test_the_picture_is_well_formed_and_has_a_bar_for_each():
    drawn = ElementTree.fromstring(output_of("-c", CHART + "print(picture([chart, chart], 'about'))", cwd=ROOT))
    assert len(drawn.findall(".//{*}rect")) == 4
    assert "a & b" in [text.text for text in drawn.findall(".//{*}text")]


@pytest.mark.slow
def test_a_pool_does_nearly_all_jobs_though_its_workers_are_killed():
    pytest.importorskip("pandas")
    program = "from demo import scenes, ways\nwith ways.Anyfork() as way: print(*scenes.run_and_kill(way))"
    done, kills = map(int, re.findall(r"\d+", output_of("-c", program, cwd=ROOT)))
    assert kills == 15
    assert 400 - kills <= done <= 400
