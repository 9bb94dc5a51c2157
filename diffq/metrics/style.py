"""Style transfer, as ParaDetox measures it: style accuracy, similarity, fluency, and their product sample by sample.

(Logacheva et al. 2022, section 5; its networks are others' and a user gives their folders.)
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.classifiers import class_of, labels, logits, missing
from diffq.metrics.encoders import digest_of, pooled_vectors, sentence_vectors
from diffq.metrics.intervals import scored
from diffq.registry import METRICS
from diffq.settings import setting


@dataclass(frozen=True, kw_only=True)
class PerSample(Metric):
    """The mean over samples of a value of each, times 100; an empty sample has 0."""

    direction: ClassVar[Direction] = "higher"
    costly: ClassVar[bool] = True

    def packages(self) -> tuple[str, ...]:
        return ("torch", "transformers")

    def fetch(self) -> None:
        if reason := self.unavailable():
            raise UserError(reason)

    @abstractmethod
    def of_samples(self, sources: Sequence[str], samples: Sequence[str]) -> np.ndarray:
        """One value a sample, sources[i] being that of samples[i]."""

    def __call__(self, answers: Answers) -> Score:
        self.fetch()
        samples = [text for group in answers.candidates for text in group]
        sources = [s for s, group in zip(answers.sources, answers.candidates, strict=True) for _ in group]
        there = np.array([bool(text.strip()) for text in samples])
        values = np.where(there, self.of_samples(sources, samples), 0.0)
        return scored(self, answers, 100 * values.reshape(len(answers.sources), -1).mean(axis=1))


@dataclass(frozen=True, kw_only=True)
class Classified(PerSample):
    """How often a classifier finds samples to be of one class; `soft` takes its probabilities instead."""

    classifier: str | None = setting(None, "folder of a Hugging Face classifier")
    label: str | int | None = setting(
        None, "the class that is wanted, by its name or number in the classifier's config.json"
    )
    soft: bool = setting(False, "the class' probability instead of 1 where it is the likeliest and 0 elsewhere")

    def needs(self) -> frozenset[str]:
        return frozenset()

    def unavailable(self) -> str | None:
        reason = missing(self.kind, "classifier", self.classifier, f"a classifier of {self._what} (Hugging Face)")
        if reason or self.classifier is None:
            return reason
        if self.label is None or class_of(self.classifier, str(self.label)) is None:
            known = ", ".join(f"{name} ({number})" for number, name in labels(self.classifier).items())
            said = "none is named" if self.label is None else f"it has no class {self.label}"
            return (
                f"{self.kind} needs to know which class of {self.classifier} is wanted, and {said}:"
                f" metric.{self.kind}.label= one of {known}"
            )
        return super().unavailable()

    @property
    def _what(self) -> str:
        return {"sta": "style", "fl": "acceptable sentences (CoLA)"}.get(self.kind, "texts")

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        where = self.classifier or ""
        return {
            "model": PurePath(where).name,
            "weights": digest_of(where),
            "label": class_of(where, str(self.label)) if where and self.label is not None else "none",
            "soft": self.soft,
            "agg": "mean",
        }

    def of_samples(self, sources: Sequence[str], samples: Sequence[str]) -> np.ndarray:
        assert self.classifier is not None
        assert self.label is not None
        wanted = class_of(self.classifier, str(self.label))
        found = logits(self.classifier, samples)
        if not self.soft:
            return (found.argmax(axis=1) == wanted).astype(np.float64)
        shares = np.exp(found - found.max(axis=1, keepdims=True))
        probability: np.ndarray = (shares / shares.sum(axis=1, keepdims=True))[:, wanted]
        return probability


@METRICS.register("sta")
@dataclass(frozen=True, kw_only=True)
class StyleAccuracy(Classified):
    """STA: how often samples are of the wanted style by a classifier, 0 … 100 (ParaDetox: not toxic)."""


@METRICS.register("fl")
@dataclass(frozen=True, kw_only=True)
class Fluency(Classified):
    """FL: how often samples are acceptable sentences by a classifier trained on CoLA, 0 … 100. Blanks before marks are
    taken out first, as in the published code."""

    detokenise: bool = setting(True, "take out blanks before . , ! ? ) and behind ( before the classifier reads")

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        held = dict(super().parts(answers))
        agg = held.pop("agg")
        return held | {"detok": self.detokenise, "agg": agg}

    def of_samples(self, sources: Sequence[str], samples: Sequence[str]) -> np.ndarray:
        return super().of_samples(sources, [_joined(text) for text in samples] if self.detokenise else samples)


def _joined(text: str) -> str:
    return re.sub(r" (?=[.,!?)])|(?<=\() ", "", text)


@METRICS.register("sim")
@dataclass(frozen=True, kw_only=True)
class Similarity(PerSample):
    """SIM: the cosine of a sample's vector with its source's, by an encoder, −100 … 100. ParaDetox takes the encoder of
    Wieting et al. (2019), which is not one of Hugging Face's: another one gives other values."""

    encoder: str | None = setting(None, "folder or hub name of a Hugging Face encoder")
    pooling: Literal["mean", "pooler"] = setting("mean", "mean of the last layer over tokens | the pooler's output")

    def needs(self) -> frozenset[str]:
        return frozenset({"source"})

    def unavailable(self) -> str | None:
        if self.encoder is None:
            return "sim needs an encoder (Hugging Face), and none is given: metric.sim.encoder=FOLDER"
        return super().unavailable()

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        where = self.encoder or ""
        named = {"model": PurePath(where).name, "weights": digest_of(where), "pool": self.pooling}
        return named | {"to": "source", "agg": "mean"}

    def of_samples(self, sources: Sequence[str], samples: Sequence[str]) -> np.ndarray:
        assert self.encoder is not None
        texts = sorted({*sources, *samples})
        vectors = (pooled_vectors if self.pooling == "pooler" else sentence_vectors)(self.encoder, texts)
        place = {text: i for i, text in enumerate(texts)}
        one, other = vectors[[place[t] for t in sources]], vectors[[place[t] for t in samples]]
        cosine: np.ndarray = (one * other).sum(axis=1)
        return cosine


