"""Trains conditional masked models with and without masks by entropy, SEDD and a causal model on ROCStories and
ParaDetox, all for one time, sweeps them, and writes docs/results/.

What `scripts/reproduce_eags.sh BUDGET_MINUTES` runs. Called again it goes on: trainings and points that are finished
are not touched. Nine tenths of the budget are for trainings: every kind of model has one share a data set, of which a
masked model spends a third on uniform masking. That is then the frozen model of entropies, and the start of two
continuations, by uniform masking and by ENS, of two thirds each, of which ENS asks for its entropies first. A causal
judge of the stories has one share, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproducing import ROOT, arguments, countable, counts, keep, keep_paper, on_gpu, run, train

ROOMS = {"rocstories": 64, "paradetox": 32}
"""Places for a target."""

MAUVE = "mauve_by_minilm"

MODELS = {
    False: {
        "eags": ("model=eags_tiny",),
        "sedd": ("model=sedd_tiny", "model.layers=3"),
        "causal": ("model=causal_seq2seq_tiny", "model.width=128", "model.embedding=128", "model.max_length=128"),
        "judge": ("model=causal_lm_tiny", "model.width=192"),
        "trainer": ("trainer=cpu", "trainer.batch_size=32", "trainer.warmup_steps=100", "trainer.learning_rate=2e-3"),
    },
    True: {
        "eags": ("model=eags", "model.family=modernbert"),
        "sedd": ("model=sedd_small",),
        "causal": ("model=causal_seq2seq", "model.max_length=128"),
        "judge": ("model=causal_lm_small",),
        "trainer": ("trainer=gpu",),
    },
}
"""By whether there is a GPU; on a CPU 3 blocks of width 128."""

ENS = ("trainer.noise=ens", "trainer.fill=apart", "trainer.entropy_from=frozen_once")
ASKING = 1 / 24
"""The share that asking the frozen model takes of a continuation by ENS: in one pass a text, half a minute of
twelve. Position by position it takes five or six minutes."""


SAMPLED = (
    ("ens", "eags", "5", "masked_only"),
    ("ens", "random", "5", ""),
    ("uniform", "eags", "5", "masked_only"),
    ("uniform", "random", "5", ""),
    ("uniform", "random", "20", ""),
    ("uniform", "eags", "5", "all"),
    ("sedd", "analytic", "64", ""),
    ("sedd", "low_confidence", "5", ""),
    ("causal", "autoregressive", "", ""),
)
"""The points whose samples are kept: training, sampler, steps, update."""


@dataclass(frozen=True)
class Work:
    """What is trained and sampled, and where. share: minutes of training."""

    said: argparse.Namespace
    sizes: Mapping[str, tuple[str, ...]]
    names: Sequence[str]

    @property
    def outputs(self) -> Path:
        return Path(ROOT, self.said.outputs)

    @property
    def share(self) -> float:
        shares = len(self.names) * (1 / 3 + 2 / 3 + 2 / 3 + 2) + ("rocstories" in self.names)
        return 0.9 * self.said.minutes / shares

    def train(self, dataset: str, kind: str, label: str, shares: float, *words: str) -> Path:
        minutes = f"max_minutes={shares * self.share:.2f}"
        common = (*self.sizes["trainer"], f"trainer.label={label}", minutes, f"outputs={self.said.outputs}")
        return train(*self.sizes[kind], f"dataset={dataset}", *words, *common)

    def train_all(self, dataset: str) -> dict[str, Path]:
        """The trainings on one data set, by their labels."""
        data = [f"dataset.room={ROOMS[dataset]}"]
        weights = []
        if self.said.start:
            data, weights = [*data, "dataset.tokenizer=roberta"], [f"model.start={self.said.start}"]
        start = self.train(dataset, "eags", "start", 1 / 3, *data, *weights)
        more = (*data, f"model.start={start}")
        return {
            "ens": self.train(dataset, "eags", "ens", 2 / 3 - ASKING, *more, *ENS),
            "uniform": self.train(dataset, "eags", "uniform", 2 / 3, *more),
            "sedd": self.train(dataset, "sedd", "sedd", 1, *data),
            "causal": self.train(dataset, "causal", "causal", 1, *data),
        }

    def train_judge(self, stories: Path) -> Path:
        """On the rows that the others learn from."""
        words = (f"dataset.path={stories}", "dataset.valid_fraction=0.1", "dataset.test_fraction=0.1")
        return self.train("textfiles", "judge", "judge", 1, *words, "dataset.tokenizer=cut:gpt2", "dataset.block=64")

    def sweep(self, experiment: str, dataset: str, place: Path, *words: str) -> None:
        """The grids of an experiment for the model of a training, on the data that are asked for."""
        model = f"model={place.name.split('-')[1]}"
        asked = (model, f"dataset={dataset}", f"dataset.room={ROOMS[dataset]}", f"checkpoint={place}")
        run("sweep", f"experiment={experiment}", *asked, *words, *counts(self.said), f"outputs={self.said.outputs}")

    def sweep_all(self, dataset: str, places: Mapping[str, Mapping[str, Path]], *words: str) -> None:
        """Every point of a data set, those of the other data's models among them. words: of every command."""
        of = places[dataset]
        for label in ("ens", "uniform"):
            self.sweep("eags_orders", dataset, of[label], *words)
            self.sweep("eags_energy", dataset, of[label], *words)
        self.sweep("eags_peers", dataset, of["sedd"], "sampler=analytic", *words)
        self.sweep("eags_orders", dataset, of["sedd"], "sampler=eags,random,low_confidence", *words)
        self.sweep("eags_peers", dataset, of["causal"], "sampler=autoregressive", *words)
        for other in (places[name] for name in places if name != dataset):
            at_one = ("temperature=1", *words)
            self.sweep("eags_orders", dataset, other["ens"], "sampler=eags", "steps=5", *at_one)
            self.sweep("eags_peers", dataset, other["sedd"], "sampler=analytic", "steps=5,64", *at_one)

    def report(self, points: Sequence[str], y: str) -> Path:
        """The folder of a report of points."""
        asked = ("--x", "vendi_ngram_4", "--y", y, "--format", "png,csv", f"outputs={self.said.outputs}")
        return Path(ROOT, run("report", *points, *asked, held=True).splitlines()[-1]).parent

    def pictured(self, rows: Path) -> list[str]:
        """The points of a frontier.csv that fit into one picture: EAGS and random order at five and twenty steps, as
        the paper has them, on the models of either masking; SEDD's own sampler; the causal model."""
        plain = {"dial_order": "high_entropy", "dial_update": "masked_only", "dial_entropy": "shannon"}
        found = []
        for row in _points(rows):
            led = row["sampler"] in ("eags", "random") and row["dial_steps"] in ("5", "20")
            own = row["training"] in ("ens", "uniform") and led and all(row[k] in ("", v) for k, v in plain.items())
            if own or (row["sampler"] in ("analytic", "autoregressive") and row["training"] in ("sedd", "causal")):
                found.append(str(self.outputs / row["folder"]))
        return found

    def samples(self, rows: Path) -> str:
        """The first answers to the first three sources at points of a frontier.csv, at temperature 1, as a section."""
        held = [row for row in _points(rows) if float(row["dial_temperature"]) == 1]
        lines = []
        for training, sampler, steps, update in SAMPLED:
            wanted = {"training": training, "sampler": sampler, "dial_steps": steps, "dial_update": update}
            wanted |= {"dial_order": "high_entropy", "dial_entropy": "shannon"} if sampler == "eags" else {}
            for row in (r for r in held if all(r.get(k, "") == v for k, v in wanted.items())):
                said = [
                    training,
                    sampler,
                    f"{steps} steps" if steps else "",
                    "and a Gibbs sweep" if update == "all" else "",
                ]
                lines += ["", f"**{', '.join(filter(None, said))}**", "", *_first_answers(self.outputs / row["folder"])]
        return "\n".join(lines)


