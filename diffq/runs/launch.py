"""Handing points to workers: in this process, or through one of Hydra's launchers (joblib, submitit, Ray).

A worker is given folders of points, reads what to sample from their config.yaml, and reports each one's outcome; it
never raises. Knows no metric.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from diffq.config import from_mapping
from diffq.config.files import builtin_dir
from diffq.config.hydra import is_launcher_key, launcher_config, version_base
from diffq.errors import UserError
from diffq.store.point import Busy, Point
from diffq.store.root import Store

T = TypeVar("T")
Outcome = Literal["done", "busy", "failed"]


@dataclass(frozen=True)
class Result:
    """What became of one point; `error` is one sentence for a UserError and a traceback for anything else."""

    folder: str
    outcome: Outcome
    error: str = ""


OnPoint = Callable[[Result], None]


def run_points(
    folders: Iterable[str],
    config_dirs: Sequence[Path] = (),
    *,
    wait: bool = False,
    on_point: OnPoint | None = None,
    on_progress: Callable[[str], Any] | None = None,
) -> list[Result]:
    """Samples the points in these folders, one after another, with every checkpoint loaded once."""
    from diffq.runs.workbench import Workbenches

    benches = Workbenches()
    results = []
    for folder in folders:
        result = _run_point(folder, benches, config_dirs, wait, on_progress)
        results.append(result)
        if on_point is not None:
            on_point(result)
    return results


def _run_point(
    folder: str, benches: Any, config_dirs: Sequence[Path], wait: bool, on_progress: Callable[[str], Any] | None
) -> Result:
    from diffq.runs.sampling import sample_point

    try:
        config = from_mapping(Point(Path(folder)).config(), config_dirs=config_dirs)
        bench = benches(config)
        made = Store(Path(config.outputs)).point(bench.identity(config))
        if made.folder.resolve() != Path(folder).resolve():  # then its samples would be another point's
            why = f"{config.checkpoint} or the data have changed since this point was planned; sweep again"
            return Result(folder, "failed", why)
        sample_point(config, bench, wait=wait, on_progress=on_progress(folder) if on_progress else None)
        return Result(folder, "done")
    except Busy:
        return Result(folder, "busy")
    except UserError as error:
        return Result(folder, "failed", str(error))
    except Exception:
        return Result(folder, "failed", traceback.format_exc())


def launch(folders: Sequence[str], overrides: Sequence[str], config_dirs: Sequence[Path], sweep: Path) -> list[Result]:
    """Samples points through the launcher that `hydra/launcher=NAME` names, several points a job."""
    from hydra import initialize_config_dir
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.core.utils import JobStatus
    from hydra.types import HydraContext

    config = launcher_config(overrides, sweep / "jobs")
    chunks = deal(folders, _workers(config))
    with initialize_config_dir(str(builtin_dir()), **version_base()):
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
        HydraConfig.instance().set_config(config)
        job = _Job(tuple(map(tuple, chunks)), tuple(map(str, config_dirs)), os.getcwd(), os.getpid())
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=job, config=config)
        returned = launcher.launch([[] for _ in chunks], initial_job_idx=0)
    results = []
    for chunk, made in zip(chunks, returned, strict=True):
        if made.status == JobStatus.COMPLETED:
            results += [Result(**r) for r in made.return_value]
        else:
            results += [Result(f, "failed", f"the job of this point ended badly: {made._return_value}") for f in chunk]
    return results


@dataclass(frozen=True)
class _Job:
    """The task of a launcher's worker. Which of the chunks is its own is the number of its Hydra job."""

    chunks: tuple[tuple[str, ...], ...]
    config_dirs: tuple[str, ...]
    folder: str
    parent: int

    def __call__(self, _: Any) -> list[dict[str, Any]]:
        from hydra.core.hydra_config import HydraConfig

        if os.getpid() != self.parent:
            die_with_parent()
        os.chdir(self.folder)
        for path in (self.folder, *self.config_dirs):
            if path not in sys.path:
                sys.path.insert(0, path)
        mine = self.chunks[HydraConfig.get().job.num]
        return [asdict(r) for r in run_points(mine, [Path(d) for d in self.config_dirs])]


def die_with_parent() -> None:
    """Asks Linux to end this process when its parent ends: joblib's workers would go on computing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)


def uses_launcher(overrides: Sequence[str]) -> bool:
    """Whether the command line names a launcher other than the in-process one."""
    words = [o for o in overrides if is_launcher_key(o.partition("=")[0])]
    return bool(words) and "hydra/launcher=basic" not in words


def workers_of(overrides: Sequence[str], outputs: Path) -> int:
    """How many jobs a launcher would run at once. UserError for a launcher that is not there."""
    return _workers(launcher_config(overrides, outputs))


def _workers(config: Any) -> int:
    """How many jobs run at once, as far as the launcher's settings say."""
    launcher = config.hydra.launcher
    for name in ("n_jobs", "array_parallelism"):
        if launcher.get(name):
            count = int(launcher.get(name))
            return count if count > 0 else os.cpu_count() or 1
    return 4


def deal(folders: Sequence[T], workers: int) -> list[list[T]]:
    """Points dealt out in turn, so that every worker gets several and none gets all the slow ones."""
    count = max(1, min(workers, len(folders)))
    return [list(folders[i::count]) for i in range(count)]
