"""Where runs are logged beside their folders: nowhere, or Weights & Biases.

A tracker never stops a run: what it cannot do it says in one line, and then does nothing. Knows no sampler and no
metric; it is given records and rows.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from diffq.config.sections import TrackerSettings
from diffq.store.index import Record

_PATIENCE = 2.0  # seconds to wait for the tracker's host; its own client hangs for 20 without a network
_HOST = "https://api.wandb.ai"


class Tracker(Protocol):
    """What a sweep tells."""

    def point(self, record: Record) -> None:
        """Logs one scored point as a run of its own, named by its key."""
        ...

    def frontier(self, name: str, rows: Sequence[Mapping[str, Any]], picture: Path | None) -> None:
        """Logs a frontier's rows as a table, and its picture."""
        ...


class NoTracker:
    """Logs nothing."""

    def point(self, record: Record) -> None:
        pass

    def frontier(self, name: str, rows: Sequence[Mapping[str, Any]], picture: Path | None) -> None:
        pass


def open_tracker(settings: TrackerSettings, outputs: Path, say: Callable[[str], None] | None = None) -> Tracker:
    """The tracker that is asked for. `say` gets its one line of what it does or why it does nothing."""
    say = say or (lambda line: print(f"diffq: {line}", file=sys.stderr))
    if settings.name == "none":
        return NoTracker()
    try:
        import wandb  # noqa: F401 - only whether it is there
    except ImportError:
        say("tracker=wandb logs nothing: the package wandb is not installed")
        return NoTracker()
    mode, why = choose_mode(os.environ)
    folder = Path(outputs).resolve() / "wandb"
    if mode != "disabled":
        say(f"tracker=wandb is {mode} ({why}); files under {folder}")
    return Wandb(settings.project, Path(outputs).resolve(), mode, say)


def choose_mode(environment: Mapping[str, str]) -> tuple[str, str]:
    """`online`, `offline` or `disabled`, and why: $WANDB_MODE, else whether there is a login and a network."""
    wanted = environment.get("WANDB_MODE", "")
    if wanted in ("online", "offline", "disabled"):
        return wanted, "WANDB_MODE says so"
    address = urlsplit(environment.get("WANDB_BASE_URL") or _HOST)
    host = address.hostname or ""
    if not environment.get("WANDB_API_KEY") and not _in_netrc(host):
        return "offline", "nobody is logged in"
    if not _reachable(host, address.port or (80 if address.scheme == "http" else 443)):
        return "offline", f"{host} cannot be reached"
    return "online", "logged in"


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _reachable(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE):
            return True
    except OSError:
        return False


class Wandb:
    """One run a point, and one for each frontier; each is finished before the next begins."""

    def __init__(self, project: str, outputs: Path, mode: str, say: Callable[[str], None]):
        self._project, self._outputs, self._mode, self._say = project, outputs, mode, say
        self._broken = False

    def point(self, record: Record) -> None:
        scores: dict[str, Any] = {}
        for score in record.metrics.values():
            scores[score["name"]] = score["value"]
            scores |= {f"{score['name']}_{end}": score[end] for end in ("low", "high") if score.get(end) is not None}
        costs = ("nfe_calls", "nfe_rows", "positions_projected", "seconds", "tokens")
        scores |= {name: record.run[name] for name in costs if name in record.run}
        about = {name: getattr(record, name) for name in _ABOUT} | {f"dial_{k}": v for k, v in record.dials.items()}
        name = f"{record.sampler}/{record.folder.rsplit('/', 1)[-1]}"
        self._log(record.key, name, "point", record.dataset, about, lambda: scores)

    def frontier(self, name: str, rows: Sequence[Mapping[str, Any]], picture: Path | None) -> None:
        columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))

        def logged() -> dict[str, Any]:
            import wandb

            data = [[_plain(row.get(str(column))) for column in columns] for row in rows]
            # A dial such as a solver's name is missing where another sampler has a number: both kinds in one column.
            table = wandb.Table(columns=columns, data=data, allow_mixed_types=True)
            return {"frontier": table} | ({} if picture is None else {"picture": wandb.Image(str(picture))})

        self._log(None, name, "frontier", name, {"points": len(rows)}, logged)

    def _log(
        self,
        key: str | None,
        name: str,
        kind: str,
        group: str,
        config: Mapping[str, Any],
        values: Callable[[], Mapping[str, Any]],
    ) -> None:
        """One run from its beginning to its end. The first failure is said, and the last thing that is tried."""
        if self._broken:
            return
        run: Any = None
        try:
            run = self._start(key, name, kind, group, config)
            run.log(dict(values()))
            run.finish()
        except Exception as error:
            self._broken = True
            reason = (str(error).splitlines() or [""])[0][:200]
            self._say(f"tracker=wandb stopped logging: {type(error).__name__}: {reason}")
            if run is not None:
                with contextlib.suppress(Exception):
                    run.finish(exit_code=1)

    def _start(self, key: str | None, name: str, kind: str, group: str, config: Mapping[str, Any]) -> Any:
        import wandb

        self._outputs.mkdir(parents=True, exist_ok=True)
        for variable, folder in (
            ("WANDB_CACHE_DIR", "cache"),
            ("WANDB_CONFIG_DIR", "config"),
            ("WANDB_DATA_DIR", "data"),
        ):
            os.environ.setdefault(variable, str(self._outputs / "wandb" / folder))
        if os.environ.get("WANDB_MODE") == "":
            del os.environ["WANDB_MODE"]  # the client takes an empty one for an error
        settings = wandb.Settings(init_timeout=20, silent=True, console="off", disable_git=True, x_disable_stats=True)
        return wandb.init(
            project=self._project,
            dir=str(self._outputs),
            mode=self._mode,  # type: ignore[arg-type]
            id=key,
            resume="allow" if key and self._mode == "online" else None,  # a point that is scored again is the same run
            name=name,
            group=group,
            job_type=kind,
            config=dict(config),
            settings=settings,
            reinit="finish_previous",
        )


_ABOUT = ("key", "folder", "dataset", "model", "process", "sampler", "seed", "dtype", "length", "samples", "sources")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
