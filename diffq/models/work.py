"""How much work a network does, counted from its sizes: no network is built and no weight is read.

Multiplications are exact (a multiplication and its addition are two FLOPs; norms, activations and softmaxes are not
counted, as torch's own counter does not count them). Element-wise traffic and the number of operations started are
near enough to say what a call costs beside its multiplications. Knows no sampler and no clock.

Symbols: L target positions, S source positions or those attended to, D width, E embedding, H heads, V vocabulary,
C width of the noise level's embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from diffq.models.bidirectional import BidirectionalSettings
    from diffq.models.dit import DiTSettings
    from diffq.models.seq2seq import Seq2SeqSettings

# Operations that one layer, or what stands around the layers, hands to the device: linear maps, norms, views that copy.
_STARTED_A_LAYER, _STARTED_A_CALL = 26, 40
# Passes over the D-wide stream a layer: norms, residual sums, the ReLU's four widths, heads taken apart and joined.
_PASSES_SELF, _PASSES_CROSS, _PASSES_FEED = 11, 7, 13


@dataclass(frozen=True)
class Work:
    """Amounts of the kinds of work that sampling is made of; they add up.

    started       operations handed to the device
    flops         of the network's matrix products
    elements      numbers read or written outside of them
    streamed      weights read, which is what a product costs where few rows share them
    projection    FLOPs of distances to, or inner products with, the vocabulary
    ranked        scores that were only looked through for the best
    weighed       scores that were exponentiated for a draw
    sorted        scores that were sorted for a nucleus
    drawn         keyed random numbers
    """

    started: float = 0.0
    flops: float = 0.0
    elements: float = 0.0
    streamed: float = 0.0
    projection: float = 0.0
    ranked: float = 0.0
    weighed: float = 0.0
    sorted: float = 0.0
    drawn: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self.amounts, other.amounts, strict=True)))

    def __mul__(self, times: float) -> Work:
        return Work(*(a * times for a in self.amounts))

    @property
    def amounts(self) -> tuple[float, ...]:
        return tuple(vars(self).values())


@dataclass(frozen=True)
class Seq2SeqWork:
    """The work of a network of `models.seq2seq` with these settings over a vocabulary of this size."""

    settings: Seq2SeqSettings
    vocab_size: int

    @property
    def inner(self) -> int:
        """Numbers of a position that are multiplied with each word."""
        return self.settings.embedding

    @property
    def table(self) -> int:
        """Float32 numbers that a session keeps of the vocabulary: embeddings of the clamp, with their squares."""
        return 0 if self.settings.process == "causal" else self.vocab_size * (self.settings.embedding + 2)

    @property
    def parameters(self) -> int:
        """Numbers that training fits."""
        s, d = self.settings, self.settings.width
        norm = 2 * d
        feed = 8 * d * d + 5 * d
        attention = 4 * d * d + 4 * d
        encoder = s.encoder_layers * (attention + feed + 2 * norm) + norm
        decoder = s.decoder_layers * (2 * attention + feed + 3 * norm) + norm
        bridge = 0 if s.embedding == d else 2 * s.embedding * d + d + s.embedding
        places = s.max_length * d if s.positions == "learned" else 0
        time = 8 * d * d + 5 * d if getattr(s, "time_mlp", False) else 0
        return self.vocab_size * s.embedding + encoder + decoder + bridge + places + time

    def _bridge(self, tokens: float) -> float:
        """FLOPs of the projection between embeddings and the transformer's width."""
        s = self.settings
        return 0.0 if s.embedding == s.width else 2.0 * tokens * s.embedding * s.width

    def encode(self, rows: int, source: int) -> Work:
        """The encoder over `rows` sources of `source` tokens, and the decoder's keys and values of them."""
        s, d, tokens = self.settings, self.settings.width, rows * source
        layer = tokens * (24 * d * d + 4 * source * d)
        flops = s.encoder_layers * layer + s.decoder_layers * tokens * 4 * d * d + self._bridge(tokens)
        traffic = tokens * (d * (_PASSES_SELF + _PASSES_FEED) + 3 * s.heads * source)
        return Work(
            started=_STARTED_A_LAYER * s.encoder_layers + 4 * s.decoder_layers + _STARTED_A_CALL,
            flops=flops,
            elements=s.encoder_layers * traffic + s.decoder_layers * tokens * 4 * d,
            streamed=(12 * s.encoder_layers + 2 * s.decoder_layers) * d * d,
        )

    def denoise(self, cond: int, uncond: int, length: int, source: int) -> Work:
        """One call of the embedding-diffusion decoder: `cond` rows with a source, `uncond` without.

        A guided pair shares the first self-attention block; what is unconditional has no cross-attention.
        """
        s, d, rows = self.settings, self.settings.width, cond + uncond
        entering = max(cond, uncond)
        first = min(1, s.decoder_layers)
        self_rows = entering * first + rows * (s.decoder_layers - first)
        flops: float = self_rows * length * (8 * d * d + 4 * length * d)
        flops += s.decoder_layers * cond * length * (4 * d * d + 4 * source * d)
        flops += s.decoder_layers * rows * length * 16 * d * d
        flops += self._bridge(entering * length) + self._bridge(rows * length)
        if getattr(s, "time_mlp", False):
            flops += entering * 16 * d * d
        traffic: float = self_rows * length * (_PASSES_SELF * d + 3 * s.heads * length)
        traffic += s.decoder_layers * cond * length * (_PASSES_CROSS * d + 3 * s.heads * source)
        traffic += s.decoder_layers * rows * length * _PASSES_FEED * d
        loop = rows * length * s.embedding * 12  # guidance, the solver's update, and what clamping puts back
        return Work(
            started=_STARTED_A_LAYER * s.decoder_layers + _STARTED_A_CALL,
            flops=flops,
            elements=traffic + loop,
            streamed=14 * s.decoder_layers * d * d,
        )

    def next_token(self, rows: int, seen: int, source: int) -> Work:
        """One call of the causal decoder: a token a row, attending to `seen` tokens of its cache, itself included."""
        s, d = self.settings, self.settings.width
        layer = 28 * d * d + 4 * (seen + source) * d
        cache = 2 * d * (seen + source) + 3 * s.heads * (seen + source)
        traffic = d * (_PASSES_SELF + _PASSES_CROSS + _PASSES_FEED) + cache
        return Work(
            started=_STARTED_A_LAYER * s.decoder_layers + _STARTED_A_CALL,
            flops=rows * s.decoder_layers * layer + self._bridge(rows),
            elements=rows * s.decoder_layers * traffic,
            streamed=14 * s.decoder_layers * d * d,
        )

    def project(self, positions: float) -> float:
        """FLOPs of scores over the vocabulary: inner products, or distances with their squares in the product."""
        s, causal = self.settings, self.settings.process == "causal"
        inner = s.embedding if causal else s.embedding + 2
        return 2.0 * positions * self.vocab_size * inner + (self._bridge(positions) if causal else 0.0)

    def activations(self, rows: int, uncond: int, length: int, source: int) -> int:
        """Numbers that a batch holds at its widest: streams and feed-forward, attention, cached keys and values."""
        s, d, both = self.settings, self.settings.width, rows + uncond
        stream = both * length * (3 * d + 4 * d) + both * length * 3 * s.embedding
        attention = both * s.heads * length * max(length, source)
        kept = rows * source * d * (2 * s.decoder_layers + 1)
        encoding = rows * source * 7 * d
        cache = 2 * rows * length * d * s.decoder_layers if s.process == "causal" else 0
        return max(stream + attention + kept + cache, encoding + kept)


