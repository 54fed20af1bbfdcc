"""Files, errors, processes, signals and the machine."""
