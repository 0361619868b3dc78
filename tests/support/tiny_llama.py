"""A random Llama of three layers, saved as a causal model, whose tokenizer has no padding token, as that of Llama 2."""

from pathlib import Path

import torch
from support.tiny_bert import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM


def save_tiny_llama(folder: Path) -> Path:
    """Write model and tokenizer where `AutoModel` and `AutoTokenizer` find them."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token, tokenizer.eos_token = None, tokenizer.sep_token
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
