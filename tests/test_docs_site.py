"""The documentation site, without building it: every page is in the navigation, every link and name resolves."""

import importlib
import json
import re
import unicodedata
from pathlib import Path

import pytest
import yaml

import spectral_lens

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Pages that the site makes from files outside docs/ (docs/hooks.py).
OUTSIDE = ["CONTRIBUTING.md", "CHANGELOG.md"]
FINDINGS = (DOCS / "findings.md").read_text("utf-8")
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
FENCE = re.compile(r"^( *)```.*?^\1```$|^(?: {4}|\t)[^\n]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+(?:\([^()]*\))?)\)")


def made():
    """The pages of the site that are no files in docs/."""
    stems = {folder: sorted((ROOT / folder).glob("*.py")) for folder in ("notebooks", "examples")}
    return OUTSIDE + [f"{folder}/{path.stem}.md" for folder, paths in stems.items() for path in paths]


def listed(entries):
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else listed(value)


def prose(path):
    """The text of a page without code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text("utf-8")))


def anchor(heading):
    """The anchor of a heading, as GitHub and the site (docs/hooks.py) make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
    text = unicodedata.normalize("NFC", text).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(path):
    text = re.sub(r"^( *)```.*?^\1```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = [anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return set(found) | set(re.findall(r"\{ *#([\w-]+)", text)) | set(re.findall(r'id="([^"]+)"', text))


def public():
    """Every name that the packages export, and every module of closed forms and simulations."""
    for module in ("spectra", "spectra.testing", "toymodel", "theory", "sims.monitor", "sims"):
        for name in importlib.import_module(module).__all__:
            if name != "__version__":
                yield f"{module}.{name}"
    for path in sorted((ROOT / "theory").glob("[fs]*/[a-z]*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


def shown():
    """The names that the pages of the API show, with repetitions."""
    return [
        name
        for page in sorted((DOCS / "api").glob("*.md"))
        for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    ]


def test_the_navigation_lists_every_page_once():
    wanted = [str(page.relative_to(DOCS)) for page in PAGES] + made()
    assert sorted(listed(SITE["nav"])) == sorted(wanted)


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / "README.md", *(ROOT / name for name in OUTSIDE)], ids=lambda p: p.name
)
def test_every_link_of_the_page_resolves(path):
    for link in LINK.findall(prose(path)):
        if re.match(r"https?://|mailto:", link):
            continue
        file, _, part = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists() or drawn(target), f"{path}: {link} leads to no file"
        if part and target.suffix == ".md":
            assert part in anchors(target), f"{path}: {link} leads to no heading"


def drawn(target):
    """Return whether a file is a picture of the gallery, which is made with the site."""
    gallery = DOCS / "gallery"
    shown = f"]({target.name})\n\n```python" in (gallery / "index.md").read_text("utf-8")
    return target.parent == gallery and target.suffix == ".svg" and shown


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    code = "    [d](code.md)\n```\n[c](code.md)\n```\n"
    page.write_text(f"# A title, with α/β\n{code}[a](#a-title-with-αβ) [b](none.md)\n", "utf-8")
    assert anchors(page) == {"a-title-with-αβ"}
    assert LINK.findall(prose(page)) == ["#a-title-with-αβ", "none.md"]
    with pytest.raises(AssertionError, match=r"none\.md leads to no file"):
        test_every_link_of_the_page_resolves(page)
    page.write_text("# A title\n[a](#another-title)\n", "utf-8")
    with pytest.raises(AssertionError, match="no heading"):
        test_every_link_of_the_page_resolves(page)


def test_the_api_shows_every_public_name_once():
    # That each of them exists: bridge/test_documented_code.py.
    names = shown()
    assert sorted(set(names)) == sorted(names)
    assert [name for name in public() if name not in names] == []


def plain(text):
    """Text with one kind of minus sign and no line breaks."""
    return " ".join(text.replace("−", "-").split())


def test_every_finding_has_the_interval_of_the_page_that_it_links_to():
    sections = re.findall(r"^## \[[^\]]*\]\(([^)]*)\)\n(.*?)(?=^## )", FINDINGS, re.MULTILINE | re.DOTALL)
    assert len(sections) >= 6
    for page, text in sections:
        found = plain((DOCS / page).read_text("utf-8"))
        rows = re.findall(r"^\| (?!finding|---)(.*) \|$", text, re.MULTILINE)
        assert rows
        for row in rows:
            finding, number, seeds, decided = row.split(" | ")
            assert re.fullmatch(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", plain(number)), finding
            assert plain(number) in found, f"{page} has no {number}: {finding}"
            low, high = (float(end) for end in plain(number).partition("[")[2][:-1].split(", "))
            assert decided.startswith("yes") or low <= 0 <= high, finding
            known = {
                "markov.md": "5",
                "edge.md": "4",
                "grokking.md": "48",
                "post-training.md": "56",
                "pruning.md": "5",
                "published.md": "45",
                "rates.md": "5",
                "theory-against.md": "368",
            }
            assert seeds in known.get(page, "3")


def test_what_is_loaded_when_a_page_is_viewed_comes_with_the_site():
    assert SITE["theme"]["font"] is False
    for path in [*PAGES, *(ROOT / name for name in OUTSIDE)]:
        assert re.findall(r"!\[[^\]]*\]\((?:https?:)?//[^)]*\)", path.read_text("utf-8")) == [], path


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == spectral_lens.__version__
    assert citation["type"] == "software"
    (paper,) = citation["references"]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert " ".join(paper["title"].split()) in " ".join(readme.split())
    assert all(author["family-names"] in readme for author in paper["authors"])
    assert json.dumps(paper["identifiers"]).count("2605.05683") == 1
