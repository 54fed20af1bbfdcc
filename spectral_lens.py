"""Hold the version of the project, for its four packages and for its wheel."""

__version__ = "0.1.0"
