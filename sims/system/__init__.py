"""System: files, errors, processes, signals and this machine."""
