"""The page writer: one form for all pages, equal bytes for equal content, and nothing that vanishes."""

import math
import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from sims.pages.number import ABSENT, cell, compact, interval, listed, number, scientific, significant
from sims.pages.page import Cells, Page, Picture, Section, Text
from sims.pages.style import (
    COLOURS,
    colour,
    dashes,
    in_order,
    marker,
    panel_grid,
    panels,
    styled,
    to_png,
    to_svg,
)
from sims.pages.table import Table
from sims.pages.terminal import rich_table, toned
from sims.pages.write import write_page
from sims.studies.overview.figures import link_figure, loss_figure
from sims.studies.overview.findings import report_runs
from sims.studies.overview.page import write_report
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group


@styled
def drawn():
    figure, axes = panels(1, 2)
    for ax in axes[0]:
        ax.plot([1, 2], [3, 1], label="a line")
        ax.fill_between([1, 2], [1, 1], [2, 3], alpha=0.5)
    axes[0, 0].legend()
    return figure


def page():
    table = Table(("what", "value", "figure"), (("a|b", "1.0", "fig1"), ("yes", "2.0", "fig1")), links=(2,))
    return Page(
        title="A page",
        subtitle="of a test",
        warnings=["beware & read"],
        findings=["it came out"],
        sections=[
            Section(
                name="fig1",
                title="First",
                text="a < b",
                figure=drawn(),
                caption="a caption",
                table=table,
                tables={"fig1-all": pd.DataFrame({"x": [1, 2], "y": [0.1, math.nan]})},
            ),
            Section(
                title="Second",
                figure=drawn(),
                blocks=(
                    Text("yes: indeed", "good"),
                    Picture(to_svg(drawn())),
                    Cells(Table.of_facts([("tested", "60 cases\nno more")])),
                ),
            ),
        ],
        provenance=[("command", "a test")],
        tones={"yes": "good"},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folders of the same page, written twice."""
    out = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for folder in out:
        write_page(page(), folder / "page.html", folder / "page.md", files=folder / "page")
    return out


class TestWriting:
    def test_equal_content_gives_equal_bytes(self, written):
        files = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in written]
        names = {"page.html", "page.md", "page/fig1.svg", "page/fig1.png", "page/fig1-all.csv"}
        assert set(map(str, files[0])) == names
        assert files[0] == files[1]

    def test_html_stands_alone_and_its_ids_are_unique(self, written):
        text = (written[0] / "page.html").read_text()
        # A figure of two panels and a legend of one entry is drawn once and shown through three windows.
        assert text.count("<svg") == 2 * 3 + 1
        assert text.count("<use href") == 2 * 2
        assert not re.search(r"<script|<link|<img|src=", text)
        ids = re.findall(r' id="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)

    def test_content_is_escaped_and_verdicts_have_their_tone(self, written):
        text = (written[0] / "page.html").read_text()
        assert "beware &amp; read" in text
        assert "<p>a &lt; b</p>" in text
        assert '<td class="text good">yes</td>' in text
        assert '<p class="good">yes: indeed</p>' in text
        assert '<a href="#fig1">fig1</a>' in text

    def test_markdown_has_the_same_content(self, written):
        text = (written[0] / "page.md").read_text()
        for part in (
            "# A page",
            "of a test",
            "> beware & read",
            "1. it came out",
            "| a\\|b | 1.0 |",
            "a caption",
        ):
            assert part in text
        assert "![First](page/fig1.svg)" in text
        assert "- tested: 60 cases; no more" in text

    def test_a_page_without_files_writes_none(self, tmp_path):
        write_page(page(), tmp_path / "new" / "page.html")
        assert [p.name for p in tmp_path.rglob("*.*")] == ["page.html"]

    def test_a_figure_is_the_same_file_each_time(self, tmp_path):
        assert to_svg(drawn()) == to_svg(drawn())
        for name in "ab":
            to_png(drawn(), tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        assert not plt.get_fignums()

    def test_blocks_come_in_the_order_of_the_page(self):
        section = Section(text="t", table=Table((), ()), blocks=(Text("last"),))
        kinds = [type(block) for block in section.content(Picture("<svg/>"))]
        assert kinds == [Picture, Text, Cells, Text]

    def test_a_terminal_shows_verdicts_in_colour(self):
        table = Table(("what", "verdict"), (("[a]", "holds"),))
        assert len(rich_table("title", table, {"holds": "good"}).columns) == 2
        assert toned("holds", {"holds": "good"}) == "[green]holds[/]"
        assert toned("[a]", {}) == "\\[a]"


def test_negative_numbers_have_a_minus_sign_on_a_page_and_a_hyphen_in_its_files(tmp_path):
    """Ranges, exponents, names, addresses and the command that made the page keep their hyphens."""
    table = Table(("what", "Δ [95 %]"), (("run-3", "-0.12 [-0.2, -.1]"), ("10-40", "1e-05")))
    made = Page(
        title="A page",
        lead="It falls (-0.5).",
        links=[("runs", "../-3/")],
        sections=[Section(name="one", title="One", table=table)],
        provenance=[("command", "speclens ls --where -1")],
    )
    text = write_page(made, tmp_path / "index.html", tmp_path / "tables.md").read_text("utf-8")
    assert "−0.12 [−0.2, −.1]" in text
    assert "It falls (−0.5)." in text
    for kept in ("run-3", "10-40", "1e-05", 'href="../-3/"', "--where -1"):
        assert kept in text
    assert "-0.12 [-0.2, -.1]" in (tmp_path / "tables.md").read_text("utf-8")


class TestNumbers:
    def test_missing_numbers_are_dashes(self):
        for write in (number, significant, compact, scientific, cell):
            assert write(math.nan) == ABSENT
        assert cell(None) == cell(pd.NA) == ABSENT
        assert interval(math.nan, 1, 2) == ABSENT

    def test_forms(self):
        assert number(1.23456) == "1.235"
        assert significant(0.00123456) == "0.00123"
        assert [compact(v) for v in (0.12345, 999.5, 12345.6)] == ["0.123", "1000", "12346"]
        assert [scientific(v) for v in (0.0, 0.5, 1e-5)] == ["0", "0.500", "1.0e-05"]
        assert cell("text") == "text"
        assert listed([1, 2.5, 3], limit=2) == "1, 2.5, … (3 in all)"

    def test_intervals(self):
        assert interval(1, 0.5, 1.5) == "1.000 [0.500, 1.500]"
        assert interval(1, math.nan, math.nan, 1) == "1.0"
        assert interval(1, -math.inf, 2, 1) == "1.0 [−∞, 2.0]"
        assert interval(1, 0, 2, write=compact) == "1 [0, 2]"


class TestStyle:
    def test_a_stage_without_a_colour_gets_one_that_no_stage_has(self):
        assert colour("made_up") == colour("made_up")
        assert colour("made_up") not in COLOURS.values()
        assert in_order(["made_up", "rope", "baseline", "rope", "other"]) == [
            "baseline",
            "rope",
            "made_up",
            "other",
        ]

    def test_any_batch_size_has_a_line_and_a_marker(self):
        sizes = range(1, 40)
        assert all(dashes(size, sizes) and marker(size, sizes) for size in sizes)
        assert dashes(7, [16, 64]) == "solid"

    def test_an_empty_table_is_written(self):
        assert Table.of_frame(pd.DataFrame({"a": [], "b": []})).rows == ()


@pytest.mark.slow
def test_a_report_of_small_bands_leaves_out_the_task_band(tmp_path, tiny_run, tiny_measure):
    # All frequencies of a band of five states are in the task band: there is no H_S to draw.
    measuring = tiny_measure(bands=((5, 5),), training_bands=0)
    assert not run_group([tiny_run(seed=s) for s in (0, 1)], measuring, tmp_path)
    runs, notes = report_runs(tmp_path)
    page = write_report(tmp_path, runs, notes).read_text()
    assert "H_peak over training" in page
    assert "H_S over training" not in page


@pytest.mark.parametrize(
    "draw", [loss_figure, lambda table: link_figure(table.rename(columns={"value": "h_s"}))]
)
def test_a_figure_has_as_many_elements_for_forty_seeds_as_for_two(draw):
    def elements(seeds):
        rows = [
            {"run_id": str(seed), "stage": "rope", "batch_size": 8, "seed": seed, "step": k, "tokens": k}
            | {"value": 1 + k + seed, "top_share": k / 9}
            for seed in range(seeds)
            for k in (1, 2, 3)
        ]
        return len(re.findall("<path|<image", to_svg(draw(pd.DataFrame(rows)))))

    assert elements(40) - elements(2) < 20


def test_no_panel_is_told():
    with pytest.raises(MeasureError, match="there is nothing to draw"):
        panel_grid(0)


def test_the_lowest_panel_of_each_column_has_numbers_and_a_name_on_its_axis():
    figure, axes = panel_grid(3, 2, xlabel="block", ylabel="α", sharex=True)
    assert [ax.get_xlabel() for ax in axes] == ["", "block", "block"]
    assert [ax.get_ylabel() for ax in axes] == ["α", "", "α"]
    shown = [any(tick.label1.get_visible() for tick in ax.xaxis.get_major_ticks()) for ax in axes]
    assert shown == [False, True, True]
    assert [ax.get_visible() for ax in figure.axes] == [True, True, True, False]
    plt.close(figure)
