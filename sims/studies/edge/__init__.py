"""Spectral edge: does a rolling window of updates have one beyond noise, and does it do what was published?"""
