"""The parameter-efficient methods.

A new method is one file with a class like `Lora`, its name in `METHODS` and its tag in `MethodSettings`, and its test.

method            the base class: what a method must have
lora              low-rank factors beside linear layers
ia3               vectors that scale keys, values and feed-forward states
bottleneck        small blocks behind feed-forward blocks
bitfit            biases
norms             the weights of LayerNorm and RMSNorm
head_only         the head alone
prompt_tuning     embeddings of virtual tokens
p_tuning          the same, made by a small block
prefix_tuning     virtual keys and values in each layer
inserted          layers of ours within a base
blocks            the small block of two linear layers
virtual_tokens    virtual tokens by hooks on a base's forward pass
targets           the layers that LoRA's targets name

A method is a frozen pydantic model. Its fields are the `[adapter]` section of run.toml; building, training and export
call its methods (`Method` lists them). PEFT and torch are imported inside methods, so that reading a configuration
stays instant.
"""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from confide.common.methods.bitfit import BitFit
from confide.common.methods.bottleneck import Bottleneck
from confide.common.methods.head_only import HeadOnly
from confide.common.methods.ia3 import Ia3
from confide.common.methods.lora import Lora
from confide.common.methods.method import Method
from confide.common.methods.norms import Norms
from confide.common.methods.p_tuning import PTuning
from confide.common.methods.prefix_tuning import PrefixTuning
from confide.common.methods.prompt_tuning import PromptTuning

METHODS: tuple[type[Method], ...] = (
    *(Lora, Ia3, Bottleneck, BitFit, Norms, HeadOnly, PromptTuning, PTuning, PrefixTuning),
)


def _named(value: Any) -> Any:
    """Return the method that a section names: LoRA where it names none, as all sections before there were others."""
    return value.get("method", "lora") if isinstance(value, dict) else getattr(value, "method", None)


MethodSettings = Annotated[
    Annotated[Lora, Tag("lora")]
    | Annotated[Ia3, Tag("ia3")]
    | Annotated[Bottleneck, Tag("bottleneck")]
    | Annotated[BitFit, Tag("bitfit")]
    | Annotated[Norms, Tag("norms")]
    | Annotated[HeadOnly, Tag("head")]
    | Annotated[PromptTuning, Tag("prompt-tuning")]
    | Annotated[PTuning, Tag("p-tuning")]
    | Annotated[PrefixTuning, Tag("prefix-tuning")],
    Discriminator(_named),
]


def added_by(name: str) -> type[Method] | None:
    """Return the method that adds a parameter of this name; None for the base's and the head's."""
    return next((method for method in METHODS if any(marker in name for marker in method.markers)), None)


def is_added(name: str) -> bool:
    """Return whether a method adds the parameter of this name; others are the base's or the head's."""
    return added_by(name) is not None
