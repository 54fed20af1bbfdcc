"""Placeholder, replaced as the package grows."""
