"""`diffq harness`: lm-eval-harness' tasks on a text model of ours.

The six tasks of the papers are YAML files of the harness' own form in conf/harness/, over files under $DIFFQ_DATA; any
other name is one of its stock tasks, which it fetches itself. What was answered is kept under outputs/harness/.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from diffq.config import Config, Request, compose
from diffq.config.files import search_dirs
from diffq.errors import UserError, unknown
from diffq.interrupts import reaching
from diffq.report.tables import print_table
from diffq.runs.flags import whole_number
from diffq.store.files import write_json
from diffq.store.identity import digest
from diffq.store.point import Point
from diffq.store.root import Store

TASKS = ("lambada", "hellaswag", "piqa", "arc_easy", "arc_challenge", "winogrande")
DRAWS = 16


def run(request: Request) -> int:
    """Runs the tasks that the command line names, prints a table, and returns 0."""
    named = next((w.partition("=")[2] for w in reversed(request.overrides) if w.startswith("tasks=")), ",".join(TASKS))
    draws, limit = whole_number(request.flags, "draws", DRAWS), whole_number(request.flags, "limit", None)
    config = composed(request)
    tasks = [task(name, request) for name in named.split(",")]
    with reaching(lambda: "the same command goes on from the answers that are kept"):
        rows = evaluate(config, tasks, draws, limit, "conditional" if request.flags.conditional else "joint", request)
    if request.json:
        print(json.dumps(rows, indent=1))
    else:
        heads = ["task", "metric", "value", "± standard error", "questions"]
        cells = [
            [
                r["task"],
                r["metric"],
                f"{r['value']:.4g}",
                "" if r["error"] is None else f"{r['error']:.3g}",
                str(r["n"]),
            ]
            for r in rows
        ]
        print_table("", heads, cells)
    return 0


def composed(request: Request) -> Config:
    """The configuration of the model and the sampler."""
    words = [word for word in request.overrides if not word.startswith("tasks=")]
    if not any(word.startswith("dataset=") for word in words):
        words.append("dataset=wikitext2")  # running text: it decides nothing but what kind of model is meant
    return compose(words, verb="sample", config_dirs=request.config_dirs)


def task(name: str, request: Request) -> str | dict[str, Any]:
    """A task of conf/harness/ as the harness takes it, or its stock task's name.

    UserError where the task's file is not there.
    """
    file = next((f for d in search_dirs(request.config_dirs) if (f := d / "harness" / f"{name}.yaml").is_file()), None)
    if file is None:
        return name
    held: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    data = os.environ.get("DIFFQ_DATA")
    place = Path(data) / held["file"] if data else None
    if place is None or not place.is_file():
        where = str(place) if place else f"$DIFFQ_DATA/{held['file']} (DIFFQ_DATA is not set)"
        raise UserError(f"task {name}: its questions are not at {where}; give the folder as DIFFQ_DATA")
    del held["file"]
    return held | {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(place)}}}


def evaluate(
    config: Config, tasks: Sequence[str | dict[str, Any]], draws: int, limit: int | None, ranked: Any, request: Request
) -> list[dict[str, Any]]:
    """A row for each metric of each task, also written to results.json."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # our own bar counts answers; the libraries' count everything else
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    store = Store(Path(config.outputs))
    os.environ.setdefault("HF_DATASETS_CACHE", str(store.cache / "datasets"))  # read when the harness is imported
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError("diffq harness needs the package lm-eval: pip install 'diffq[harness]'") from error

    from diffq.runs.harness_model import DiffqLM
    from diffq.runs.workbench import load_for, pick_device, with_checkpoint

    config = with_checkpoint(config)
    assert config.checkpoint is not None
    device = pick_device(config.device)
    loaded = load_for(config)
    about = {"checkpoint": loaded.digest, "ranked": ranked, "draws": draws, "seed": config.seed, "dtype": config.dtype}
    folder = store.outputs / "harness" / f"{config.choices.model}-{digest(about)[:8]}"
    model = DiffqLM(
        loaded.model.denoiser(), loaded.tokenizer, device, folder, config.sampler, ranked, draws, config.seed,
        request.json, config.batch_tokens,
    )  # fmt: skip
    stock = [one for one in tasks if isinstance(one, str)]
    manager = TaskManager(include_defaults=bool(stock))  # the stock tasks take seconds to list
    for name in stock:
        if name not in manager.all_tasks:
            raise unknown("task", name, [*TASKS, *manager.all_tasks])
    with Point(folder).claim(wait=True):  # another process may be at it; then this one waits, and has its answers
        found: Any = simple_evaluate(
            model, tasks=list(tasks), limit=limit, task_manager=manager, bootstrap_iters=1000,
            random_seed=config.seed, numpy_random_seed=config.seed, torch_random_seed=config.seed, verbosity="ERROR",
        )  # fmt: skip
        rows = [row for name, result in found["results"].items() for row in _metrics(name, result, found["n-samples"])]
        write_json(folder / "results.json", {**about, "model": config.choices.model, "limit": limit, "rows": rows})
    return rows


def _metrics(name: str, result: Mapping[str, Any], counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for key, value in result.items():
        metric, _, kind = key.partition(",")
        if kind and not metric.endswith("_stderr") and isinstance(value, int | float):
            error = result.get(f"{metric}_stderr,{kind}")
            rows.append(
                {
                    "task": name,
                    "metric": metric,
                    "value": float(value),
                    "error": float(error) if isinstance(error, int | float) else None,
                    "n": counts[name]["effective"],
                }
            )
    return rows