class TextWork(Protocol):
    """The work of a network of running text."""

    @property
    def vocab_size(self) -> int:
        """Tokens that are projected on."""
        ...

    @property
    def inner(self) -> int:
        """Numbers of a position that are multiplied with each word."""
        ...

    @property
    def parameters(self) -> int:
        """Numbers of the network."""
        ...

    def run(self, rows: int, tokens: int, asked: int, seen: int) -> Work:
        """One call: `tokens` new tokens a row attend to `seen`, and the last block gives `asked` of them.

        Masked and uniform models: a row's whole canvas, of which some positions are asked, or the columns of it that
        are computed beside a cache. Causal models: tokens that are appended to the cache, all of them asked; `seen` is
        the cache with them.
        """
        ...

    def project(self, positions: float) -> float:
        """FLOPs of scores over the vocabulary."""
        ...

    def activations(self, rows: int, tokens: int, length: int) -> int:
        """Numbers that a call of so many tokens a row holds at its widest, on canvases of that length: streams and a
        feed-forward, and a causal model's cache."""
        ...


_FREQUENCIES = 256  # of the embedding of σ
# Of a block of `models.dit`: operations started; passes over its D-wide stream where all positions are computed (norm,
# modulation, heads taken apart, the keys' rotation), and where those asked for are (the queries' rotation, norm,
# modulation, the GELU's four widths, gates).
_STARTED_A_BLOCK, _STARTED_A_JUMP = 46, 90
_PASSES_KEYS, _PASSES_QUERIES = 16, 34


