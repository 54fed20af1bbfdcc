"""How many seeds stand behind what the page of bands says, where noise hides some means."""

import math

import pandas as pd

from sims.studies.bands.sections import concentrated, fewest_seeds


def summary(*rows):
    same = {"quantity": "H_S", "regime": "clean", "kind": "inside", "fraction": 1.0, "position": 31}
    return pd.DataFrame([{**same, "stage": stage, "n": n, "low": low, "high": 1.0} for stage, n, low in rows])


def test_means_that_noise_hides_have_no_seeds_to_count():
    found = summary(("rope", 0, math.nan), ("muon", 3, 0.2), ("untied", 4, -0.1))
    assert fewest_seeds(found) == 3
    assert "95 % interval over 3 seeds above 0" in concentrated(found)
    assert "H_S in muon (bands inside training) stands" in concentrated(found)
    assert fewest_seeds(summary(("rope", 0, math.nan))) == 0
