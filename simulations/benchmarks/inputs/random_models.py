"""Models with random weights in the shapes of real ones, made here: for benchmarks without a network."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

_SPECIAL = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "[END]"}
_LLAMA = {"head_dim": 64, "vocab_size": 128_256, "num_attention_heads": 32, "num_key_value_heads": 8}
_BERT = {"num_attention_heads": 12, "vocab_size": 30_522, "max_position_embeddings": 512}
SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "MiniLM": ("bert", {**_BERT, "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}),
    "Llama-1B": ("llama", {**_LLAMA, "hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192}),
    "Llama-3B": (
        "llama",
        {**_LLAMA, "head_dim": 128, "num_attention_heads": 24, "hidden_size": 3072, "num_hidden_layers": 28}
        | {"intermediate_size": 8192},
    ),
}
_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 4}


def save_random(shape: str, folder: Path, device: torch.device, *, tiny: bool) -> Path:
    """Write a model of a shape with random weights, and a tokenizer of numbers, where transformers finds them.

    The folder is there once it is whole: a case may be cut off while it is written.
    """
    family, settings = SHAPES[shape]
    if tiny:
        settings = {**settings, **_TINY, "vocab_size": 1000, "num_key_value_heads": 2, "head_dim": 16}
    if not folder.exists():
        making = folder.with_name(f".{folder.name}")
        words = [*_SPECIAL.values(), *map(str, range(256))]
        fast = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, _SPECIAL["unk_token"]))
        fast.pre_tokenizer = Whitespace()
        transformers.PreTrainedTokenizerFast(tokenizer_object=fast, **_SPECIAL).save_pretrained(making)
        config = transformers.AutoConfig.for_model(family, **settings)
        kind: Any = transformers.AutoModel if family == "bert" else transformers.AutoModelForCausalLM
        with device:
            kind.from_config(config, dtype=torch.bfloat16).save_pretrained(making)
        making.rename(folder)
    return folder
