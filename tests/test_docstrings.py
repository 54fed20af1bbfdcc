"""Docstrings of the libraries: each opens with a verb, and each exported name shows its use."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("spectra", "toymodel", "theory")
EXPORTS = (
    *("spectra", "spectra.alignment", "spectra.nulls", "spectra.testing", "toymodel"),
    *(
        "theory",
        "theory.cases",
        "theory.claim",
        "theory.compare",
        "theory.predictions",
        "theory.values",
        "theory.roots",
    ),
    *(
        f"theory.formulas.{name}"
        for name in (
            *("dynamics", "entropy", "features", "fourier", "law"),
            *("lms", "markov", "matrices", "optimiser", "tying"),
        )
    ),
    *(
        f"theory.simulate.{name}"
        for name in (
            *("class_means", "enumeration", "feature_table", "features", "flows", "lms"),
            *("readout", "spiked", "walk_draws", "walks"),
        )
    ),
)
# Openings that are no imperative: articles, pronouns and question words. Verbs in -s ("Returns") and plurals are
# excluded by their ending.
NO_VERBS = {
    *("a", "an", "the", "this", "that", "one", "all", "every", "each", "some", "any"),
    *("what", "which", "whether", "how", "where", "when", "why", "its"),
}


def _public(package: str) -> Iterator[tuple[str, str | None]]:
    """(name, docstring) of every public function, class, method and property of a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = str(path.relative_to(ROOT))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            yield f"{module}:{node.name}", ast.get_docstring(node)
            for member in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    yield f"{module}:{node.name}.{member.name}", ast.get_docstring(member)


def _opens_with_verb(docstring: str | None) -> bool:
    word = (docstring or "").split(maxsplit=1)[0:1]
    first = word[0].strip(",:;.") if word else ""
    return (
        first.isalpha()
        and first.istitle()
        and first.lower() not in NO_VERBS
        and (first.endswith("ss") or not first.endswith("s"))
    )


def _is_interface(value: object) -> bool:
    """Return whether a class is abstract: its subclasses show its use."""
    return inspect.isabstract(value) or getattr(value, "_is_protocol", False)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_docstring_opens_with_a_verb(package: str) -> None:
    named = list(_public(package))
    assert len(named) > 50
    assert [name for name, docstring in named if not _opens_with_verb(docstring)] == []


@pytest.mark.parametrize("name", EXPORTS)
def test_every_exported_name_shows_its_use(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    values = {n: getattr(module, n) for n in exported}
    # Without __all__, what a module imports or derives (constants, type aliases) is not its export.
    used = {
        n: v
        for n, v in values.items()
        if inspect.isfunction(inspect.unwrap(v)) or inspect.isclass(v)
        if hasattr(module, "__all__") or v.__module__ == name
    }
    assert used
    assert [n for n, v in used.items() if ">>>" not in (v.__doc__ or "") and not _is_interface(v)] == []


def test_the_heuristic_tells_verbs_from_the_rest() -> None:
    good = ["Return x.", "Pass on."]
    bad = [None, "", "The x.", "Returns x.", "(n, d) array", "What x is.", "Values of x.", "return x."]
    assert [_opens_with_verb(text) for text in [*good, *bad]] == [True] * 2 + [False] * 8
