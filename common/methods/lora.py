"""LoRA: factors of low rank beside frozen linear layers (Hu and others, arXiv 2106.09685)."""

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from confide.common.errors import InputError
from confide.common.methods.method import LAYERS, Method, peft_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from confide.common.tasks.task import Task

FAMILY = ("auto", "all-linear")  # targets that the base's family decides


class Lora(Method):
    """`[adapter]` with method "lora": a layer W becomes W + B A, where A has ``rank`` rows and B as many columns.

    Targets "auto" are the query and value projections of the base's family (`model.families`), "all-linear" all linear
    layers of its blocks. A locked run names them.

    With ``train = "B"`` A stays as it was drawn: its rows are orthonormal, and B alone is trained and travels.
    """

    markers: ClassVar[tuple[str, ...]] = ("lora_",)
    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, le=256)
    targets: Literal["auto", "all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "auto"
    train: Literal["B", "AB"] = "B"
    layers: str = Field("all", pattern=LAYERS)
    # Left out of a locked run where they are not set: older runs, which do not name them, keep their hash.
    ranks: dict[str, Annotated[int, Field(ge=1, le=256)]] = Field(
        default_factory=dict, exclude_if=lambda value: not value
    )
    rank_stabilised: bool = Field(default=False, exclude_if=lambda value: not value)

    @property
    def needs_targets(self) -> bool:
        """True: the family's targets are not named yet."""
        return self.targets in FAMILY

    def described(self) -> str:
        """Return rank, layers and what is trained."""
        targets = self.targets if isinstance(self.targets, str) else ", ".join(self.targets)
        trained = "B, with A frozen" if self.train == "B" else "A and B"
        ranks = "".join(f", {rank} in {name}" for name, rank in self.ranks.items())
        scale = "; rank-stabilised" if self.rank_stabilised else ""
        return f"LoRA of rank {self.rank}{ranks} on {targets}; trained: {trained}; layers: {self.layers}{scale}"

    def trains(self, name: str) -> bool:
        """Return whether a factor is trained."""
        return "lora_B" in name or (self.train == "AB" and "lora_A" in name)

    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return PEFT's model; `InputError` for targets that do not fit."""
        import warnings

        from peft import get_peft_model

        from confide.common.methods.targets import check_targets

        config = self._config(base, task)
        check_targets(base, self.targets, self.layers, task, config)
        config.rank_pattern = self._rank_pattern(base, config)
        config.alpha_pattern = dict(config.rank_pattern)
        self._require_room(base, config)
        # PEFT corrects its own setting for GPT-2's layers, and warns of it. It asks transformers for a name that
        # version 6 will drop.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False but the target module is `Conv1D`")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return get_peft_model(base, config)

    def _config(self, base: "nn.Module", task: "Task") -> Any:
        from peft import LoraConfig

        config: Any = base.config
        num_layers = config.get_text_config().num_hidden_layers
        top = None if self.layers == "all" else int(self.layers.removeprefix("top:"))
        if top is not None and top > num_layers:
            raise InputError(f"adapter.layers = {self.layers!r}, but the base has {num_layers} layers; use 'all'")
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.rank,  # scale 1: the learning rate alone sets the step
            use_rslora=self.rank_stabilised,  # scale: the root of the rank
            target_modules=list(self.targets),
            lora_dropout=0.0,
            layers_to_transform=None if top is None else list(range(num_layers - top, num_layers)),
            # Without a pattern PEFT overlooks a stack of layers that the base itself holds (Llama: "layers.29.").
            layers_pattern=None if top is None else "[^.]+",
            task_type=task.peft_type(),
        )

    def _require_room(self, base: "nn.Module", config: Any) -> None:
        """Raise `InputError` for a rank above a layer's inputs: A's rows could not be orthonormal."""
        from peft.tuners.tuners_utils import check_target_module_exists

        from confide.common.methods.inserted import sizes_of

        for name, layer in base.named_modules():
            rank = config.rank_pattern.get(re.escape(name), self.rank)
            if check_target_module_exists(config, name) and rank > sizes_of(layer)[1]:
                raise InputError(
                    f"adapter.rank = {rank} is more than the {sizes_of(layer)[1]} inputs of {name}; use a smaller one"
                )

    def _rank_pattern(self, base: "nn.Module", config: Any) -> dict[str, int]:
        """Return the rank of each layer that has another, by its full name: PEFT would look for names at the end only.

        Raises:
            InputError: a name fits no layer that is adapted.
        """
        from peft.tuners.tuners_utils import check_target_module_exists

        adapted = [name for name, _ in base.named_modules() if check_target_module_exists(config, name)]
        found = dict[str, int]()
        for part, rank in self.ranks.items():
            own = [name for name in adapted if f".{part}." in f".{name}."]
            if not own:
                raise InputError(
                    f"adapter.ranks names {part!r}, which no adapted layer is called or lies in; the first one is "
                    f"{adapted[0]!r}"
                )
            found |= {re.escape(name): rank for name in own}
        return found

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return A with orthonormal rows, B zero: the adapted base begins as the base is."""
        import numpy as np

        return np.linalg.qr(stream.standard_normal(shape).T)[0].T if "lora_A" in name else np.zeros(shape)

    def peft_config(self, adapted: Any, task: "Task") -> Any:
        """Return the configuration that PEFT made of ours."""
        return adapted.peft_config["default"]

    def to_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the factors under PEFT's names."""
        return peft_named(tensors)

    def merged(self, adapted: Any) -> Any:
        """Return the base with B A added to its weights."""
        return adapted.merge_and_unload()
