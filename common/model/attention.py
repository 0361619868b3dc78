"""Attention in one fixed kernel, whatever a micro-batch holds.

transformers gives PyTorch's attention no mask where no row is padded, and PyTorch then takes another kernel. So one
unit's length would change the rounding of all other rows. Here there is always a mask, and one kernel is named. Eager
attention, the way without it, holds scores of all pairs of tokens several times over.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from confide.common.errors import InputError

_KERNELS = {"cpu": SDPBackend.FLASH_ATTENTION, "cuda": SDPBackend.EFFICIENT_ATTENTION}  # these take a mask


class _OneKernel:
    """Lets the process take one kernel as long as any thread is inside; whoever wants another one waits.

    PyTorch's choice is one of the whole process. Without the count, the first of two threads to leave would give the
    other one the free choice back in the middle of its attention.
    """

    def __init__(self) -> None:
        self._change, self._chosen = threading.Condition(), ExitStack()
        self._kernel: SDPBackend | None = None
        self._inside = 0

    @contextmanager
    def only(self, kernel: SDPBackend) -> Iterator[None]:
        """Let the block take this kernel and no other."""
        with self._change:
            self._change.wait_for(lambda: not self._inside or self._kernel is kernel)
            if not self._inside:
                self._kernel = kernel
                self._chosen.enter_context(sdpa_kernel(kernel))
            self._inside += 1
        try:
            yield
        finally:
            with self._change:
                self._inside -= 1
                if not self._inside:
                    self._chosen.close()
                    self._change.notify_all()


_ATTENTION = _OneKernel()


def _explicit_mask(*given: Any, **named: Any) -> Any:  # the signature is transformers'
    """Return a boolean mask of shape ``(B, 1, T, T)``, never None."""
    return sdpa_mask(*given, **{**named, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


for _device, _kernel in _KERNELS.items():
    AttentionInterface.register(f"confide-{_device}", _ATTENTION.only(_kernel)(sdpa_attention_forward))
    AttentionMaskInterface.register(f"confide-{_device}", _explicit_mask)


def attention_of(model_class: Any, config: Any, device: torch.device, asked: str) -> str:
    """Return transformers' name of the attention for a base.

    Args:
        model_class: one of transformers' auto classes.
        config: of the base.
        device: of the base.
        asked: "auto" is "fixed" on a GPU where the family can, else "eager".

    Raises:
        InputError: the family knows eager attention alone, and "fixed" was asked for.
    """
    if asked == "eager" or (asked == "auto" and device.type != "cuda"):
        return "eager"
    try:
        with torch.device("meta"):
            model_class.from_config(config, trust_remote_code=False, attn_implementation="sdpa")
    except (ValueError, ImportError):
        if asked == "auto":
            return "eager"
        raise InputError(
            f"attention = 'fixed': models of type {config.model_type!r} have eager attention alone; use 'auto'"
        ) from None
    return f"confide-{device.type}"
