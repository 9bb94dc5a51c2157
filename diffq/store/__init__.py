"""Points on disk: keys, locks, rows, queries. Knows no network, no metric and no plot, and imports no torch."""

from diffq.store.identity import Identity, digest_files, digest_sources
from diffq.store.point import Busy, Claim, Point
from diffq.store.root import Store, newest_training
from diffq.store.sweeps import PlanRow, SweepFolder

__all__ = [
    "Busy",
    "Claim",
    "Identity",
    "PlanRow",
    "Point",
    "Store",
    "SweepFolder",
    "digest_files",
    "digest_sources",
    "newest_training",
]
