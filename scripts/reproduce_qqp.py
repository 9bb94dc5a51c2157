"""Runs `diffq train`, `sweep` and `report` on QQP within a budget of minutes; see reproduce_qqp.sh for how to call it.

The budget is counted in outputs/reproduce/qqp/state.json while a verb runs, so that a call that is killed has been
counted too. It knows nothing of models: every stage is a diffq command, and the commands are kept beside the results.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproduce_results import write_results

ROOT = Path(__file__).resolve().parent.parent
AGAIN = 75  # EX_TEMPFAIL: call again
TRAIN_SHARE = 0.68
LONGEST_SWEEP = 60.0  # minutes; what a longer budget has beyond that goes to training
TWIN_FROM = 20.0  # minutes, from which on the causal twin is trained too, on half of the time
GRACE = -600.0  # seconds; the report is written even where the sweep took a little more than there was
REPORTING = 1.0  # minutes kept for scoring and drawing what there is when the time runs out
FIRST_SOURCES = 300
OWN_WORDPIECE = "dataset.tokenizer=wordpiece:16000"  # where BERT's vocabulary is not at hand
SOURCES = (2500, 2000, 1500, 1000, 600)


class OutOfTime(Exception):
    """The budget, or this call's share of it, is used up."""


@dataclass
class Clock:
    """Seconds used of a budget, over all calls; kept on disk."""

    file: Path
    budget: float
    call: float
    used: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file.exists():
            held = json.loads(self.file.read_text())
            self.used, self.facts = held["used_seconds"], held["facts"]
        self._before, self._began = self.used, time.monotonic()

    def tick(self) -> None:
        self.used = self._before + time.monotonic() - self._began
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(
            json.dumps({"budget": self.budget, "used_seconds": self.used, "facts": self.facts}, indent=1)
        )
        partial.replace(self.file)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget - self.used

    @property
    def call_left(self) -> float:
        return self.call - (time.monotonic() - self._began)


class Runner:
    """Runs diffq verbs as child processes, under the clock, and keeps the commands."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self.stopped = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: Any) -> None:
        self.stopped = number

    def __call__(self, words: Sequence[str], until: float = 0.0) -> str:
        """What the verb printed; "" where it was ended because no more than `until` seconds of the budget are left.

        OutOfTime where the call is over, after the verb has had a minute to save. SystemExit where the verb failed.
        """
        shown = " ".join(["diffq", *words])
        commands = self.clock.facts.setdefault("commands", [])
        if shown not in commands:
            commands.append(shown)
        print(f"[{self.clock.used / 60:.1f} of {self.clock.budget / 60:g} min] {shown}", file=sys.stderr, flush=True)
        child = subprocess.Popen(
            [sys.executable, "-m", "diffq", *words], stdout=subprocess.PIPE, text=True, preexec_fn=_die_with_parent
        )
        ended = over = False
        while True:
            try:
                printed, _ = child.communicate(timeout=2)
                break
            except subprocess.TimeoutExpired:
                self.clock.tick()
            over = over or bool(self.stopped) or self.clock.call_left <= 0
            if (over or self.clock.left <= until) and not ended:
                ended, killed_at = True, time.monotonic() + 60
                child.terminate()
            elif ended and time.monotonic() > killed_at:
                child.kill()
        self.clock.tick()
        if over or self.stopped:
            raise OutOfTime
        if ended:
            return ""
        if child.returncode:
            raise SystemExit(child.returncode)
        return printed


def _die_with_parent() -> None:
    """A child is told to stop, and saves, where this process is killed (Linux)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def main() -> int:
    """Returns 0 when the budget is used well, 75 where the same line is to be called again."""
    options, words = read_words()
    outputs = Path(value(words, "outputs", "outputs"))
    clock = Clock(outputs / "reproduce" / "qqp" / "state.json", 60 * options.budget, 60 * options.call)
    run = Runner(clock)
    try:
        if clock.left <= 0 and clock.facts.get("reported"):
            print(f"the budget of {options.budget:g} minutes is used up; a larger one goes on", file=sys.stderr)
            return 0
        check_packages_and_data(words)
        if len(models(words, options.budget)) == 1:
            print("the causal twin is left out; TWIN=yes, or 20 minutes, includes it", file=sys.stderr)
        checkpoints = [train(run, model, words) for model in models(words, options.budget)]
        sweep(run, checkpoints, words)
        report(run, words, outputs)
    except OutOfTime:
        clock.tick()
        print(f"{clock.used / 60:.1f} of {options.budget:g} minutes are used; the same line goes on", file=sys.stderr)
        return AGAIN
    return 0


