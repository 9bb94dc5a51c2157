"""Handing points to workers: in this process, or through one of Hydra's launchers (joblib, submitit, Ray).

A worker is given folders of points, reads what to sample from their config.yaml, and reports each one's outcome; it
never raises. A launcher works in a thread, so that the main thread can look at what grows on disk. Knows no metric.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from diffq.config import from_mapping
from diffq.config.files import builtin_dir
from diffq.config.hydra import is_launcher_key, launcher_config, version_base
from diffq.errors import UserError
from diffq.interrupts import unmasked
from diffq.runs.workers import die_with_parent, none_left_alive
from diffq.store.point import Busy, Point
from diffq.store.root import Store

if TYPE_CHECKING:
    from diffq.diffusion.contracts import OnStep
    from diffq.runs.sampling import OnProgress
    from diffq.runs.workbench import Workbenches

T = TypeVar("T")
Outcome = Literal["done", "busy", "failed"]


@dataclass(frozen=True)
class Result:
    """What became of one point; `error` is one sentence for a UserError and a traceback for anything else."""

    folder: str
    outcome: Outcome
    error: str = ""


def run_point(
    folder: str,
    benches: Workbenches,
    config_dirs: Sequence[Path] = (),
    on_progress: OnProgress | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Samples the point in this folder; one that somebody else has is `busy`."""
    from diffq.runs.sampling import sample_point

    try:
        with unmasked():
            config = from_mapping(Point(Path(folder)).config(), config_dirs=config_dirs)
            bench = benches(config)
            made = Store(Path(config.outputs)).point(bench.identity(config))
            if made.folder.resolve() != Path(folder).resolve():  # then its samples would be another point's
                why = f"{config.checkpoint} or the data have changed since this point was planned; sweep again"
                return Result(folder, "failed", why)
            sample_point(config, bench, on_progress=on_progress, on_step=on_step)
            return Result(folder, "done")
    except Busy:
        return Result(folder, "busy")
    except UserError as error:
        return Result(folder, "failed", str(error))
    except Exception:
        return Result(folder, "failed", traceback.format_exc())


class Launched:
    """A launcher at work.

    local   whether its workers are children of this process, on this machine
    workers how many jobs there are
    broken  why it ended before its jobs did, which is when a worker was killed; empty while all is well
    log     what workers of this machine print
    results what its jobs reported, once it is not `alive` any more
    """

    def __init__(self, folders: Sequence[str], config: Any, config_dirs: Sequence[Path]):
        self.local = "joblib" in str(config.hydra.launcher.get("_target_"))
        self.broken = ""
        self.results: list[Result] = []
        self.log = Path(str(config.hydra.sweep.dir)).resolve() / "workers.log"
        self._config = config
        self._chunks = deal(folders, _workers(config))
        self.workers = len(self._chunks)
        self._config_dirs = tuple(map(str, config_dirs))
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Sleeps, but not longer than the launcher works."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            # Workers started by this thread never see Ctrl-C, which a terminal sends to all: their parent ends them.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self.results = self._launch()
        except BaseException as error:
            self.broken = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]

    def _launch(self) -> list[Result]:
        from hydra import initialize_config_dir
        from hydra._internal.callbacks import Callbacks
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.hydra_config import HydraConfig
        from hydra.core.plugins import Plugins
        from hydra.core.utils import JobStatus
        from hydra.types import HydraContext

        config, chunks = self._config, self._chunks
        with initialize_config_dir(str(builtin_dir()), **version_base()):
            context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
            HydraConfig.instance().set_config(config)
            log = str(self.log) if self.local else ""
            job = _Job(tuple(map(tuple, chunks)), self._config_dirs, os.getcwd(), os.getpid(), log)
            launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=job, config=config)
            if hasattr(launcher, "joblib"):  # before it is given its job a worker would outlive us, and wait for ever
                launcher.joblib = dict(launcher.joblib) | {"initializer": die_with_parent, "initargs": (os.getpid(),)}
            returned = launcher.launch([[] for _ in chunks], initial_job_idx=0)
        results = []
        for chunk, made in zip(chunks, returned, strict=True):
            if made.status == JobStatus.COMPLETED:
                results += [Result(**r) for r in made.return_value]
            else:
                reason = f"the job of this point ended badly: {made._return_value}"
                results += [Result(f, "failed", reason) for f in chunk]
        return results


@contextlib.contextmanager
def launched(
    folders: Sequence[str], overrides: Sequence[str], config_dirs: Sequence[Path], sweep: Path
) -> Iterator[Launched]:
    """The launcher that `hydra/launcher=NAME` names, sampling these points, several a job.

    Where the block is left by an exception its workers are killed; a queue's jobs (SLURM) go on, and a later sweep
    waits for them. UserError, before anything starts, for a launcher that is not there.
    """
    made = Launched(folders, launcher_config(overrides, sweep / "jobs"), config_dirs)
    with none_left_alive(lambda: made.alive), _quietly_tidied_up():
        if made.local:
            _start_trackers(made.log)  # here, since it lets signals through again in the thread that does it
        made._thread.start()
        yield made
        made._thread.join()
    if made.local:
        _close_workers()
        if not made.log.stat().st_size:
            made.log.unlink()


@contextlib.contextmanager
def _quietly_tidied_up() -> Iterator[None]:
    """After workers were killed joblib and its tracker of resources both delete the folder that they shared memory
    through; the one that finds it gone warns, and need not."""
    try:
        yield
    except BaseException:
        warnings.filterwarnings("ignore", message="Failed to delete temporary folder")
        raise


def _start_trackers(log: Path) -> None:
    """Starts the processes that tidy up after joblib's workers (Python's and joblib's own), with what they complain of
    in the workers' log: after a kill they name every semaphore."""
    from multiprocessing import resource_tracker as of_python

    from joblib.externals.loky.backend import resource_tracker as of_joblib

    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        _write_to(str(log), 2)
        of_python.ensure_running()
        of_joblib.ensure_running()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _close_workers() -> None:
    """Ends joblib's workers, which would wait for more, and hold their memory, for five minutes."""
    from joblib.externals.loky import reusable_executor

    if reusable_executor._executor is not None:
        reusable_executor._executor.shutdown(wait=True, kill_workers=True)


@dataclass(frozen=True)
class _Job:
    """The task of a launcher's worker. Which of the chunks is its own is the number of its Hydra job.

    log  the file that a child of the sweep's process writes its own output to: the terminal belongs to the table
    """

    chunks: tuple[tuple[str, ...], ...]
    config_dirs: tuple[str, ...]
    folder: str
    parent: int
    log: str

    def __call__(self, _: Any) -> list[dict[str, Any]]:
        from hydra.core.hydra_config import HydraConfig

        from diffq.runs.workbench import Workbenches

        if self.log and os.getpid() != self.parent:
            die_with_parent(self.parent)
            _write_to(self.log, 1, 2)
        os.chdir(self.folder)
        for path in (self.folder, *self.config_dirs):
            if path not in sys.path:
                sys.path.insert(0, path)
        benches, config_dirs = Workbenches(), [Path(d) for d in self.config_dirs]
        return [asdict(run_point(f, benches, config_dirs)) for f in self.chunks[HydraConfig.get().job.num]]


def _write_to(log: str, *handles: int) -> None:
    """Appends what goes to these file handles to a file."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number in handles:
        os.dup2(handle, number)
    os.close(handle)


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
