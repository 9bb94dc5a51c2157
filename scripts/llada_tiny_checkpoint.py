"""Writes a small random LLaDA as GSAI-ML publishes its own: config.json, one safetensors file, a BPE tokenizer with
LLaDA's special tokens and chat template.

    python scripts/llada_tiny_checkpoint.py FOLDER [--tokenizer FOLDER_OF_A_BPE]

The BPE is that of vocab.json and merges.txt, GPT-2's under $DIFFQ_DATA/tokenizers/gpt2 by default. Names, shapes and
config.json come from tests/reference/published_llms.py, which shares nothing with the package: what reads the folder
has not written it. The weights are noise, so its answers are noise; everything around them is real.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

SIZES = {"d_model": 64, "n_heads": 4, "n_kv_heads": 4, "n_layers": 2, "mlp_hidden_size": 192}
PLACES = 4096  # tokens of the longest canvas, as published


def main() -> None:
    import tokenizers
    from reference.chat_tokenizer import LLADA_TEMPLATE, SPECIALS
    from reference.published_llms import llada_config, llada_shapes, random_tensors
    from safetensors.torch import save_file
    from tokenizers import decoders, models, pre_tokenizers

    asked = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    asked.add_argument("folder", type=Path, help="the folder that is written")
    asked.add_argument("--tokenizer", type=Path, help="a folder with vocab.json and merges.txt; default: GPT-2's")
    words = asked.parse_args()
    bpe = words.tokenizer or Path(os.environ.get("DIFFQ_DATA", ".")) / "tokenizers/gpt2"
    for name in ("vocab.json", "merges.txt"):
        if not (bpe / name).is_file():
            sys.exit(f"{bpe} has no {name}; give --tokenizer FOLDER, or $DIFFQ_DATA with tokenizers/gpt2 in it")

    backend = tokenizers.Tokenizer(models.BPE.from_file(str(bpe / "vocab.json"), str(bpe / "merges.txt")))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIALS["llada"])
    ids: dict[str, int] = {token: backend.token_to_id(token) for token in SPECIALS["llada"]}
    size = backend.get_vocab_size(with_added_tokens=True)
    config: dict[str, Any] = llada_config(
        **SIZES, max_sequence_length=PLACES, vocab_size=size, embedding_size=-(-size // 128) * 128,
        mask_token_id=ids["<|mdm_mask|>"], eos_token_id=ids["<|endoftext|>"], pad_token_id=ids["<|endoftext|>"],
    )  # fmt: skip

    words.folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(words.folder / "tokenizer.json"))
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": False, "chat_template": LLADA_TEMPLATE,
        "added_tokens_decoder": {str(i): {"content": token, "special": True} for token, i in ids.items()},
    }  # fmt: skip
    (words.folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n")
    (words.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = random_tensors(llada_shapes(config), 0)
    save_file(tensors, words.folder / "model.safetensors", metadata={"format": "pt"})
    parameters = sum(value.numel() for value in tensors.values())
    print(f"{words.folder}: {parameters:,} random numbers under {len(tensors)} names, {size:,} tokens")


if __name__ == "__main__":
    main()
