"""A random GPT-2 of two layers: its linear layers are `Conv1D`, whose weights lie the other way round."""

from pathlib import Path

import torch
from support.tiny_bert import tiny_tokenizer
from transformers import GPT2Config, GPT2Model


def save_tiny_gpt2(folder: Path) -> Path:
    """Write model and tokenizer where `AutoModel` and `AutoTokenizer` find them."""
    tokenizer = tiny_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2Model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
