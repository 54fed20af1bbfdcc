"""Many runs in one folder: which, in what order, by which processes, and what became of them."""

from sims.sweep.campaign import Campaign, held, run_all
from sims.sweep.grid import Grid, learning_rates
from sims.sweep.halving import Halving
from sims.sweep.plan import cost, plan
from sims.sweep.work import ToyWork

__all__ = ["Campaign", "Grid", "Halving", "ToyWork", "cost", "held", "learning_rates", "plan", "run_all"]
