"""Pruning of any `Subject`: how many weights of each matrix become zero, and which."""
