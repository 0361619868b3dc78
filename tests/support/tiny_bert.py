"""A random BERT that fits in a few hundred kilobytes, with a WordPiece tokenizer made in code."""

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ("the", "film", "was", "good", "bad", "long", "short", "and", "very", "not", "loved", "hated")
_SPECIAL = {name: f"[{name[:3].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token")}
_CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Twelve words, and single characters for all other ASCII texts."""
    pieces = [
        *_SPECIAL.values(),
        *dict.fromkeys([*WORDS, *_CHARACTERS]),
        *(f"##{character}" for character in _CHARACTERS),
    ]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]  # as BERT's own tokenizer gives them
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=names, **_SPECIAL)


def save_tiny_bert(folder: Path, num_embeddings: int | None = None) -> Path:
    """Write model and tokenizer where `AutoModel` and `AutoTokenizer` find them; one embedding a token unless said."""
    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=num_embeddings or len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
