"""The classes of masked networks of Hugging Face `transformers` that can be trained here, and how the configuration of
one differs from another's.

RoBERTa and BERT have tables of places and norms behind each sum. ModernBERT (Warner et al. 2024, arXiv 2412.13663) has
rotary places, norms before each block and gated feed-forward networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from diffq.errors import UserError, unknown

Family = Literal["roberta", "bert", "modernbert"]
_BEHIND_PAD = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "roberta-prelayernorm",
    "camembert",
    "mpnet",
    "data2vec-text",
)


def first_place(family: str, pad: int) -> int:
    """The row of the table of places that the first position has: in RoBERTa's kind that behind the padding's id.

    family: the library's name of it, `model_type`
    """
    return pad + 1 if family in _BEHIND_PAD else 0


@dataclass(frozen=True)
class Classes:
    """The library's classes of one family.

    name      what the classes' names begin with
    own       settings of a network that has no start
    dropouts  names of the settings that are our dropout
    kept      names of the settings that a start brings along
    modern    rotary places and gated feed-forward networks, neither with biases
    """

    name: str
    own: Mapping[str, Any]
    dropouts: tuple[str, ...]
    kept: tuple[str, ...]
    modern: bool = False

    def inner(self, width: int) -> int:
        """The width inside of a feed-forward network of some width: a gated one has three matrices, the others two, and
        8/3 of the width gives it as many numbers as they have with four times."""
        return 8 * round(width / 3) if self.modern else 4 * width

    def configuration(self, settings: Mapping[str, Any], library: Mapping[str, Any]) -> Any:
        """The library's configuration of our settings, and of further ones as the library calls them. UserError for
        such a one that it does not know or that is ours to say, and for a value that it does not take."""
        import transformers

        kind = getattr(transformers, f"{self.name}Config")
        known = {*vars(kind()), *self.kept}
        for name in library:
            if name in self.ours:
                raise UserError(f"model.library: {name} follows from the model's other settings; leave it out")
            if name not in known:
                raise unknown(f"setting of transformers.{kind.__name__}", name, known)
        try:
            return kind(**{**self.own, **settings, **library})
        except Exception as error:  # it checks by means of its own: each another exception
            raise UserError(f"model.library: {kind.__name__} refuses it: {' '.join(str(error).split())}") from error

    @property
    def ours(self) -> tuple[str, ...]:
        """Names of what the settings of a model say."""
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        return (*sizes, "max_position_embeddings", *self.dropouts)

    def network(self, configuration: Any) -> Any:
        """A network with random weights. UserError where the library cannot make it."""
        import transformers

        try:
            return getattr(transformers, f"{self.name}ForMaskedLM")(configuration)
        except Exception as error:  # such as an activation that it does not have
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(f"model.library: {self.name}ForMaskedLM cannot be made of it ({reason})") from error


_TOKENS = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "initializer_range")
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_KEPT = (*_TOKENS, "type_vocab_size", "layer_norm_eps", "hidden_act")
_KEPT_MODERN = (*_TOKENS, "cls_token_id", "sep_token_id", "norm_eps", "norm_bias", "attention_bias", "mlp_bias",
                "decoder_bias", "classifier_bias", "classifier_activation", "hidden_activation", "layer_types",
                "global_attn_every_n_layers", "local_attention", "rope_parameters", "global_rope_theta",
                "local_rope_theta")  # fmt: skip

CLASSES: Mapping[Family, Classes] = {
    "roberta": Classes("Roberta", {"type_vocab_size": 1, "layer_norm_eps": 1e-5}, _DROPOUTS, _KEPT),
    "bert": Classes("Bert", {"type_vocab_size": 2, "layer_norm_eps": 1e-12}, _DROPOUTS, _KEPT),
    "modernbert": Classes(
        "ModernBert",
        {"global_attn_every_n_layers": 1},  # a canvas of ours is short: every layer sees all of it
        ("embedding_dropout", "mlp_dropout", "attention_dropout"),
        _KEPT_MODERN,
        modern=True,
    ),
}
