"""`speclens bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sims.system.files import check_file


@dataclass(frozen=True)
class Bench:
    """Time fast implementations against their slow references, and compare their results.

    Examples:
        speclens bench
        speclens bench --quick --out bench.json
    """

    quick: bool = False
    """Small sizes: seconds instead of minutes, and no goals."""
    out: Path | None = None
    """Also write the rows, with versions and device, to this JSON file."""
    json: bool = False
    """One JSON object on stdout in place of lines; these go to stderr."""

    def __post_init__(self) -> None:
        if self.out is not None:
            check_file(self.out)

    def run(self) -> int:
        """Run all cases; return 0, or 1 when a goal was missed."""
        from sims.bench import benchmark, spectra, toy  # noqa: F401  (spectra and toy register their cases)
        from sims.pages.answer import answering
        from sims.system.files import write_json
        from sims.system.provenance import provenance

        with answering(self.json) as answer:
            rows = benchmark.run_benchmarks(self.quick)
            found = {"rows": [r.__dict__ for r in rows], "provenance": provenance("cpu")}
            if answer is not None:
                answer |= found
        if self.out is not None:
            write_json(self.out, found)
        return 0 if all(r.reached for r in rows) else 1
