"""Grokking: do signals of training warn that a run will generalise late, before it does, and only where it does?"""
