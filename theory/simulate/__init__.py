"""Simulate each claim's assumptions: vectorised, explicit generators, errors where they sample."""
