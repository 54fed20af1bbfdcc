"""Try the laws on estimators of public packages and write what came out to docs/public-estimators.md.

    python tests/studies/public_estimators.py [--out docs/public-estimators.md] [--only NAME …] [--examples 30]

What is not installed is left out, and the page says so. All of it: pip install powerlaw weightwatcher scikit-learn
scikit-dimension dimensionality. Some minutes on one core, most of them in powerlaw.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In place of this folder, whose coverage.py is not the package of that name.
sys.path[0] = str(ROOT)

from spectra.testing.public import PUBLIC, PublicEstimator  # noqa: E402
from spectra.testing.report import Report  # noqa: E402

# Longer lines of numbers are cut.
WIDTH = 150
HEAD = """# Estimators of other packages, under the same laws

For people who use one of these estimators and want to know which laws of its kind it obeys ([the
laws](laws.md)). Written by `python tests/studies/public_estimators.py` ({examples}
examples per law, tolerance 1e-8). Each estimator is called as in its documentation, by the wrappers of
`spectra.testing.public`. Inputs below a documented minimal size are left out.

A broken law is not necessarily a defect. Many of these functions use another convention, shrink intentionally, or leave
the checking of input to their caller; such cases are explained and counted as expected. The other broken laws may
surprise a user. A law that holds on {examples} examples is not proved.

| estimator | package | tried as | laws | broken | expected |
|---|---|---|---|---|---|
"""
REPLAY = """
To repeat one of them, or use more examples:

    >>> from spectra.testing.public import PUBLIC
    >>> report = PUBLIC["scipy.stats.entropy"].check(laws=["bounds", "negative energy"], max_examples=20)
    scipy.stats.entropy as effective rank: 1 of 2 laws broken (tolerance 1e-08)
      ok    bounds                 20 examples
      FAIL  negative energy        first seen at example 1, then made small
              law      a spectrum with a negative value is refused
              found    an energy is negative: it returned 1 instead of raising ValueError
              example  eigenvalues = [-1]

torchmetrics (1.9.0) has no effective rank and no estimator of a spectrum, and is therefore not listed.
"""


def row(estimator: PublicEstimator, report: Report) -> str:
    ran = sum(result.outcome != "skipped" for result in report.results)
    expected = sum(result.law in estimator.by_design for result in report.failures)
    anchor = re.sub(r"[^\w -]", "", estimator.name.lower()).replace(" ", "-")
    what = f"{estimator.kind} of {estimator.takes}"
    return (
        f"| [{estimator.name}](#{anchor}) | {estimator.package} {estimator.version} | {what} | {ran} "
        f"| {len(report.failures)} | {expected} |\n"
    )


def section(estimator: PublicEstimator, report: Report) -> str:
    notes = [
        f"- {result.law}: {estimator.by_design[result.law]}."
        for result in report.failures
        if result.law in estimator.by_design
    ]
    said = [f"## {estimator.name}", f"`{estimator.call}`"]
    if notes:
        said.append("Expected:\n\n" + "\n".join(notes))
    if estimator.remark:
        said.append(estimator.remark)
    return "\n\n".join([*said, f"```text\n{folded(str(report))}\n```"]) + "\n"


def folded(text: str) -> str:
    """The text of a report with the laws that hold counted, and long lines of numbers cut."""
    lines, held = [], 0
    for line in [*text.splitlines(), ""]:
        if line.startswith("  ok "):
            held += 1
        elif "pass torch=True" not in line:
            if held:
                lines.append(f"  ...   {held} {'laws hold' if held != 1 else 'law holds'}")
            held = 0
            lines.append(line if len(line) <= WIDTH or "example" not in line else f"{line[:WIDTH]} …")
    return "\n".join(lines).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "public-estimators.md")
    parser.add_argument("--only", nargs="+", choices=list(PUBLIC), default=list(PUBLIC), metavar="NAME")
    parser.add_argument("--examples", type=int, default=30)
    options = parser.parse_args()
    rows, sections, absent = "", "", []
    for estimator in (PUBLIC[name] for name in options.only):
        if estimator.version is None:
            absent.append(f"{estimator.name} ({estimator.package})")
            print(f"not installed: {absent[-1]}", file=sys.stderr)
            continue
        report = estimator.check(max_examples=options.examples, quiet=True)
        print(f"{estimator.name}: {len(report.failures)} broken", file=sys.stderr, flush=True)
        rows, sections = rows + row(estimator, report), sections + "\n" + section(estimator, report)
    left_out = f"\nNot installed here, and left out: {', '.join(absent)}.\n" if absent else ""
    page = HEAD.format(examples=options.examples) + rows + left_out + REPLAY + sections
    options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
