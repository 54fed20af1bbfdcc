"""Fourier concentration on many bands: how far do two published bands speak for the rest?"""