def read_words() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(usage="scripts/reproduce_qqp.sh BUDGET_MINUTES [--call MINUTES] [KEY=VALUE ...]")
    parser.add_argument("budget", type=float, metavar="BUDGET_MINUTES")
    parser.add_argument("--call", type=float, default=float("inf"), metavar="MINUTES")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_intermixed_args()
    if options.budget <= 0 or any("=" not in word for word in options.words):
        parser.error("a positive number of minutes, and then words such as dataset.path=FOLDER")
    return options, options.words


def value(words: Sequence[str], key: str, default: str) -> str:
    """The last value that the words give a key."""
    return next((w.partition("=")[2] for w in reversed(words) if w.partition("=")[0] == key), default)


def models(words: Sequence[str], budget: float) -> list[str]:
    """The paper's model, and its causal twin where the budget is enough for both."""
    model = value(words, "model", "gaussian")
    asked = os.environ.get("TWIN", "yes" if budget >= TWIN_FROM else "no")
    return [model, model.replace("gaussian", "causal_seq2seq")] if asked == "yes" else [model]


def common(words: Sequence[str], model: str) -> list[str]:
    """The words that every verb takes, in this order: model, dataset, tokenizer, the caller's."""
    mine = [f"model={model}", "dataset=qqp"]
    data = Path(os.environ.get("DIFFQ_DATA", "")) / "tokenizers" / "bert-base-uncased"
    if not value(words, "dataset.tokenizer", "") and not data.is_dir():
        mine.append(OWN_WORDPIECE)
    kept = [w for w in words if not w.startswith(("trainer", "max_", "model=", "num_sources=", "num_samples="))]
    return mine + kept


def check_packages_and_data(words: Sequence[str]) -> None:
    """Says at once, in one sentence, what is missing: a package, or the data."""
    import importlib.util

    needed = ("torch", "transformers", "accelerate", "safetensors", "hydra", "omegaconf", "numpy", "sacrebleu")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"reproduce_qqp: {sys.executable} has no {', '.join(missing)}; install them, or name PYTHON=…")
    given = [value(words, "dataset.path", ""), str(Path(os.environ.get("DIFFQ_DATA") or ".") / "qqp")]
    if not any(place and Path(place).exists() for place in given):
        sys.exit(
            "reproduce_qqp: there are no QQP files; set DIFFQ_DATA to the folder above qqp/, or dataset.path=FOLDER"
        )
    if OWN_WORDPIECE in common(words, "gaussian"):
        print("no BERT vocabulary under DIFFQ_DATA: a WordPiece of the data is used", file=sys.stderr)


def train(run: Runner, model: str, words: Sequence[str]) -> tuple[str, Path]:
    """The model's name and the folder of its training, as far as the budget takes it."""
    count = len(models(words, run.clock.budget / 60))
    budget = run.clock.budget / 60
    total = max(TRAIN_SHARE * budget, budget - LONGEST_SWEEP)
    minutes = round(total / count, 2)
    own = [w for w in words if w.startswith(("trainer", "max_"))]
    trainer = [] if any(w.startswith("trainer=") for w in own) else ["trainer=gpu"]
    if not any("max_minutes" in w for w in own):
        own.append(f"trainer.max_minutes={minutes:g}")
    line = ["train", *common(words, model), *trainer, *own]
    folder = take_over(run.clock, model, line, minutes)
    reserve = min(0.2 * run.clock.budget, 60 * LONGEST_SWEEP) + 60 * minutes * (count - 1) * ("causal" not in model)
    if run.clock.left > reserve and not run.clock.facts.get(f"trained {folder.name}"):
        wait_for_lock(folder)
        run(line, until=reserve)
        if not (folder / "model.safetensors").exists():
            sys.exit(f"reproduce_qqp: the budget of {budget:g} minutes ended before {folder} had a checkpoint")
        run.clock.facts[f"trained {folder.name}"] = True
    run.clock.facts["reported"] = False
    run.clock.facts["folders"] = run.clock.facts.get("folders", {}) | {model: str(folder)}
    run.clock.tick()
    return model, folder


def take_over(clock: Clock, model: str, line: Sequence[str], minutes: float) -> Path:
    """The training's folder. Where a smaller budget has trained this model before, its state is gone on from."""
    from diffq.config import compose
    from diffq.runs.train import training_folder

    folder = training_folder(compose(line[1:], verb="train"))
    before = Path(clock.facts.get("folders", {}).get(model, folder))
    if before != folder and before.is_dir() and not folder.exists():
        print(f"goes on from {before} with {minutes:g} minutes in all", file=sys.stderr)
        shutil.copytree(before, folder)
    return folder


