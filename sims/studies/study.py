"""The registry of studies: figures and profiles are registered by decorator, pages and commands read them from here.

A study is a folder of `sims.studies` with a `study.py` that holds `STUDY`, and its line in `STUDIES`. A figure is one
function with a decorator; a profile (a named set of runs) likewise.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sims.pages.page import Section
from sims.system.errors import MeasureError, QueryError

# The folders of studies whose figures stand on a page.
STUDIES = (
    "overview",
    "paper",
    "bands",
    "robustness",
    "carry_over",
    "look",
    "markov",
    "edge",
    "grokking",
    "lifecycle",
    "phases",
    "pruning",
    "post_train",
    "rates",
)
# The page to which several studies contribute.
REPRODUCTION = "reproduction"
# Of a finding: it neither supports nor contradicts what was published.
OPEN = "open"
# The rank of a figure that says none.
LAST = 100

_Make = TypeVar("_Make", bound=Callable[..., Any])


def _always(_: Any) -> bool:
    return True


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure (or table) of a page.

    Attributes:
        name: as a command takes it.
        title: of its section.
        make: makes the section from the data of the page.
        order: place on the page.
        rank: place of its findings at the top of the page; figures with the main statements have a low one.
        runs: which set of runs of a profile it needs; None where no profile has them.
        stages: which stages of these runs it needs; None for all.
        refused: why language models never allow it; empty where they do.
        applies: whether it is made of some data when all figures are asked for.
    """

    name: str
    title: str
    make: Callable[[Any], Section]
    order: int
    rank: int = LAST
    runs: str | None = None
    stages: tuple[str, ...] | None = None
    refused: str = ""
    applies: Callable[[Any], bool] = _always

    def section(self, data: Any) -> Section:
        """Make the section; one that the data do not allow says why."""
        try:
            made = self.make(data)
        except MeasureError as error:
            made = Section(text=f"Not made from these runs: {error}.")
        findings = tuple(replace(f, figure=self.name) for f in made.findings)
        return replace(made, name=self.name, title=made.title or self.title, findings=findings)


@dataclass(frozen=True, eq=False)
class Study:
    """One question, with its figures and profiles.

    Attributes:
        name: of its folder.
        page: the page that shows its figures ("report", "reproduction", "carry-over").
        modules: modules of the folder that register figures and profiles when they are imported.
    """

    name: str
    page: str
    modules: tuple[str, ...] = ()
    figures: dict[str, Figure] = field(default_factory=dict)
    profiles: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def figure(
        self,
        name: str,
        title: str,
        *,
        order: int,
        rank: int = LAST,
        runs: str | None = None,
        stages: tuple[str, ...] | None = None,
        refused: str = "",
        applies: Callable[[Any], bool] = _always,
    ) -> Callable[[_Make], _Make]:
        """Register a function that makes a section from the data of the page.

        Args:
            name, title, order, rank, runs, stages, refused, applies: see `Figure`.

        Raises:
            ValueError: the study has a figure of this name.
        """

        def register(make: _Make) -> _Make:
            if name in self.figures:
                raise ValueError(f"study {self.name} has a figure {name!r} already; give it another name")
            self.figures[name] = Figure(name, title, make, order, rank, runs, stages, refused, applies)
            return make

        return register

    def profile(self, make: _Make) -> _Make:
        """Register a function without arguments that returns a profile, under the name of the function."""
        self.profiles[make.__name__] = make
        return make


_ADDED: dict[str, Study] = {}


def studies(page: str) -> list[Study]:
    """Return the studies with figures on a page, their figures and profiles registered."""
    found = []
    for name in STUDIES:
        study: Study = importlib.import_module(f"sims.studies.{name}.study").STUDY
        if study.page == page:
            for module in study.modules:
                importlib.import_module(f"sims.studies.{name}.{module}")
            found.append(study)
    return [*found, *(study for study in _ADDED.values() if study.page == page)]


@contextmanager
def added(study: Study) -> Iterator[Study]:
    """Add a study that is not a folder of this package, for a while."""
    _ADDED[study.name] = study
    try:
        yield study
    finally:
        del _ADDED[study.name]


def figures(page: str) -> dict[str, Figure]:
    """Return the figures of a page by name, in the order of the page.

    Raises:
        ValueError: two studies have a figure of one name.
    """
    found = [f for study in studies(page) for f in study.figures.values()]
    names = [f.name for f in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two studies of page {page!r} have a figure {twice[0]!r}; rename one")
    return {f.name: f for f in sorted(found, key=lambda f: f.order)}


def profiles(page: str) -> dict[str, Callable[[], Any]]:
    """Return the profiles of the studies of a page by name."""
    return {name: make for s in studies(page) for name, make in s.profiles.items()}


def check_names(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse a name that the registry does not have.

    Args:
        what: what is named, such as "--profile".
        given, known: names.

    Raises:
        QueryError: naming those that there are.
    """
    for name in given:
        if name not in known:
            raise QueryError(f"{what} {name!r} does not exist; choose from {', '.join(known)}")


def sections(page: str, data: Any, names: Iterable[str] | None = None) -> list[Section]:
    """Make sections of a page in its order.

    Args:
        data: what the figures of the page are made from.
        names: of figures; by default all that apply to the data.
    """
    chosen = None if names is None else set(names)
    return [
        figure.section(data)
        for figure in figures(page).values()
        if (figure.applies(data) if chosen is None else figure.name in chosen)
    ]
