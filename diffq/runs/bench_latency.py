"""`diffq bench latency`: how long a batch takes, diffusion at n steps against causal models with their cache.

Weights are random, since time does not depend on them: diffusion's are those of MDLM at the chosen size, its causal
twin's have the same width and depth, and GPT-2 is the library's class at that size. Every call is timed by itself after
a warm-up, the device waited for, rows in turn. Written to outputs/bench/: latency.json, .md and a picture with the
number of steps at which both take equally long.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch

from diffq.config import Config, Request, compose
from diffq.diffusion.contracts import Canvas
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.runs.sampling import device_name, peak_memory, watch_memory
from diffq.runs.workbench import pick_device
from diffq.store.files import write_atomic, write_json

STEPS = (8, 16, 32, 64, 128, 256, 512, 1024)
TURNS = 3
WORDS = 50_257
_SHOWN = ("name", "steps", "seconds", "low", "high", "tokens_per_second", "peak_mib", "against_gpt2")


def run(request: Request) -> list[dict[str, Any]]:
    """The rows: name, steps, median seconds a batch with low and high, tokens a second, peak memory, and how many times
    GPT-2's seconds that is."""
    config, block, batch = _asked(request)
    device = pick_device(config.device)
    dtype = getattr(torch, config.dtype)
    steps = [s for s in STEPS if s <= 4 * block]
    jobs = _jobs(config, block, batch, device, dtype, steps)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    peaks: dict[str, int] = {}
    for turn in range(-1, TURNS):  # the first is the warm-up
        for name, job in jobs.items():
            if turn < 0:
                print(f"diffq: warming up {name} …", file=sys.stderr, flush=True)
                watch_memory(device)
            began = time.perf_counter()
            job(turn)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn < 0:
                peaks[name] = peak_memory(device)
            else:
                seconds[name].append(time.perf_counter() - began)
    rows = _rows(seconds, peaks, batch * block)
    about = {
        "device": device_name(device), "batch": batch, "length": block, "dtype": config.dtype, "turns": TURNS,
        "model": config.choices.model, "break_even_steps": break_even(rows),
    }  # fmt: skip
    _write(Path(config.outputs) / "bench", about, rows)
    return rows


def _asked(request: Request) -> tuple[Config, int, int]:
    """The configuration, the length of the canvas and the rows of a batch: mdlm_mini × 256 × 8 on a CPU, the published
    size × 1024 × 32 on a GPU, if nothing is said."""
    gpu = torch.cuda.is_available()
    named = any(word.startswith("model=") for word in request.overrides)
    words = [] if named else [f"model={'mdlm_small' if gpu else 'mdlm_mini'}"]
    config = compose(["dataset=wikitext2", *words, *request.overrides], verb="sample", config_dirs=request.config_dirs)
    model: Any = config.model
    if config.model.process != "absorbing":
        raise UserError(f"bench latency times masked diffusion, and model {config.choices.model} is {model.process}")
    given = any(word.startswith("dataset.block=") for word in request.overrides)
    dataset: Any = config.dataset
    block = dataset.block if given else min(model.max_length, 1024)
    if config.batch_tokens is not None and config.batch_tokens < block:
        raise UserError(f"batch_tokens={config.batch_tokens} holds not one row of {block} tokens")
    return config, block, (config.batch_tokens or block * (32 if gpu else 8)) // block


def _jobs(
    config: Config, block: int, batch: int, device: torch.device, dtype: torch.dtype, steps: Sequence[int]
) -> dict[str, Callable[[int], Any]]:
    """What is timed, by name; each takes a seed."""
    from diffq.registry import SAMPLERS

    whole = torch.ones(batch, block, dtype=torch.bool, device=device)
    canvas = Canvas(torch.zeros(batch, block, dtype=torch.long, device=device), whole, whole,
                    torch.arange(batch, device=device))  # fmt: skip
    diffusion, twin, gpt2 = (d for d in _denoisers(config, block, device, dtype))
    ancestral, causal = SAMPLERS["ancestral"], SAMPLERS["autoregressive"]()

    def job(sampler: Any, denoiser: Any) -> Callable[[int], Any]:
        return lambda seed: sampler(denoiser, canvas, Rng(seed + 1))

    jobs = {f"diffusion {n}": job(ancestral(steps=n), diffusion) for n in steps}
    jobs |= {"first_hitting": job(SAMPLERS["first_hitting"](), diffusion)}
    return jobs | {"causal twin": job(causal, twin), "gpt2": job(causal, gpt2)}


