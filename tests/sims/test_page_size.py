"""Pages of many runs stay small, and no table is made more than once for them."""

import base64
import io
import re
from itertools import groupby

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from test_analysis import synthetic

from sims.analysis.runs import Runs
from sims.pages.style import many_lines, markers, panels, styled, to_svg
from sims.pages.svg import compact
from sims.studies.overview.figures import causal_figure, concentration_figure, link_figure
from sims.studies.overview.findings import findings
from sims.studies.overview.study import PAGE
from sims.studies.overview.terminal import print_summary
from sims.studies.study import sections

NUMBER = re.compile(r"-?\d*\.?\d+")
coordinates = st.floats(-3000, 3000)
polylines = st.lists(
    st.tuples(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=9), st.booleans()),
    min_size=1,
)


def written(shapes):
    """A path in the form of matplotlib."""
    text = ""
    for points, closed in shapes:
        text += "".join(f"{'L' if k else 'M'} {x:.6f} {y:.6f} \n" for k, (x, y) in enumerate(points))
        text += "z\n" if closed else ""
    return text


def read(path):
    """The points of a path of relative straight lines, as SVG defines them, and which subpaths are closed."""
    shapes, at, start = [], np.zeros(2), np.zeros(2)
    for command, rest in re.findall("([mlz])([^mlz]*)", path):
        if command == "z":
            shapes[-1] = (shapes[-1][0], True)
            at = start
            continue
        for k, step in enumerate(np.array(NUMBER.findall(rest), float).reshape(-1, 2)):
            at = at + step
            if command == "m" and k == 0:
                start = at
                shapes.append(([], False))
            shapes[-1][0].append(at)
    return shapes


def noise(runs, points, columns, stages=4):
    """One row a run and point; values without any pattern, which is the worst case for a file."""
    random = np.random.default_rng(0)
    one = {"run_id": np.repeat(range(runs), points), "step": np.tile(range(points), runs)}
    table = pd.DataFrame(one)
    table["stage"] = np.array(["baseline", "rope", "muon", "untied"])[table["run_id"] % stages]
    table = table.assign(
        seed=table["run_id"], batch_size=8, tokens=table["step"], run_id=table["run_id"].map(str)
    )
    return table.assign(**{name: random.random(len(table)) for name in columns})


def of_concentration(runs):
    table = noise(runs, 21, ["value", "null", "null_high"])
    return concentration_figure(table.assign(band="31:20"), "H_peak")


def of_link(runs):
    return link_figure(noise(runs, 21, ["alpha 1-10", "top_share", "h_s"]))


def of_causal(runs):
    kinds = [(q, s) for q in ("causal_drop", "causal_keep") for s in ("final", "embed")]
    table = noise(runs, 1, ["value", "null"])
    return causal_figure(pd.concat([table.assign(quantity=q, site=s) for q, s in kinds]))


@given(polylines)
def test_straight_lines_move_by_less_than_a_tenth_of_a_point_however_long_they_are(shapes):
    found = read(re.search('d="([^"]*)"', compact(f'<path d="{written(shapes)}"/>'))[1])
    assert [closed for _, closed in found] == [closed for _, closed in shapes]
    for (points, _), (wanted, _) in zip(found, shapes, strict=True):
        assert np.abs(np.array(points) - wanted).max() <= 0.05 + 1e-6


def test_curves_keep_hundredths_and_names_that_are_used():
    svg = '<g id="a">\n <path id="b" d="M 0 1.23456 \nC 1 2.34567 3 4 5 6 \n"/>\n '
    svg += '<use xlink:href="#b" x="1.23456"/></g>'
    assert (
        compact(svg)
        == '<g><path id="b" d="M 0 1.23 \nC 1 2.34 3 4 5 6 \n"/><use xlink:href="#b" x="1.23"/></g>'
    )


def test_images_are_drawn_as_before():
    drawn = np.zeros((40, 60, 4), np.uint8)
    drawn[5:20, 5:50] = (0, 114, 178, 255)
    drawn[15:30, 20:40] = (213, 94, 0, 120)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "png")
    svg = compact(
        f'<image xlink:href="data:image/png;base64,\n{base64.b64encode(file.getvalue()).decode()}"/>'
    )
    with Image.open(io.BytesIO(base64.b64decode(re.search('base64,([^"]*)', svg)[1]))) as image:
        assert image.mode == "P"
        found = np.asarray(image.convert("RGBA"), int)
    seen = drawn[..., 3] > 0
    assert np.abs(found - drawn)[seen].max() <= 8
    assert not found[~seen][:, 3].any()


@pytest.mark.parametrize(
    "draw", [of_concentration, *(pytest.param(of, marks=pytest.mark.slow) for of in (of_link, of_causal))]
)
def test_a_panel_of_any_number_of_runs_has_a_bounded_size(draw):
    few, many, more = (to_svg(draw(runs)) for runs in (8, 240, 480))
    count = len(draw(8).axes)
    assert "<image" not in few
    assert many.count("<image") == more.count("<image") == count
    assert len(more) < 1.2 * len(many)
    assert len(more) < 150_000 * count
    assert to_svg(draw(240)) == many


def test_a_point_of_a_line_takes_few_bytes_and_is_no_image_where_lines_are_few():
    one, sixty = (to_svg(of_concentration(runs)) for runs in (4, 60))
    assert "<image" not in sixty
    assert len(sixty) - len(one) < 9 * 56 * 21


def test_single_runs_lie_below_the_lines_drawn_over_them():
    @styled
    def drawn():
        figure, axes = panels(1, 1)
        for _ in range(3):
            axes[0, 0].plot([0, 1], [0, 1])
            many_lines(axes[0, 0], [np.random.default_rng(0).random((2000, 2))])
            markers(axes[0, 0], range(100), range(100))
        return figure

    svg = to_svg(drawn())
    kinds = [kind for kind, _ in groupby(re.findall(r"<(image|path d=\"m[^z\"]*\" clip)", svg))]
    assert [kind[:5] for kind in kinds].count("image") == 1
    assert kinds[0] == "image"


@pytest.mark.slow
def test_the_rows_are_searched_equally_often_for_few_and_many_runs(monkeypatch):
    values, calls = Runs.values, []
    monkeypatch.setattr(
        Runs, "values", lambda *args, **which: calls.append(args[1]) or values(*args, **which)
    )

    def asked(seeds):
        calls.clear()
        runs = synthetic(seeds=range(seeds))
        print_summary(runs, [], Console(file=io.StringIO()))
        assert findings(runs)
        assert len(sections(PAGE, runs)) > 5
        return len(calls)

    assert asked(2) == asked(5) <= 30


def test_a_shared_table_is_made_once_for_some_runs():
    runs, made = synthetic(), []
    assert [runs.once(lambda own: made.append(own)) for _ in range(2)] == [None, None]
    table = made.append
    assert runs.once(table) is runs.once(table)
    assert made[2:] == [runs]


def test_whether_there_are_rows_is_what_values_finds():
    runs = synthetic()
    for asked in (("h_s", "probe"), ("h_s", "activation"), ("none",)):
        assert runs.has(*asked) == (len(runs.values(*asked)) > 0)
    assert runs.has("h_s", set="task")
    assert not runs.has("h_s", set="other")