def _points(rows: Path) -> list[dict[str, str]]:
    """The rows of a frontier.csv that are no null lines."""
    with open(rows, encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == "point"]


def _first_answers(folder: Path) -> list[str]:
    """One a source, as items of a list."""
    with open(folder / "samples.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    first = sorted((row for row in rows if row["sample"] == 0), key=lambda row: int(row["source"]))[:3]
    return ["- " + " ".join(row["text"].split()) for row in first]


def _told(rows: Path, metric: str) -> bool:
    """Whether the points of a frontier.csv have this metric: a few answers have no MAUVE."""
    return all(row.get(metric) for row in _points(rows))


def main() -> None:
    parser = countable(arguments(__doc__ or "", "eags"))
    parser.add_argument("--only", choices=ROOMS, default=None, help="one data set alone")
    parser.add_argument(
        "--start", default=None, help="a RoBERTa that the masked models start from: a folder, a hub name"
    )
    said, gpu, began = parser.parse_args(), on_gpu(), time.monotonic()
    sizes = MODELS[gpu] | ({"eags": ("model=eags",)} if said.start else {})
    results = Path(said.results or ROOT / "docs" / "results" / f"eags-{'gpu' if gpu else 'cpu'}")
    work = Work(said, sizes, [said.only] if said.only else list(ROOMS))
    places = {dataset: work.train_all(dataset) for dataset in work.names}
    samples = [
        "# Samples",
        "",
        "The first answers to the first three sources of each test split, temperature 1, as they came.",
    ]
    stories = Path(os.environ.get("DIFFQ_DATA", "nowhere"), "rocstories", "roc_valid.jsonl")
    judge = work.train_judge(stories) if "rocstories" in places and stories.is_file() else None
    for dataset in places:
        judged = judge is not None and dataset == "rocstories"
        work.sweep_all(dataset, places, *([f"metric.gen_ppl_given.judge={judge}"] if judged else []))
        y = f"gen_ppl_given_by_{work.sizes['judge'][0].partition('=')[2]}" if judged else "bleu"
        whole = work.report([str(work.outputs / "points" / dataset)], y)
        keep(results, [whole / "frontier.csv", whole / "energy.png"], f"{dataset}-")
        shown = y if judged or not _told(whole / "frontier.csv", MAUVE) else MAUVE  # BLEU-4 is near 0 for most
        keep(results, [work.report(work.pictured(whole / "frontier.csv"), shown) / "frontier.png"], f"{dataset}-")
        samples += ["", f"## {dataset}", work.samples(whole / "frontier.csv")]
    results.mkdir(parents=True, exist_ok=True)
    (results / "samples.md").write_text("\n".join(samples) + "\n", encoding="utf-8")
    keep_paper(results, "2411.06438", work.outputs)
    print(f"{results}: {(time.monotonic() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