@dataclass(frozen=True)
class DiTWork:
    """The `TextWork` of a network of `models.dit` with these settings.

    vocab_size    tokens that are projected on
    embeddings    rows of the embedding matrix: one more where there is a mask
    conditioning  C; None for a network without noise levels
    """

    settings: DiTSettings
    vocab_size: int
    embeddings: int
    conditioning: int | None = None

    @property
    def inner(self) -> int:
        return self.settings.width

    @property
    def parameters(self) -> int:
        """Numbers that training fits."""
        s, d = self.settings, self.settings.width
        tables = (1 if s.tied else 2) * self.embeddings * d
        block = 12 * d * d + 7 * d
        total = tables + self.embeddings + d + s.layers * block
        if self.conditioning is not None:
            c = self.conditioning
            total += c * _FREQUENCIES + c + c * c + c + (6 * s.layers + 2) * d * (c + 1)
        return total

    def run(self, rows: int, tokens: int, asked: int, seen: int) -> Work:
        s, d = self.settings, self.settings.width
        keys = float(tokens * 4 * d * d)
        query = 20 * d * d + 4 * seen * d
        flops = rows * (s.layers * keys + ((s.layers - 1) * tokens + asked) * query)
        streamed = 12 * s.layers * d * d
        if self.conditioning is not None:
            c = self.conditioning
            flops += rows * 2 * (c * _FREQUENCIES + c * c + (6 * s.layers + 2) * d * c)
            streamed += 6 * s.layers * d * c
        whole = tokens * _PASSES_KEYS * d
        queries = _PASSES_QUERIES * d + 3 * s.heads * seen
        return Work(
            started=_STARTED_A_BLOCK * s.layers + _STARTED_A_JUMP,
            flops=flops,
            elements=rows * (s.layers * whole + ((s.layers - 1) * tokens + asked) * queries),
            streamed=streamed,
        )

    def project(self, positions: float) -> float:
        return 2.0 * positions * self.vocab_size * self.settings.width

    def kept(self, rows: int, length: int) -> int:
        """Numbers of the keys and values of all blocks, where a sampler keeps them."""
        return 2 * rows * length * self.settings.width * self.settings.layers

    def activations(self, rows: int, tokens: int, length: int) -> int:
        s, d = self.settings, self.settings.width
        cache = self.kept(rows, length + 1) if s.process == "causal" else 0
        return rows * tokens * 12 * d + cache


# Of a block of `models.bidirectional`: operations started; passes over its D-wide stream where all positions are
# computed (norm, heads taken apart, the keys' rotation), and where those asked for are (the queries' rotation, norm).
_STARTED_A_GATED, _GATED_KEYS, _GATED_QUERIES = 34, 10, 14


@dataclass(frozen=True)
class BidirectionalWork:
    """The `TextWork` of a network of `models.bidirectional` with these settings.

    vocab_size  tokens that are projected on
    embeddings  rows of the embedding matrix
    """

    settings: BidirectionalSettings
    vocab_size: int
    embeddings: int

    @property
    def inner(self) -> int:
        return self.settings.width

    @property
    def _kv_width(self) -> int:
        return self.settings.width // self.settings.heads * self.settings.groups

    @property
    def parameters(self) -> int:
        s, d, kv = self.settings, self.settings.width, self._kv_width
        block = 2 * d + 2 * d * d + 2 * d * kv + 3 * d * s.mlp_width
        block += (d + 2 * kv) * (s.bias or s.qkv_bias) + (2 * d + 2 * s.mlp_width) * s.bias
        head = 0 if s.tied else self.embeddings * (d + s.bias)
        return self.embeddings * d + head + s.layers * block + d

    def run(self, rows: int, tokens: int, asked: int, seen: int) -> Work:
        s, d, kv = self.settings, self.settings.width, self._kv_width
        keys = float(tokens * 4 * d * kv)
        query = 4 * d * d + 6 * d * s.mlp_width + 4 * seen * d
        queries = (s.layers - 1) * tokens + asked
        traffic = _GATED_QUERIES * d + 4 * s.mlp_width + 3 * s.heads * seen
        return Work(
            started=_STARTED_A_GATED * s.layers + _STARTED_A_CALL,
            flops=rows * (s.layers * keys + queries * query),
            elements=rows * (s.layers * tokens * _GATED_KEYS * d + queries * traffic),
            streamed=s.layers * (2 * d * d + 2 * d * kv + 3 * d * s.mlp_width),
        )

    def project(self, positions: float) -> float:
        return 2.0 * positions * self.vocab_size * self.settings.width

    def kept(self, rows: int, length: int) -> int:
        """As that of `DiTWork`."""
        return 2 * rows * length * self._kv_width * self.settings.layers

    def activations(self, rows: int, tokens: int, length: int) -> int:
        s = self.settings
        return rows * tokens * (6 * s.width + 2 * s.mlp_width)
