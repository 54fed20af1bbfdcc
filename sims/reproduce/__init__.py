"""The paper's toy figures from our runs: what was published, how the two are set beside each other, and the page."""

from sims.reproduce.material import AGAINST, OPEN, SUPPORTS, Finding, Material, Section, gather
from sims.reproduce.page import write
from sims.reproduce.targets import TARGETS, Target, sections

__all__ = [
    "AGAINST",
    "OPEN",
    "SUPPORTS",
    "TARGETS",
    "Finding",
    "Material",
    "Section",
    "Target",
    "gather",
    "sections",
    "write",
]
