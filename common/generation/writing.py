"""Greedy writing: the likeliest token each time, so that a model gives one text on every try."""

from typing import Any

import torch
from transformers import GenerationConfig

from confide.common.generation.language_model import LanguageModel

_AT_A_TIME = 16


def write(module: LanguageModel, tokenizer: Any, prompts: list[list[int]], pad: int, max_new_tokens: int) -> list[str]:
    """Return what a model writes after each prompt.

    Args:
        module: its hooks off.
        tokenizer: of the base.
        prompts: token ids.
        pad: the id that fills short prompts.
        max_new_tokens: the most tokens of a text.
    """
    base = module.base
    ends = getattr(base.generation_config, "eos_token_id", None)
    places = getattr(base.config.get_text_config(), "max_position_embeddings", None) or 2**30
    room = max(1, min(max_new_tokens, places // 2))  # the rest is the prompt's
    prompts = [prompt[-(places - room) :] for prompt in prompts]
    config = GenerationConfig(
        max_new_tokens=room,
        do_sample=False,
        num_beams=1,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=getattr(base.config, "decoder_start_token_id", None),
    )
    texts: list[str] = []
    for start in range(0, len(prompts), _AT_A_TIME):
        some = prompts[start : start + _AT_A_TIME]
        longest = max(map(len, some))
        ids = torch.tensor([module.filled(prompt, pad, longest) for prompt in some], device=base.device)
        mask = torch.tensor([module.filled([1] * len(prompt), 0, longest) for prompt in some], device=base.device)
        with torch.inference_mode():
            written = base.generate(input_ids=ids, attention_mask=mask, generation_config=config, use_cache=True)
        texts += tokenizer.batch_decode(module.new_tokens(written, longest), skip_special_tokens=True)
    return [text.strip() for text in texts]
