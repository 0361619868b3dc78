"""LoRA: factors of low rank beside frozen linear layers (Hu and others, arXiv 2106.09685)."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from confide.common.errors import InputError
from confide.common.settings import Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray


class Lora(Section):
    """`[adapter]` with method "lora": a layer W becomes W + B A, where A has ``rank`` rows and B as many columns.

    Targets "auto" are the query and value projections of the base's family (`model.families`). A locked run names them.

    With ``train = "B"`` A stays as it was drawn: its rows are orthonormal, and B alone is trained and travels.
    """

    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, le=256)
    targets: Literal["auto"] | Annotated[tuple[str, ...], Field(min_length=1)] = "auto"
    train: Literal["B", "AB"] = "B"
    layers: str = Field("all", pattern=r"^(all|top:[1-9][0-9]?)$")

    @classmethod
    def adds(cls, name: str) -> bool:
        """Return whether a parameter is a factor."""
        return "lora_" in name

    def trains(self, name: str) -> bool:
        """Return whether a factor is trained."""
        return "lora_B" in name or (self.train == "AB" and "lora_A" in name)

    def peft_config(self, num_layers: int, task_type: str | None) -> Any:
        """Return PEFT's configuration; `InputError` for more top layers than there are."""
        from peft import LoraConfig

        top = None if self.layers == "all" else int(self.layers.removeprefix("top:"))
        if top is not None and top > num_layers:
            raise InputError(f"adapter.layers = {self.layers!r}, but the base has {num_layers} layers; use 'all'")
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.rank,  # scale 1: the learning rate alone sets the step
            target_modules=list(self.targets),
            lora_dropout=0.0,
            layers_to_transform=None if top is None else list(range(num_layers - top, num_layers)),
            # Without a pattern PEFT overlooks a stack of layers that the base itself holds (Llama: "layers.29.").
            layers_pattern=None if top is None else "[^.]+",
            task_type=task_type,
        )

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return A with orthonormal rows, B zero: the adapted base begins as the base is."""
        import numpy as np

        return np.linalg.qr(stream.standard_normal(shape).T)[0].T if "lora_A" in name else np.zeros(shape)
