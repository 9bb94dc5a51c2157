"""Corpora that were published as space-separated tokens, turned back into text as it is written.

A language model that never saw " n't" or "@-@" is not to be judged on them: the papers of this family detokenise
before they measure zero-shot perplexity (Lou et al. 2024, §5.2; Sahoo et al. 2024, appendix). Each function takes and
gives a text. They are guesses about writing, right nearly always; a text without such marks stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Rules = Sequence[tuple[re.Pattern[str], str]]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return [(re.compile(pattern), replacement) for pattern, replacement in pairs]


def _apply(text: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


_CLOSING = _rules(
    (r" ([.,;:!?%)\]}])", r"\1"),
    (r"([(\[{$£€]) ", r"\1"),
)
_CONTRACTIONS = _rules((r" (n't\b)", r"\1"), (r" ('(?:s|S|re|ve|ll|d|m|t)\b)", r"\1"))

_WIKITEXT = _rules(
    (r" @-@ ", "-"),
    (r" @,@ ", ","),
    (r" @\.@ ", "."),
    (r"(?m)^ ?((?:= )+)(.*?)((?: =)+) ?$", r"\1\2\3"),
    (r"(\d) / (\d)", r"\1/\2"),
    (r" ° ", "° "),
    (r" – (?=\d)", "–"),
)


def _quotes(text: str) -> str:
    """`" a "` becomes `"a"`, paired from the left within a line."""
    lines = []
    for line in text.split("\n"):
        parts = line.split('"')
        made = parts[0]
        for i, part in enumerate(parts[1:], 1):
            opens = i % 2 == 1
            made = (made + '"' + part.lstrip(" ")) if opens else (made.rstrip(" ") + '"' + part)
        lines.append(made)
    return "\n".join(lines)


def wikitext(text: str) -> str:
    """WikiText-2 and WikiText-103 (Merity et al. 2016): @-@, spaced punctuation, spaces at the ends of lines."""
    text = _apply(text, _WIKITEXT)
    text = _quotes(_apply(_apply(text, _CLOSING), _CONTRACTIONS))
    text = re.sub(r"(\w) '(?= )", r"\1'", text)
    return "\n".join(line.strip(" ") for line in text.split("\n"))


def ptb(text: str) -> str:
    """Penn Treebank in Mikolov's form: N for numbers stays, as do the unknown words."""
    text = _apply(_apply(text, _CONTRACTIONS), _CLOSING)
    return re.sub(r"\$ N", "$N", text).strip(" ")


def lm1b(text: str) -> str:
    """The One Billion Word benchmark."""
    text = re.sub(r"http : / / www ?\. ", "http://www.", text)
    text = re.sub(r"(\w) '(\w)", r"\1'\2", _apply(text, _CONTRACTIONS))
    text = _quotes(_apply(text, _CLOSING))
    return text.replace("''", '"').replace("``", '"').strip(" ")


def lambada(text: str) -> str:
    """LAMBADA: typographic quotes are made plain, as in the version that OpenAI measures on."""
    for fancy, plain in (("“", '"'), ("”", '"'), ("‘", "'"), ("’", "'"), ("''", '"'), ("``", '"')):
        text = text.replace(fancy, plain)
    return text.strip()


DETOKENISERS: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "wikitext": wikitext,
    "ptb": ptb,
    "lm1b": lm1b,
    "lambada": lambada,
}
