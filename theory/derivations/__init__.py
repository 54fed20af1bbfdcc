"""Executed sympy derivations: what sympy returns is compared with the formula the numerics use."""
