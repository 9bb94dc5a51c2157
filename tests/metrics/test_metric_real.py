"""A real system's outputs on QQP with their published scores: ours must be those."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from diffq.metrics.base import Answers
from diffq.metrics.bleu import Bleu
from diffq.metrics.rouge import Rouge
from diffq.metrics.self_bleu import SelfBleu
from diffq.metrics.sentence_bleu import SentenceBleu

pytestmark = pytest.mark.data


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(data_dir: Path) -> Path:
    return data_dir / "generation_outputs" / "bridge_gap_qqp_20"


@pytest.fixture(scope="module")
def published(folder: Path) -> dict[str, float]:
    found = {}
    for line in (folder / "mbr_scores.txt").read_text().splitlines():
        name, _, value = line.partition(": ")
        if name.startswith(("bleu", "rouge")):
            found[name] = float(value)
    return found


@pytest.fixture(scope="module")
def answers(folder: Path) -> Answers:
    held = rows(folder / "mbr.jsonl")
    assert len(held) == 1091
    return Answers(
        sources=tuple(row["source"] for row in held),
        references=tuple((row["reference"],) for row in held),
        candidates=tuple((row["recover"],) for row in held),
    )


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_sentence_bleu_as_published(answers, published, order):
    assert SentenceBleu(order=order)(answers).value / 100 == pytest.approx(published[f"bleu_{order}"], abs=1e-14)


@pytest.mark.parametrize("variant", ["rouge1", "rouge2", "rougeL"])
def test_rouge_as_published(answers, published, variant):
    assert Rouge(variant=variant)(answers).value / 100 == pytest.approx(published[variant], abs=1e-7)


def test_sacrebleu_is_another_figure_and_ours_is_its(answers):
    import sacrebleu

    texts = [texts[0] for texts in answers.candidates]
    expected = sacrebleu.corpus_bleu(texts, [[refs[0] for refs in answers.references]]).score
    found = Bleu()(answers)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.low < found.value < found.high
    assert abs(found.value - SentenceBleu()(answers).value) > 1


def test_ten_real_samples_a_source(folder):
    import sacrebleu

    def clean(text: str) -> str:
        return text.replace("[CLS]", "").replace("[SEP]", "").strip()

    files = [rows(path) for path in sorted(folder.glob("seed*.jsonl"))]
    assert len(files) == 10
    groups = tuple(tuple(clean(row["recover"]) for row in same) for same in zip(*files, strict=True))
    given = Answers(sources=("q",) * len(groups), references=(("r",),) * len(groups), candidates=groups)
    start = time.perf_counter()
    found = SelfBleu()(given)
    assert time.perf_counter() - start < 10
    for texts, value in list(zip(groups, found.per_source[:, 0], strict=True))[:60]:
        streams = [[texts[(i + k) % 10] for i in range(10)] for k in range(1, 10)]
        assert value == pytest.approx(sacrebleu.corpus_bleu(list(texts), streams).score, abs=1e-9)
