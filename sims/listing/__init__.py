"""Looking at folders of runs: what is there, which of it, and as what tables. Loads without torch."""

from sims.listing.folders import COMPLETE, STATUSES, listing, listing_of
from sims.listing.select import select
from sims.listing.sql import connect
from sims.listing.tables import export, joined

__all__ = ["COMPLETE", "STATUSES", "connect", "export", "joined", "listing", "listing_of", "select"]
