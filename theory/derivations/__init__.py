"""Execute sympy derivations, and compare the results with the formulas of the numerics."""
