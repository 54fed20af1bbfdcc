"""Pages in a browser (Chromium of the system), and the rules of pages that need none."""

import html
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sample_page import LEAD, sample, write

from sims.pages.drawing import drawn
from sims.pages.glossary import MOST, TERMS, terms
from sims.pages.style import panels, styled

HERE = Path(__file__).parent
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
# Wide, with the height of the first screen; and a telephone.
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
# A letter of a figure has 8 points; it is at least so many pixels high.
LETTER, LEAST = 8, 9.5

# Runs in the page and tells its frame what it finds.
MEASURE = """
const scrolls = e => { for (let p = e; p; p = p.parentElement) {
  const o = getComputedStyle(p).overflowX; if (o == "auto" || o == "scroll" || o == "hidden") return true; }
  return false; };
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(
  v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
const behind = e => { for (let p = e; p; p = p.parentElement) {
  const c = numbers(getComputedStyle(p).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
  return [255, 255, 255]; };
const contrast = e => { const a = light(numbers(getComputedStyle(e).color)), b = light(behind(e));
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); };
const shown = elements => elements.map(e => e.outerHTML.slice(0, 90));
window.addEventListener("load", () => {
  const all = [...document.querySelectorAll("body *")];
  const texts = all.filter(e => !e.closest("svg") && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()));
  const panels = [...document.querySelectorAll(".panels svg")];
  const described = e => e.closest('[role=img]')?.getAttribute("aria-label") || e.getAttribute("aria-hidden");
  parent.postMessage({
    frame: window.name, width: innerWidth, scroll: document.documentElement.scrollWidth,
    beyond: shown(all.filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e))),
    header: document.querySelector("header").getBoundingClientRect().bottom,
    low: shown(texts.filter(e => contrast(e) < 4.5)),
    scales: panels.map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width),
    beside: panels.length && new Set(panels.slice(0, 3).map(e => Math.round(e.getBoundingClientRect().top))).size,
    lost: [...document.querySelectorAll('a[href^="#"]')].map(a => a.hash.slice(1))
      .filter(name => !document.getElementById(decodeURIComponent(name))),
    links: [...document.querySelectorAll("a[href]")].map(a => a.getAttribute("href"))
      .filter(h => !/^(#|https:)/.test(h)),
    headings: [...document.querySelectorAll("h1,h2,h3,h4,h5")].map(h => Number(h.tagName[1])),
    silent: [...document.querySelectorAll("svg")].filter(e => !described(e)).length,
    figures: document.querySelectorAll("figure").length, requests: performance.getEntriesByType("resource").length,
    language: document.documentElement.lang,
  }, "*");
});
"""
# Holds the page in a frame of each size, and keeps what they tell.
FRAMES = """<pre id="found"></pre><script>
const found = {}; addEventListener("message", e => { found[e.data.frame] = e.data;
  document.getElementById("found").textContent = JSON.stringify(found); });
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    """What the browser measured at each size; one start for all of them."""
    if not BROWSER:
        pytest.skip("no Chromium on this system")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "page.html").write_text(
        page.read_text().replace("</body>", f"<script>{MEASURE}</script></body>")
    )
    frames = "".join(
        f'<iframe name="{name}" src="page.html" style="width:{w}px;height:{h}px;border:0"></iframe>'
        for name, (w, h) in SIZES.items()
    )
    (folder / "frames.html").write_text(FRAMES + frames)
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=20000",
    ]
    made = subprocess.run(
        [
            BROWSER,
            *options,
            f"--user-data-dir={folder / 'user'}",
            "--dump-dom",
            f"file://{folder / 'frames.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    told = re.search(r'<pre id="found">(.+?)</pre>', made.stdout, re.DOTALL)
    assert told, made.stderr[-2000:]
    measured = json.loads(html.unescape(told[1]))
    assert measured.keys() == SIZES.keys()
    return measured


@pytest.mark.parametrize("size", SIZES)
class TestInABrowser:
    def test_nothing_is_wider_than_the_screen(self, seen, size):
        assert seen[size]["width"] == SIZES[size][0]
        assert seen[size]["scroll"] <= seen[size]["width"]
        assert seen[size]["beyond"] == []

    def test_letters_of_figures_can_be_read(self, seen, size):
        assert len(seen[size]["scales"]) > 10
        assert min(seen[size]["scales"]) * LETTER >= LEAST

    def test_text_stands_out(self, seen, size):
        assert seen[size]["low"] == []

    def test_links_lead_somewhere(self, seen, size, page):
        assert seen[size]["lost"] == []
        assert len(seen[size]["links"]) > 5
        assert [link for link in seen[size]["links"] if not (page.parent / link).exists()] == []

    def test_headings_are_in_order_and_figures_have_words(self, seen, size):
        levels = seen[size]["headings"]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
        assert seen[size]["figures"] > 5
        assert seen[size]["silent"] == 0
        assert seen[size]["language"] == "en"

    def test_nothing_is_requested(self, seen, size):
        assert seen[size]["requests"] == 0


def test_the_head_of_a_page_fits_the_first_screen(seen):
    assert seen["wide"]["header"] <= SIZES["wide"][1]


def test_panels_stand_beside_each_other_or_below(seen):
    assert seen["wide"]["beside"] == 1
    assert seen["narrow"]["beside"] == 3


def palettes():
    """The colours of the light page and those of the dark one."""
    style = (HERE.parents[1] / "sims" / "pages" / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark = (dict(re.findall(r"--(\w+): (#\w+)", block)) for block in blocks[:2])
    return {"light": light, "dark": {**light, **dark}}


def luminance(colour):
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * c for c in digits)
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    r, g, b = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("colour", ["text", "soft", "link", "good", "bad", "open"])
def test_every_colour_of_text_stands_out(name, colour):
    palette = palettes()[name]
    for ground in ("page", "card"):
        pair = sorted((luminance(palette[colour]), luminance(palette[ground])))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


class TestFigures:
    @pytest.fixture
    def figures(self):
        page = sample()
        found = {s.name: s.figure for s in (page.glance, *page.sections) if s.figure is not None}
        assert len(found) > 6
        return found

    @pytest.mark.slow
    def test_no_legend_lies_on_curves(self, figures):
        for name, figure in figures.items():
            figure.draw_without_rendering()
            assert all(axes.get_legend() is None for axes in figure.axes), name
            for legend in figure.legends:
                box = legend.get_window_extent()
                assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes if axes.axison), (
                    name
                )
                assert box.x1 <= figure.bbox.width + 1, name

    @pytest.mark.slow
    def test_every_panel_stands_alone(self, figures):
        for name, figure in figures.items():
            picture = drawn(figure)
            if len(figure.axes) == 1:
                assert picture.panels == (), name
                continue
            assert len(picture.panels) == len([axes for axes in figure.axes if axes.axison]), name
            assert all(axes.get_ylabel() or axes.get_title(loc="left") for axes in figure.axes), name
            widths = {width for _, _, width, _ in picture.panels}
            assert max(widths) - min(widths) < 0.5, name
            shown = [axes for axes in figure.axes if axes.axison]
            for own, (x, _, width, _) in zip(shown, picture.panels, strict=True):
                for other in (axes.get_window_extent() for axes in shown if axes is not own):
                    level = abs(other.y0 - own.get_window_extent().y0) < 1
                    left, right = (72 / figure.dpi * v for v in (other.x0, other.x1))
                    assert not level or right <= x + 1 or left >= x + width - 1, name


@pytest.mark.parametrize(
    ("word", "whole"), [("row", False), ("a name that is much too long for a panel", True)]
)
def test_words_of_rows_stand_at_every_panel_that_has_room(word, whole):
    def rows():
        figure, axes = panels(1, 3, sharey=True)
        axes[0, 0].set_yticks([0, 1], [f"{word} 0", f"{word} 1"])
        return figure

    figure = styled(rows)()
    picture = drawn(figure)
    assert (picture.panels == ()) == whole
    if not whole:
        assert all(
            [t.get_text() for t in axes.get_yticklabels()] == ["row 0", "row 1"] for axes in figure.axes
        )
        assert all(axes.yaxis.get_tick_params()["labelleft"] for axes in figure.axes)
        # A telephone has 390 pixels.
        assert picture.panels[0][2] * 96 / 72 < 358


def test_every_figure_is_drawn_and_none_is_written_as_text(page):
    text = page.read_text()
    assert "&lt;" not in text
    assert text.count("<figure") == text.count('role="img" aria-label=')


def test_words_are_those_of_the_page_and_at_most_six():
    assert [t.name for t in terms(["H_peak of bands", "abandoned", "JSON"])] == ["band", "H_peak"]
    assert [t.name for t in terms(["α"])] == ["α"]
    assert len(terms([t.name for t in TERMS])) == MOST


def test_open_and_decided_statements_differ_in_words(page):
    text, other = page.read_text(), page.with_suffix(".md").read_text()
    assert LEAD in text
    assert LEAD in other
    assert (
        text.count('<span class="badge">decided</span>') == text.count('<span class="badge">open</span>') == 1
    )
    assert "What would decide it: about 9 seeds." in text
    assert "**Open.** H_peak may rise. *What would decide it: about 9 seeds.*" in other


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path):
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "sample_page.py", tmp_path / seed], cwd=HERE, env=environment, check=True
        )
    files = [
        {p.relative_to(tmp_path / seed): p.read_bytes() for p in (tmp_path / seed).rglob("*") if p.is_file()}
        for seed in ("1", "2")
    ]
    assert len(files[0]) > 10
    assert files[0] == files[1]
