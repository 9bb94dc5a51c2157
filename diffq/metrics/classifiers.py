"""Hugging Face classifiers and regressors that metrics ask about texts: logits of texts, or of pairs of them.

torch and transformers are imported where a network is used. It knows no metric, and no network is fetched or chosen
here: a user names a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffq.errors import UserError, in_short
from diffq.hub import no_vain_retries
from diffq.metrics.encoders import longest_input, no_progress_bar

_BATCH_TOKENS = 8192


class Classifier(NamedTuple):
    """A network with a head, in evaluation mode, its tokenizer, and the longest input in tokens."""

    tokenizer: Any
    network: Any
    device: str
    longest: int


@lru_cache(maxsize=4)
def load(where: str, tokenizer: str | None = None) -> Classifier:
    """The classifier of a local folder, on the first GPU where there is one.

    tokenizer: the folder or hub name of its tokenizer, where its own folder has none. UserError where there is no
    classifier, and where a part of its weights is missing: a head that was never trained says nothing.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = str(Path(where).expanduser())
    spoken = tokenizer or folder
    try:
        with no_vain_retries(spoken), no_progress_bar():
            words = AutoTokenizer.from_pretrained(spoken, local_files_only=Path(spoken).is_dir())
            network, said = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where} holds no Hugging Face classifier with its tokenizer ({in_short(error, 120)}); give"
            " the folder that save_pretrained wrote"
        ) from error
    if missing := sorted(said["missing_keys"]):
        raise UserError(
            f"{where} has no weights for {missing[0]}, and random ones say nothing; give a network that was trained as"
            " a classifier"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Classifier(words, network.to(device).eval(), device, longest_input(network, words))


def missing(metric: str, option: str, where: str | None, what: str) -> str | None:
    """Why nothing can be loaded from there, in one sentence, before anything is loaded; None where it may be."""
    if where is None:
        return f"{metric} needs {what}, and none is given: metric.{metric}.{option}=FOLDER"
    if not (Path(where).expanduser() / "config.json").is_file():
        return f"metric.{metric}.{option}={where} is no folder with a config.json; give {what}"
    return None


def labels(where: str) -> dict[int, str]:
    """The names of a classifier's classes by number, as its config.json says; numbers where it names none."""
    import json

    config = json.loads((Path(where).expanduser() / "config.json").read_text(encoding="utf-8"))
    named = config.get("id2label") or {n: f"LABEL_{n}" for n in range(config.get("num_labels", 2))}
    return {int(number): str(name) for number, name in named.items()}


def class_of(where: str, label: str) -> int | None:
    """The number of the class that a user means by its name or its number; None where there is no such class."""
    known = labels(where)
    by_name = {name.lower(): number for number, name in known.items()}
    if label.lower() in by_name:
        return by_name[label.lower()]
    return int(label) if label.isdigit() and int(label) in known else None


def logits(
    where: str,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    tokenizer: str | None = None,
    longest: int | None = None,
) -> np.ndarray:
    """Texts × classes, float64. pairs: a second text for each, read behind the first; longest: tokens that are read at
    most, if the network reads as many."""
    import torch

    made = load(where, tokenizer)
    most = min(longest or made.longest, made.longest)
    second = None if pairs is None else list(pairs)
    rows = made.tokenizer(list(texts), second, truncation=True, max_length=most)
    sizes = [len(ids) for ids in rows["input_ids"]]
    order = sorted(range(len(texts)), key=lambda i: -sizes[i])
    found = np.zeros((len(texts), made.network.config.num_labels))
    with torch.inference_mode():
        while order:
            count = max(1, _BATCH_TOKENS // sizes[order[0]])
            chosen, order = order[:count], order[count:]
            part = {name: [values[i] for i in chosen] for name, values in rows.items()}
            batch = made.tokenizer.pad(part, return_tensors="pt").to(made.device)
            found[chosen] = made.network(**batch).logits.double().cpu().numpy()
    return found
