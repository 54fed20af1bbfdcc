"""The package as a whole: what its import loads."""

import subprocess
import sys

# scipy loads a submodule at its first use, so `import scipy` is cheap and `from scipy.stats import …` is not.
HEAVY = {
    *("scipy.stats", "scipy.optimize", "scipy.special", "scipy.sparse", "scipy.linalg"),
    *("sympy", "pandas", "matplotlib", "hypothesis"),
}


def test_import_loads_no_heavy_module_that_torch_has_not_loaded() -> None:
    code = "import sys, torch; before = set(sys.modules); import spectra; print(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "spectra.fourier" in run.stdout.split()
    assert not HEAVY & set(run.stdout.split())