def _denoisers(config: Config, block: int, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    from diffq.models.causal_lm import CausalLMSettings
    from diffq.models.checkpoints import build
    from diffq.models.hf_causal import HuggingFaceCausalSettings, PretrainedCausal

    settings: Any = config.model
    vocabulary = SimpleNamespace(size=WORDS + 1, pad=0, mask=WORDS, start=0, end=0)
    sizes = {name: getattr(settings, name) for name in ("width", "heads", "layers", "max_length", "tied")}
    own = GPT2Config(
        vocab_size=WORDS,
        n_positions=block + 1,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
    )
    models = (
        build(settings, vocabulary),
        build(CausalLMSettings(**sizes), vocabulary),
        PretrainedCausal(GPT2LMHeadModel(own), vocabulary, HuggingFaceCausalSettings(max_length=block + 1)),
    )
    made = [model.to(device=device, dtype=dtype).eval().denoiser() for model in models]
    return made[0], made[1], made[2]


def _rows(seconds: Mapping[str, Sequence[float]], peaks: Mapping[str, int], tokens: int) -> list[dict[str, Any]]:
    reference = median(seconds["gpt2"])
    return [
        {
            "name": name.partition(" ")[0] if name.startswith("diffusion") else name,
            "steps": int(name.partition(" ")[2]) if name.startswith("diffusion") else None,
            "seconds": median(times),
            "low": min(times),
            "high": max(times),
            "tokens_per_second": tokens / median(times),
            "peak_mib": peaks[name] / 2**20,
            "against_gpt2": median(times) / reference,
        }
        for name, times in seconds.items()
    ]


def break_even(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The steps at which diffusion takes as long as GPT-2, interpolated between the two nearest rows on logarithms;
    None where every row is on one side."""
    points = [(row["steps"], row["against_gpt2"]) for row in rows if row["steps"]]
    for (n, a), (m, b) in itertools.pairwise(points):
        if (a - 1) * (b - 1) <= 0 and a != b:
            share = -math.log(a) / (math.log(b) - math.log(a))
            return float(math.exp(math.log(n) + share * (math.log(m) - math.log(n))))
    return None


def _write(folder: Path, about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "latency.json", {**about, "rows": list(rows)})
    lines = ["| " + " | ".join(_SHOWN) + " |", "|" + "---|" * len(_SHOWN)]
    for row in rows:
        cells = [
            "" if row[n] is None else f"{row[n]:.4g}" if isinstance(row[n], float) else str(row[n]) for n in _SHOWN
        ]
        lines.append("| " + " | ".join(cells) + " |")
    head = ", ".join(f"{name} {value}" for name, value in about.items())
    write_atomic(folder / "latency.md", (head + "\n\n" + "\n".join(lines) + "\n").encode())
    _draw(folder / "latency.png", about, rows)
    print(f"{folder / 'latency.png'}", file=sys.stderr)


def _draw(path: Path, about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Seconds against steps, causal models as level lines, the break-even marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    points = [row for row in rows if row["steps"]]
    xs, ys = [row["steps"] for row in points], [row["seconds"] for row in points]
    errors = [[row["seconds"] - row["low"] for row in points], [row["high"] - row["seconds"] for row in points]]
    axes.errorbar(xs, ys, yerr=errors, marker="o", label="diffusion, steps")
    for row, style in zip((r for r in rows if not r["steps"]), ("-.", "--", ":"), strict=False):
        axes.axhline(row["seconds"], linestyle=style, color="0.35", label=row["name"])
    if about["break_even_steps"]:
        axes.axvline(about["break_even_steps"], color="0.8", linewidth=1)
        axes.annotate(f"{about['break_even_steps']:.0f} steps", (about["break_even_steps"], min(ys)), rotation=90,
                      ha="right", va="bottom")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="seconds a batch",
             title=f"{about['batch']} × {about['length']} tokens, {about['model']}, {about['device']}")  # fmt: skip
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