def wait_for_lock(folder: Path) -> None:
    """Waits until a process of a killed call, which may still be saving, has let go of the folder; 90 s at most."""
    import fcntl

    if not (folder / "lock").exists():
        return
    for _ in range(90):
        with open(folder / "lock", "a") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                time.sleep(1)


def sweep(run: Runner, checkpoints: Sequence[tuple[str, Path]], words: Sequence[str]) -> None:
    """A first sweep over few sources, so that there is a result; then as many sources, and points, as there is time
    for, judged by how long the first took."""
    given = value(words, "num_sources", "")
    facts = run.clock.facts
    small = int(given or FIRST_SOURCES)
    began = run.clock.used
    seconds = sweep_once(run, checkpoints, words, "qqp_gpu", small)
    if f"seconds of {small}" not in facts:
        facts[f"seconds of {small}"] = seconds if seconds is not None else run.clock.used - began
    if seconds is None or given:
        return
    startup = 25.0 * len(checkpoints)
    each = max(facts[f"seconds of {small}"] - startup, 5.0) / small
    points = {"qqp_gpu": 1.0, "qqp_gpu_wide": 44 / 16}
    for experiment in points:
        left = run.clock.left - 60 * REPORTING
        fits = [n for n in SOURCES if startup + 1.2 * each * n * points[experiment] <= left]
        chosen = facts.get(f"sources of {experiment}") or (fits[0] if fits else None)
        if chosen is None or (experiment == "qqp_gpu_wide" and chosen < facts.get("sources of qqp_gpu", 0)):
            return
        facts[f"sources of {experiment}"] = chosen
        if sweep_once(run, checkpoints, words, experiment, chosen) is None:
            return


def sweep_once(
    run: Runner,
    checkpoints: Sequence[tuple[str, Path]],
    words: Sequence[str],
    experiment: str,
    sources: int,
    until: float = 60 * REPORTING,
) -> float | None:
    """Seconds that it took, None where time ran out. A sweep that is done is remembered and costs nothing again."""
    facts = run.clock.facts
    done = f"{experiment} of {sources}"
    if done in facts.get("sweeps", {}):
        return facts["sweeps"][done]
    began = run.clock.used
    facts["newest"] = {"experiment": experiment, "sources": sources}
    for model, folder in checkpoints:
        name = experiment if "causal" not in model else "qqp_gpu_twin"
        line = [f"experiment={name}", *common(words, model), *precision(words), f"checkpoint={folder}"]
        samples = value(words, "num_samples", "3")
        if not run(["sweep", *line, f"num_sources={sources}", f"num_samples={samples}"], until):
            return None
    facts["sweeps"] = facts.get("sweeps", {}) | {done: run.clock.used - began}
    facts["last"] = {"experiment": experiment, "sources": sources}
    run.clock.tick()
    return facts["sweeps"][done]


def precision(words: Sequence[str]) -> list[str]:
    """bfloat16 on a GPU, where nothing else was asked for."""
    import torch

    return ["dtype=bfloat16"] if torch.cuda.is_available() and not value(words, "dtype", "") else []


def report(run: Runner, words: Sequence[str], outputs: Path) -> None:
    """Writes the results of the last whole sweep; where there is none, of what the first has finished."""
    facts = run.clock.facts
    whole = facts.get("last") or facts.get("newest")
    if whole is None:
        sys.exit("reproduce_qqp: the budget ended before the first point was sampled; give more minutes")
    if whole != facts.get("newest"):  # a later sweep was cut off: its plan is replaced by that of the last whole one
        redo = [(m, Path(f)) for m, f in facts["folders"].items()]
        facts["sweeps"] = {}
        sweep_once(run, redo, words, whole["experiment"], whole["sources"], GRACE)
    sweeps = [outputs / "sweeps" / whole["experiment"]]
    if (outputs / "sweeps" / "qqp_gpu_twin" / "plan.jsonl").exists() and len(facts["folders"]) > 1:
        sweeps.append(outputs / "sweeps" / "qqp_gpu_twin")
    names = [str(folder) for folder in sweeps]
    run(["score", *names, f"outputs={outputs}"], GRACE)
    printed = run(["report", *names, "paper=2503.10683", "--json", f"outputs={outputs}"], GRACE)
    place = os.environ.get("RESULTS")
    on_gpu = bool(precision([]))
    folder = Path(place) if place else ROOT / "docs/results/qqp-gpu" if on_gpu else outputs / "reproduce/qqp/results"
    facts["reported"] = True
    run.clock.tick()
    write_results(folder, json.loads(printed), facts, outputs, run.clock.used)
    print(f"{run.clock.used / 60:.1f} minutes used; the results are in {folder}")


if __name__ == "__main__":
    sys.exit(main())
