"""The commands of `speclens`: options, help and exit codes, one module each; `run` imports what does the work."""
