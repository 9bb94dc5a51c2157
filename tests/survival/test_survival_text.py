"""Running text that is cut off: trainings, sweeps, likelihoods and the harness' answers end as if nothing had been.

Deaths in the middle of a record are made by the kernel (RLIMIT_FSIZE, SIGXFSZ), those between two operations by an
audit hook, as for pairs.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from deaths import die_everywhere, kill_again_and_again, targets, weights
from survival_harness import ForkServer, Tally, results

SIZES = ("model=mdlm_tiny", "model.width=16", "model.heads=2", "model.layers=1", "model.max_length=16")
TRAIN_TEXT = ("trainer.batch_size=4", "trainer.max_minutes=null", "trainer.max_steps=12", "trainer.schedule=constant",
              "trainer.validation_sources=4", "trainer.previews=1")  # fmt: skip
GRID_TEXT = ("sampler=ancestral", "temperature=0.5,1", "steps=4", "batch_tokens=48", "num_samples=40",
             "metric=unigram_entropy,loops", "--json")  # fmt: skip
SUNS = ("sun", "moon", "sea", "sand")


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The words that name a folder of short documents, in splits."""
    folder = tmp_path_factory.mktemp("text")
    for split, count in (("train", 300), ("valid", 40), ("test", 300)):
        lines = [" ".join(SUNS[(i * 7 + i // 5 + j) % 4] for j in range(4 + i % 3)) for i in range(count)]
        (folder / f"{split}.txt").write_text("\n".join(lines))
    return ("dataset=textfiles", f"dataset.path={folder}", "dataset.tokenizer=characters", "dataset.documents=row",
            "dataset.block=12", *SIZES)  # fmt: skip


@pytest.fixture(scope="session")
def trained_text(server: ForkServer, text: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with a training of a few steps and nothing else."""
    outputs = tmp_path_factory.mktemp("trained_text") / "outputs"
    server.finish(["train", f"outputs={outputs}", *text, *TRAIN_TEXT])
    return outputs


@pytest.fixture
def outputs(trained_text: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained_text, tmp_path / "outputs"))


@pytest.mark.slow
def test_train(server: ForkServer, text: Sequence[str], tmp_path: Path) -> None:
    words = ["train", *text, *TRAIN_TEXT, "trainer.save_steps=3", "trainer.keep=2"]
    die_everywhere(server, words, tmp_path / "nothing", tmp_path, 3, weights)


@pytest.mark.slow
def test_kills_of_a_sweep(
    server: ForkServer, text: Sequence[str], trained_text: Path, outputs: Path, tmp_path: Path
) -> None:
    whole = Path(shutil.copytree(trained_text, tmp_path / "whole"))
    server.finish(["sweep", f"outputs={whole}", *text, *GRID_TEXT])
    words, tally = ["sweep", f"outputs={outputs}", *text, *GRID_TEXT], Tally()
    kill_again_and_again(lambda: server.start(words), outputs, whole, targets(whole, 4, 7), tally, "in a fork")
    server.finish(words)
    assert results(outputs) == results(whole)
    print(tally.say())
    assert tally.partial >= 3


def die_within(server: ForkServer, words: Sequence[str], whole: Path, outputs: Path, pattern: str, deaths: int) -> None:
    """Ends `words` by the kernel where the file of `pattern` has so many bytes, again and again, in one folder.

    `whole` is what an uninterrupted run leaves; all its other files are smaller than the first limit, or there before.
    Each time the file must be a beginning of what it is there, and at last all of `pattern`'s folder the same.
    """
    (file,) = whole.glob(pattern)
    expected = file.read_bytes()
    least = 2048
    assert all(p.stat().st_size < least for p in file.parent.iterdir() if p != file)
    for number in range(deaths):
        limit = (least + (len(expected) - least) * number // deaths) | 1  # no end of a window, which has 16 bytes
        status, said = server.run([*words, f"outputs={outputs}"], limit=limit, deadly=True)
        assert status == -25, said
        (cut,) = outputs.glob(pattern)
        left = cut.read_bytes()
        assert left == expected[:limit]
    server.finish([*words, f"outputs={outputs}"])
    (made,) = outputs.glob(pattern)
    for path in file.parent.iterdir():
        assert (made.parent / path.name).read_bytes() == path.read_bytes(), path.name
    assert sorted(p.name for p in made.parent.iterdir()) == sorted(p.name for p in file.parent.iterdir())
    print(f"{words[0]}: {deaths} deaths within {file.name}")


def test_likelihood(server: ForkServer, text: Sequence[str], outputs: Path, tmp_path: Path) -> None:
    words = ["likelihood", *text, "--draws", "2", "--json"]
    server.finish([*words, f"outputs={outputs}", "num_sources=1"])  # cuts the text into tokens, which is a large file
    shutil.rmtree(outputs / "likelihood")
    whole = Path(shutil.copytree(outputs, tmp_path / "whole"))
    server.finish([*words, f"outputs={whole}"])
    die_within(server, words, whole, outputs, "likelihood/*/nats.f64", 2)


@pytest.mark.slow
def test_likelihood_between_operations(
    server: ForkServer, text: Sequence[str], trained_text: Path, tmp_path: Path
) -> None:
    def found(outputs: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in outputs.glob("likelihood/*/*")}

    die_everywhere(server, ["likelihood", *text, "--draws", "2"], trained_text, tmp_path, 3, found)


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """A fork server that has the harness imported, and its questions."""
    pytest.importorskip("lm_eval")
    data = tmp_path_factory.mktemp("data")
    (data / "lm_eval").mkdir()
    with gzip.open(data / "lm_eval/lambada_openai.jsonl.gz", "wt") as file:
        for i in range(240):
            context = f"{SUNS[i % 4]} {SUNS[i // 4 % 4]}"[: 4 + i % 5]
            file.write(json.dumps({"context": context, "continuation": SUNS[i // 16 % 4]}) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFQ_DATA", str(data))
        patch.setenv("HF_DATASETS_CACHE", str(data / "cache"))
        made = ForkServer(tmp_path_factory.mktemp("asking"), modules=("diffq.runs.harness_model", "lm_eval.tasks"))
    yield made
    made.close()


@pytest.mark.slow
def test_harness(asking: ForkServer, text: Sequence[str], outputs: Path, tmp_path: Path) -> None:
    words = ["harness", "tasks=lambada", *text, "--draws", "2", "--json"]
    whole = Path(shutil.copytree(outputs, tmp_path / "whole"))
    asking.finish([*words, f"outputs={whole}"])
    die_within(asking, words, whole, outputs, "harness/*/answers.jsonl", 2)
