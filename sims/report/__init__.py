"""One self-contained page for a folder of runs."""

from sims.report.findings import nothing_to_report, report_runs
from sims.report.page import write_report
from sims.report.terminal import print_summary

__all__ = ["nothing_to_report", "print_summary", "report_runs", "write_report"]
