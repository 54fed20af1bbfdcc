"""One file, one question: which runs, measured how."""
