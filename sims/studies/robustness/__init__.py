"""Robustness: which conclusions move with the window, the pooling, the samples or the data?"""
