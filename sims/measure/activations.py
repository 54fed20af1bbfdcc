"""Covariance spectra of the states at several sites, and on request what their geometry is described by."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sims.measure.geometry import geometry_rows
from sims.measure.measurement import Batch, Found, Gatherer, Job, Measurement
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import summarise
from spectra import Estimate, InputError, Moments
from spectra.batched import PARTS, MemberMoments, member_moments
from toymodel.transformer import FINAL


def pooled(x: Tensor, pooling: str) -> Tensor:
    """Return samples (…, n, width) of states (…, b, T, width): the last position, the mean, or every token."""
    if pooling == "last":
        return x[..., -1, :]
    return x.mean(dim=-2) if pooling == "mean" else x.flatten(-3, -2)


class Activations(Gatherer):
    """Stream states into moments, and add the covariance spectrum of each site and its summaries."""

    stays = ("job", "moments")

    def __init__(self, job: Job) -> None:
        self.job, self.pooling = job, job.data.config.pooling
        self.geometry: bool = job.data.config.geometry
        self.sites = job.data.sites(job.subject)
        self.last = self.pooling == "last" and self.sites == (FINAL,)
        members = len(job.models.members)
        self.moments = {site: MemberMoments(members) for site in self.sites}
        self.windows = {}
        # Samples by site.
        self.counts: dict[str, int] = {}

    def batch(self, batch: Batch) -> None:
        """Add the samples of one batch."""
        for site, moments in self.moments.items():
            moments.update(pooled(batch.states[site], self.pooling))

    def merge(self) -> None:
        """Merge the moments of all ranks."""
        if self.job.ranks.size == 1:
            return
        for site, moments in self.moments.items():
            self.moments[site] = MemberMoments.join([each.all_reduce() for each in moments.split()])

    def found(self) -> Mapping[str, Tensor]:
        """Return mean and second moment at each site."""
        found = {}
        for site, moments in self.moments.items():
            own = moments.tensors()
            self.counts[site] = moments.count
            self.windows[site] = self.job.data.windows(self.job.subject, own["mean"].shape[1])
            found |= {f"{site} {part}": value for part, value in own.items()}
        return found

    def rows(self, sheet: MeasurementRows, found: Found) -> None:
        """Add the sites in their order."""
        for site, count in self.counts.items():
            own = member_moments(count, **{part: found[f"{site} {part}"] for part in PARTS})
            try:
                spectrum = own.spectrum()
            except InputError as error:
                # States that are all equal, as of a model of zeros, or too large to square.
                sheet.row("rankme", "activation", site, Estimate.not_fitted(f"the states at {site}: {error}"))
                continue
            summarise(sheet, "activation", site, spectrum, self.windows[site])
            if self.geometry:
                geometry_rows(sheet, site, spectrum, own)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments of the one model by site."""
        return {
            f"{site}.{part}": value
            for site, moments in self.moments.items()
            for part, value in moments.split()[0].state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        device = self.job.data.device
        for site in self.moments:
            own = {
                n.removeprefix(f"{site}."): v.to(device)
                for n, v in state.items()
                if n.rpartition(".")[0] == site
            }
            self.moments[site] = MemberMoments.join([Moments.from_state_dict(own)])


ACTIVATIONS = Measurement(
    "activations",
    version=3,
    meaning="covariance spectra of the states at several sites",
    needs=frozenset({"activations"}),
    begin=Activations,
    null=True,
)