@METRICS.register("joint")
@dataclass(frozen=True, kw_only=True)
class Joint(PerSample):
    """J: the mean over samples of STA · SIM · FL of that same sample, times 100 (ParaDetox): at most 100."""

    style: str | None = setting(None, "folder of the classifier of style")
    style_label: str | int | None = setting(None, "the wanted class of it, by name or number")
    encoder: str | None = setting(None, "folder or hub name of the encoder that similarity is by")
    pooling: Literal["mean", "pooler"] = setting("mean", "mean of the last layer over tokens | the pooler's output")
    fluency: str | None = setting(None, "folder of the classifier of acceptable sentences")
    fluency_label: str | int | None = setting(None, "the class of it that is acceptable, by name or number")
    soft: bool = setting(False, "probabilities instead of 1 and 0 from both classifiers")
    detokenise: bool = setting(True, "take out blanks before marks before the classifier of fluency reads")

    def needs(self) -> frozenset[str]:
        return frozenset({"source"})

    @property
    def factors(self) -> tuple[StyleAccuracy, Similarity, Fluency]:
        """The three figures whose values are multiplied."""
        return (
            StyleAccuracy(classifier=self.style, label=self.style_label, soft=self.soft),
            Similarity(encoder=self.encoder, pooling=self.pooling),
            Fluency(classifier=self.fluency, label=self.fluency_label, soft=self.soft, detokenise=self.detokenise),
        )

    def unavailable(self) -> str | None:
        own = {
            "metric.sta.classifier": "metric.joint.style",
            "metric.sta.label": "metric.joint.style_label",
            "metric.sim.encoder": "metric.joint.encoder",
            "metric.fl.classifier": "metric.joint.fluency",
            "metric.fl.label": "metric.joint.fluency_label",
        }
        for factor in self.factors:
            if reason := factor.unavailable():
                for theirs, ours in own.items():
                    reason = reason.replace(theirs, ours)
                return f"joint is STA · SIM · FL, and {reason}"
        return None

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        sta, sim, fl = (factor.parts(answers) for factor in self.factors)
        return {
            "sta": f"{sta['model']}@{sta['weights']}.{sta['label']}",
            "sim": f"{sim['model']}@{sim['weights']}.{self.pooling}",
            "fl": f"{fl['model']}@{fl['weights']}.{fl['label']}",
            "soft": self.soft,
            "detok": self.detokenise,
            "agg": "mean",
        }

    def of_samples(self, sources: Sequence[str], samples: Sequence[str]) -> np.ndarray:
        product = np.ones(len(samples))
        for factor in self.factors:
            product *= factor.of_samples(sources, samples)
        return product
