"""The paper's figures from our runs: what was published of the toy, how the two are set beside each other, the page."""

from sims.reproduce.material import AGAINST, OPEN, SUPPORTS, Finding, Material, Section, gather
from sims.reproduce.page import write
from sims.reproduce.targets import TARGETS, Target, every, sections

__all__ = [
    "AGAINST",
    "OPEN",
    "SUPPORTS",
    "TARGETS",
    "Finding",
    "Material",
    "Section",
    "Target",
    "every",
    "gather",
    "sections",
    "write",
]
