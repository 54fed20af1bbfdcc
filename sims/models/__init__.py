"""Models: everything that can be measured, behind one protocol."""
