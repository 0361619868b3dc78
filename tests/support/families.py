"""A tiny random model of every family that `adapter.targets = "auto"` serves, with the tokenizer of the tiny BERT."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.tiny_bert import tiny_tokenizer
from transformers import PretrainedConfig, PreTrainedModel

_ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_DECODER = {**_ENCODER, "num_key_value_heads": 1, "max_position_embeddings": 128, "tie_word_embeddings": False}
_BOTH = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 128},
    **{
        f"{side}_{name}": size
        for side in ("encoder", "decoder")
        for name, size in (("attention_heads", 2), ("ffn_dim", 64))
    },
}
_POSITIONS = {"max_position_embeddings": 132}  # two more: RoBERTa begins behind its padding id
SETTINGS: dict[str, dict[str, Any]] = {
    "bert": {**_ENCODER, "max_position_embeddings": 128},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 128},
    "roberta": {**_ENCODER, **_POSITIONS},
    "xlm-roberta": {**_ENCODER, **_POSITIONS},
    "deberta-v2": {
        **_ENCODER,
        **{"max_position_embeddings": 128, "relative_attention": True, "share_att_key": True, "position_buckets": 16},
        **{"pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm", "max_relative_positions": -1},
    },
    "modernbert": {**_ENCODER, "max_position_embeddings": 128, "local_attention": 16, "global_attn_every_n_layers": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "llama": _DECODER,
    "qwen2": _DECODER,
    "qwen3": {**_DECODER, "head_dim": 16},
    "mistral": {**_DECODER, "sliding_window": 16},
    "gemma": {**_DECODER, "head_dim": 16},
    "gemma2": {**_DECODER, "head_dim": 16, "sliding_window": 16, "final_logit_softcapping": 5.0},
    "gemma3_text": {**_DECODER, "head_dim": 16, "sliding_window": 16},
    "phi3": _DECODER,
    "mixtral": {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "bart": _BOTH,
    "marian": _BOTH,
}
ENCODERS = ("bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2", "modernbert")
BOTH = ("t5", "bart", "marian")
# The families whose tests take long: these go through all of them in every run, and the others in `make families`.
USUAL = ("bert", "deberta-v2", "gpt2", "llama", "t5")
EACH = [name if name in USUAL else pytest.param(name, marks=pytest.mark.families) for name in SETTINGS]
DECODERS = tuple(family for family in SETTINGS if family not in (*ENCODERS, *BOTH))
_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }} [SEP]{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def save_tiny(family: str, folder: Path) -> Path:
    """Write model and tokenizer of a family where `AutoModel` and `AutoTokenizer` find them."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token, tokenizer.chat_template = tokenizer.sep_token, _TEMPLATE
    numbers = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id")}
    config: PretrainedConfig = transformers.AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        bos_token_id=None if family in DECODERS else tokenizer.cls_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        **{**SETTINGS[family], **numbers},
    )
    kind: Any = transformers.AutoModel
    if family in DECODERS:
        kind = transformers.AutoModelForCausalLM
    if family in BOTH:
        kind = transformers.AutoModelForSeq2SeqLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = kind.from_config(config)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
