"""A store with points on the grammar world that no network has sampled: references with words exchanged."""

from __future__ import annotations

import functools
import random
import shutil
import tempfile
from pathlib import Path

from diffq.config import compose
from diffq.data.tokenizers import build_tokenizer
from diffq.settings import as_mapping, key_fields
from diffq.store import Identity, PlanRow, Store, SweepFolder, digest_sources

SOURCES, SAMPLES = 20, 3
NOISE = {"scale=1 temperature=0": 0.25, "scale=1 temperature=1": 0.6, "scale=3 temperature=0": 0.1,
         "scale=3 temperature=1": 0.4}  # fmt: skip


@functools.cache
def _template() -> tuple[Store, Path, tempfile.TemporaryDirectory]:
    kept = tempfile.TemporaryDirectory()
    return *_make_store(Path(kept.name)), kept


def make_store(root: Path) -> tuple[Store, Path]:
    """Six points of three samplers, and a sweep of them, in a folder of their own."""
    store, sweep, _ = _template()
    shutil.copytree(store.outputs, root / "outputs")
    for path in (root / "outputs").glob("points/**/config.yaml"):
        path.write_text(path.read_text().replace(str(store.outputs), str(root / "outputs")))
    return Store(root / "outputs"), root / "outputs" / sweep.relative_to(store.outputs)


def _make_store(root: Path, samples: int = SAMPLES) -> tuple[Store, Path]:
    store = Store(root / "outputs")
    checkpoint = store.train / "grammar-tiny-123456"
    rows, corpus = [], None
    for sampler, dials, noise in [
        ("dpmpp", ["scale=1"], 0.3),
        *[("clamp_before_cfg", dials.split(), noise) for dials, noise in NOISE.items()],
        ("autoregressive", ["temperature=0.7"], 0.35),
    ]:
        config = compose([
            "dataset=grammar", f"sampler={sampler}", *dials, f"num_sources={SOURCES}", f"num_samples={samples}",
            f"checkpoint={checkpoint}",
        ])  # fmt: skip
        corpus = corpus or config.dataset.open()
        if not checkpoint.exists():
            build_tokenizer(config.dataset.tokenizer, corpus).save(checkpoint / "tokenizer")
        examples = list(corpus.split("test"))[:SOURCES]
        identity = Identity(
            dataset=config.choices.dataset,
            dataset_key=key_fields(config.dataset),
            sources=digest_sources((e.index, e.source, e.references) for e in examples),
            process=config.model.process,
            model=config.choices.model,
            checkpoint="c" * 64,
            sampler=config.sampler,
            seed=0,
            dtype="float32",
            length=config.length if config.sampler.takes_length else "free",
        )
        point = store.point(identity)
        rows.append(PlanRow(identity.key, store.relative(point.folder), sampler, samples, "world"))
        draw = random.Random(noise)
        words = sorted({w for e in examples for w in e.references[0].split()})
        with point.claim() as claim:
            claim.resume([])
            claim.write_config(as_mapping(config))
            for sample in range(samples):
                batch = []
                for at, example in enumerate(examples):
                    text = " ".join(
                        draw.choice(words) if draw.random() < noise else w for w in example.references[0].split()
                    )
                    batch.append({"row": sample * len(examples) + at, "source": example.index, "sample": sample,
                                  "prompt_ids": [], "ids": [], "text": text, "ended": True, "nfe": 3})  # fmt: skip
                claim.append(batch)
            claim.finish({
                "samples": samples, "sources": len(examples), "nfe_calls": 30, "nfe_rows": 30 * SOURCES * samples,
                "seconds": 1.5, "tokens": 900, "peak_memory_bytes": 10_000_000,
            })  # fmt: skip
    sweep = SweepFolder(store.sweeps / "grammar-made-up")
    sweep.write(rows)
    return store, sweep.folder
