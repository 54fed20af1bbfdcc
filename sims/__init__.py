"""The experiment: measuring runs, sweeps, records, figures, reports and the command line."""
