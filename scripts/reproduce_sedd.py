"""Trains SEDD, MDLM and their causal twin on WikiText-2 within a budget, sweeps them, and writes docs/results/.

What `scripts/reproduce_sedd.sh BUDGET_MINUTES` runs. Called again it goes on: trainings and points that are finished
are not touched. Half of the budget goes to the three models in equal parts, a fifth to a judge on the other half of the
text, the rest to sampling. Of the size of `_small` on a GPU, of `_mini` elsewhere.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from reproducing import ROOT, arguments, keep, keep_paper, on_gpu, run, train


def asked() -> argparse.Namespace:
    parser = arguments(__doc__ or "", "wikitext2")
    parser.add_argument("--block", type=int, default=None, help="tokens a window; 1024 on a GPU, 128 elsewhere")
    parser.add_argument("--samples", type=int, default=None, help="samples a point; 512 on a GPU, 200 elsewhere")
    return parser.parse_args()


def train_on(part: str, model: str, minutes: float, said: argparse.Namespace, gpu: bool) -> Path:
    trainer = ["trainer=text_gpu"] if gpu else ["trainer=text_cpu", "trainer.batch_size=4"]
    data = ("dataset=wikitext2", f"dataset.part={part}", f"dataset.block={said.block}")
    return train(f"model={model}", *data, *trainer, f"max_minutes={minutes:.2f}", f"outputs={said.outputs}")


def main() -> None:
    said, gpu = asked(), on_gpu()
    said.block = said.block or (1024 if gpu else 128)
    said.samples = said.samples or (512 if gpu else 200)
    size = "small" if gpu else "mini"
    results = Path(said.results or ROOT / "docs" / "results" / f"wikitext2-{'gpu' if gpu else 'cpu'}")
    began = time.monotonic()
    for model in ("sedd", "mdlm", "causal_lm"):
        train_on("1/2", f"{model}_{size}", said.minutes / 6, said, gpu)
    judge = train_on("2/2", "causal_lm_medium" if gpu else "causal_lm_judge", said.minutes / 5, said, gpu)
    sweep = f"wikitext2_{'gpu' if gpu else 'cpu'}"
    common = [f"dataset.block={said.block}", f"num_samples={said.samples}", f"outputs={said.outputs}"]
    run("sweep", f"experiment={sweep}", f"metric.gen_ppl.judge={judge}", *common)
    for model in ("sedd", "mdlm", "causal_lm"):
        run("likelihood", f"model={model}_{size}", "dataset=wikitext2", f"dataset.block={said.block}",
            "num_sources=200", "dataset.part=1/2", f"outputs={said.outputs}")  # fmt: skip
    run("bench", "latency", f"model=mdlm_{size}", f"outputs={said.outputs}")
    keep_all(Path(ROOT, said.outputs), sweep, results)
    print(f"{results}: {(time.monotonic() - began) / 60:.0f} minutes")


def keep_all(outputs: Path, sweep: str, results: Path) -> None:
    """Copies the pictures and tables that a page is written around."""
    files = [outputs / "sweeps" / sweep / f"frontier.{ending}" for ending in ("png", "csv", "md")]
    files += [
        outputs / "sweeps" / sweep / "comparisons.md",
        outputs / "bench" / "latency.md",
        outputs / "bench" / "latency.png",
    ]
    keep(results, files)
    lines = ["| dataset | model | perplexity | nats a token | ± drawing | windows |", "|---|---|---|---|---|---|"]
    for file in sorted(outputs.glob("likelihood/*/likelihood.json")):
        row = json.loads(file.read_text(encoding="utf-8"))
        bound = "≤ " if row["bound"] else ""
        lines.append(
            f"| {row['dataset']} | {row['model']} | {bound}{row['perplexity']:.4g} | {row['nats_per_token']:.4f} |"
            f" {row['drawing_error']:.4f} | {row['windows']} |"
        )
    (results / "likelihood.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    keep_paper(results, "2406.11473", outputs)


if __name__ == "__main__":
    main()
