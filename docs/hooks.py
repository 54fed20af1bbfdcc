"""Build the parts of the documentation site that are made from code: notebooks, pictures, formulas.

MkDocs calls the functions `on_…` (mkdocs.yml, `hooks`). What they make is never stored in the repository.
"""

from __future__ import annotations

import html
import io
import os
import posixpath
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docstrings import shown_names
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from pymdownx.slugs import slugify

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Pages of the repository that lie outside docs/.
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md")
# A picture of the gallery and the code below it, which draws it.
ENTRY = re.compile(r"^!\[[^\]]*\]\(([\w-]+\.svg)\)\n+```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A dotted name as code, but not as the text of a link.
CODE_NAME = re.compile(r"(?<![\[`])`((?:spectra|toymodel|theory|sims)\.[\w.]+)`(?!`)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# What a browser would load from elsewhere when it shows a page (links that a reader follows are not loaded).
LOADED = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|<link\b[^>]*\brel="stylesheet"'
    r'[^>]*\bhref="(?:https?:)?//'
)
SECONDS = 300
_MADE: dict[str, Any] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name headings as GitHub does, so that links to them work in both places."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made from the repository: notebooks, examples, pictures and the pages outside docs/."""
    made: dict[str, str | bytes] = {name: (ROOT / name).read_text("utf-8") for name in OUTSIDE}
    for path in sorted((ROOT / "examples").glob("*.py")):
        made[f"examples/{path.stem}.md"] = example_page(path)
    for path in sorted((ROOT / "notebooks").glob("*.py")):
        made |= _once(f"{path}\n{path.read_text('utf-8')}", lambda path=path: notebook_page(path))
    gallery = (ROOT / "docs" / "gallery" / "index.md").read_text("utf-8")
    made |= _once(gallery, lambda: gallery_pictures(gallery))
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Link names to the API, and point links from or to files outside docs/ to the pages that the site has of them."""
    source = page.file.src_uri
    folder = "" if source in OUTSIDE else posixpath.dirname(f"docs/{source}")

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[1]))
        if target in OUTSIDE or not (ROOT / target).is_file():
            uri = target if target in OUTSIDE else None
        elif target.startswith(("examples/", "notebooks/")):
            uri = target.removesuffix(".py") + ".md"
        else:
            uri = target.removeprefix("docs/")
        return f"]({posixpath.relpath(uri, posixpath.dirname(source) or '.')}" if uri else found[0]

    def reference(found: re.Match[str]) -> str:
        return f"[{found[0]}][{found[1]}]" if found[1] in names else found[0]

    names = set(shown_names())
    return CODE_NAME.sub(reference, re.sub(r"\]\(([\w./-]+)", link, markdown))


def on_page_content(content: str, **_: Any) -> str:
    """Write formulas as MathML, which browsers show without a script."""
    from sims.pages.mathml import mathml

    def formula(found: re.Match[str]) -> str:
        return mathml(html.unescape(found[3]), "block" if found[2] == "[" else "inline")

    return FORMULA.sub(formula, content)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that loads anything from elsewhere when it is viewed."""
    for path in Path(config.site_dir).rglob("*.html"):
        if found := LOADED.search(path.read_text("utf-8")):
            raise PluginError(f"{path} loads from the network: {found[0]}…; keep a copy in docs/ instead")


def example_page(path: Path) -> str:
    """Return a page that shows an example script."""
    return f"# {path.stem.replace('_', ' ').capitalize()}\n\n```python\n{path.read_text('utf-8')}```\n"


def notebook_page(path: Path) -> dict[str, str | bytes]:
    """Run a notebook and return its page and its pictures, by name.

    With SPECLENS_DOCS_QUICK set it is not run, and its page shows code only.
    """
    import jupytext
    from nbconvert import MarkdownExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor, ExecutePreprocessor
    from traitlets.config import Config

    notebook, name = jupytext.read(path), path.stem
    notebook.metadata["language_info"] = {"name": "python"}
    if not os.environ.get("SPECLENS_DOCS_QUICK"):
        with tempfile.TemporaryDirectory() as folder:
            # By sockets in the folder: a free port may be taken by another process before the kernel binds it.
            sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
            run = ExecutePreprocessor(timeout=SECONDS, startup_timeout=SECONDS, config=sockets)
            run.preprocess(notebook, {"metadata": {"path": folder}})
        CoalesceStreamsPreprocessor(enabled=True).preprocess(
            notebook, {}
        )  # one block for what a cell printed
    resources = {"unique_key": name, "output_files_dir": f"{name}_files"}
    text, found = MarkdownExporter().from_notebook_node(notebook, resources)
    pictures = {f"notebooks/{file}": data for file, data in found["outputs"].items()}
    return {f"notebooks/{name}.md": text, **pictures}


def gallery_pictures(page: str) -> dict[str, str | bytes]:
    """Run the entries of the gallery, each by itself, and return their pictures by name."""
    return {f"gallery/{name}": drawn(code) for name, code in ENTRY.findall(page)}


def drawn(code: str) -> bytes:
    """Run code that draws one figure with pyplot and return it as SVG."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    style = {"figure.figsize": (5.2, 3.2), "figure.constrained_layout.use": True, "svg.hashsalt": "gallery"}
    with plt.rc_context(style):
        plt.close("all")
        exec(compile(code, "the gallery", "exec"), {"__name__": "__main__"})
        if len(plt.get_fignums()) != 1:
            raise PluginError(
                f"an entry of the gallery drew {len(plt.get_fignums())} figures, not one:\n{code}"
            )
        file = io.BytesIO()
        plt.gcf().savefig(file, format="svg", metadata={"Date": None})
        plt.close("all")
    return file.getvalue()


def _once(key: str, make: Any) -> Any:
    """Return what was made from the same text before: `serve` builds the site anew after each change."""
    if key not in _MADE:
        _MADE[key] = make()
    return _MADE[key]
