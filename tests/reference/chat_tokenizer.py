"""Small tokenizers in the form in which LLaDA and Dream are published: 50 byte-level tokens, then special ones."""

from __future__ import annotations

import json
from pathlib import Path

LLADA_TEMPLATE = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] +"
    " '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.first %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
DREAM_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}\n    {{- '<|im_start|>system\nYou help.<|im_end|>\n' }}\n{%- endif %}\n"
    "{%- for message in messages %}\n    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n{%- endif %}\n"
)
# Ids 50 … 59; 55 is the mask in both.
SPECIALS = {
    "llada": ["<|endoftext|>", "<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
              "<|mdm_mask|>", "<|r0|>", "<|r1|>", "<|r2|>", "<|r3|>"],
    "dream": ["<|endoftext|>", "<|beginoftext|>", "<|im_start|>", "<|im_end|>", "<|r0|>",
              "<|mask|>", "<|r1|>", "<|r2|>", "<|r3|>", "<|r4|>"],
}  # fmt: skip


def vocabulary() -> dict[str, int]:
    """50 byte-level tokens: letters, some pairs, a space, a line break."""
    singles = [*"abcdefghijklmnopqrstuvwxyz0123456789.,?!:", "Ġ", "Ċ"]
    return {token: i for i, token in enumerate([*singles, *(a + b for a, b in merges())])}


def merges() -> list[tuple[str, str]]:
    return [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "n"), ("e", "r"), ("Ġ", "a"), ("o", "n")]


def tokenizer_files(folder: Path, kind: str, bare: bool = False) -> None:
    """tokenizer.json and tokenizer_config.json; bare: vocab.json and merges.txt instead of the former, as Dream has
    it."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    added = {str(50 + i): {"content": token, "special": True} for i, token in enumerate(SPECIALS[kind])}
    start = SPECIALS[kind][1]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": start, "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": False, "added_tokens_decoder": added,
        "chat_template": LLADA_TEMPLATE if kind == "llada" else DREAM_TEMPLATE,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if bare:
        (folder / "vocab.json").write_text(json.dumps(vocabulary()))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges()) + "\n")
        return
    backend = tokenizers.Tokenizer(models.BPE(vocabulary(), merges()))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIALS[kind])
    backend.save(str(folder / "tokenizer.json"))
