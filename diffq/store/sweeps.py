"""A sweep on disk: the list of its points. What they hold stands in the points' own folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from diffq.errors import UserError
from diffq.store.files import encode_row, read_rows, write_atomic


@dataclass(frozen=True)
class PlanRow:
    """One line of plan.jsonl.

    folder   under outputs/
    sampler  the name that the user asked for, where it differs from the canonical one that the point is stored under
    samples  how many samples a source were asked for
    metric   the suite that the sweep is seen through
    options  the words that give its metrics their options
    """

    key: str
    folder: str
    sampler: str = ""
    samples: int = 0
    metric: str = ""
    options: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))


@dataclass(frozen=True)
class SweepFolder:
    """outputs/sweeps/NAME: plan.jsonl, and later frontier.csv, frontier.png, frontier.svg."""

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / "plan.jsonl"

    def write(self, rows: Sequence[PlanRow]) -> None:
        """Writes the plan where it is not there. A point that was asked for twice under one name stands in it once;
        under two names (`cfg` and `dpmpp` at scale 1) it stands in it for each, since it is part of both lines."""
        kept: dict[tuple[str, str], PlanRow] = {}
        for row in rows:
            kept.setdefault((row.key, row.sampler), row)
        plan = b"".join(encode_row(asdict(row)) for row in kept.values())
        if not (self.plan.exists() and self.plan.read_bytes() == plan):  # a disk that is full by now is asked nothing
            write_atomic(self.plan, plan)

    def read(self) -> list[PlanRow]:
        """The plan. UserError where there is none, or it is not one."""
        if not self.plan.exists():
            raise UserError(f"{self.folder} is no sweep: it has no plan.jsonl")
        known = PlanRow.__dataclass_fields__
        try:
            return [PlanRow(**{k: v for k, v in row.items() if k in known}) for row, _ in read_rows(self.plan)]
        except TypeError as error:
            raise UserError(f"{self.plan} has a row without key and folder; sweep again to write it anew") from error
