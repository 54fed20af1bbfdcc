"""Closed forms, one file a family. Simulators and direct measurements never import from here what they check."""
