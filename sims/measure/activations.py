"""Covariance spectra of the states at several sites."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sims.measure.measurement import Batch, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import summarise
from spectra import Estimate, InputError, Moments
from toymodel.transformer import FINAL


def pooled(x: Tensor, pooling: str) -> Tensor:
    """Return samples (n, width) of states (b, T, width): the last position, the mean, or every token."""
    if pooling == "last":
        return x[:, -1]
    return x.mean(dim=1) if pooling == "mean" else x.flatten(0, 1)


def load_moments(state: Mapping[str, Tensor], device: str) -> Moments:
    """Return the moments of `Moments.state_dict`, on a device."""
    return Moments.from_state_dict({name: value.to(device) for name, value in state.items()})


class Activations(Gatherer):
    """Stream states into moments, and add the covariance spectrum of each site and its summaries."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sites = job.data.sites(job.subject)
        self.last = job.data.config.pooling == "last" and self.sites == (FINAL,)
        self.moments = {site: Moments() for site in self.sites}

    def batch(self, batch: Batch) -> None:
        """Add the samples of one batch."""
        for site, moments in self.moments.items():
            moments.update(pooled(batch.states[site], self.job.data.config.pooling))

    def merge(self) -> None:
        """Merge the moments of all ranks."""
        self.moments = {site: moments.copy().all_reduce() for site, moments in self.moments.items()}

    def rows(self, sheet: MeasurementRows) -> None:
        """Add the sites in their order."""
        for site, moments in self.moments.items():
            try:
                spectrum = moments.spectrum()
            except InputError as error:
                # States that are all equal, as of a model of zeros, or too large to square.
                sheet.row("rankme", "activation", site, Estimate.not_fitted(f"the states at {site}: {error}"))
                continue
            windows = self.job.data.windows(self.job.subject, spectrum.d or len(spectrum))
            summarise(sheet, "activation", site, spectrum, windows)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments by site."""
        return {
            f"{site}.{part}": value
            for site, moments in self.moments.items()
            for part, value in moments.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        for site in self.moments:
            own = {n.removeprefix(f"{site}."): v for n, v in state.items() if n.rpartition(".")[0] == site}
            self.moments[site] = load_moments(own, self.job.data.device)


ACTIVATIONS = Measurement(
    "activations",
    version=1,
    meaning="covariance spectra of the states at several sites",
    needs=frozenset({"activations"}),
    begin=Activations,
    writes=("rows", "spectra"),
    null=True,
)
