"""The base of every parameter-efficient method: its settings, and what building, training and export ask of it."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from confide.common.errors import InputError
from confide.common.settings import Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from confide.common.tasks.task import Task

LOADED_BY_PEFT = "model = PeftModel.from_pretrained(model, adapter).eval()"
LOADED_BY_NAME = """model.load_state_dict(load_file(f"{adapter}/adapter_model.safetensors"), strict=False)
model = model.eval()"""
LAYERS = r"^(all|top:[1-9][0-9]?)$"  # of `layers`: all, or the last so many


class Method(Section):
    """A method. Its fields are the `[adapter]` section of run.toml; all of them are public.

    Names of parameters are those of a state (`model.adapter.public_name`). What a method adds is named by `markers`.

    Attributes:
        markers: one of them is part of the name of each parameter that the method adds, and of no other.
        start_from: folder of a finished adapter whose values a run goes on from; without one, a public seed draws them.
        start_sha256: of that adapter's files; a locked run names it, and so does what institutions approve.
    """

    markers: ClassVar[tuple[str, ...]]
    # Left out of a locked run where they are not set: older runs, which do not name them, keep their hash.
    start_from: str | None = Field(default=None, exclude_if=lambda value: value is None)
    start_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", exclude_if=lambda value: value is None)

    @property
    def needs_targets(self) -> bool:
        """True: layers of the base's family have to be named before the run is locked."""
        return False

    @property
    def virtual_tokens(self) -> int:
        """The number of places that the method takes up before each text."""
        return 0

    @abstractmethod
    def described(self) -> str:
        """Return the method and its settings in a few words, for a model card."""

    def trains(self, name: str) -> bool:
        """Return whether an added parameter is trained, and so travels."""
        return True

    @abstractmethod
    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return the base with the method's layers in it: PEFT's model, or `inserted.Extended`.

        Raises:
            InputError: the base has no place for them, or the method cannot do this kind of task.
        """

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return the start value of a parameter that the method adds, drawn from a public stream.

        Raises:
            ValueError: the method adds none (the head alone is trained).
        """
        raise ValueError(f"{name}: {cls.__name__} adds no parameters to a base")

    def peft_config(self, adapted: Any, task: "Task") -> Any:
        """Return PEFT's configuration of the exported adapter; None where PEFT does not have the method."""
        return None

    def to_file(self, adapted: Any, tensors: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
        """Return the tensors of the exported file: of PEFT's names where PEFT has the method.

        Args:
            adapted: of `attach`; on the meta device only shapes count.
            tensors: all that the method adds and the base's own trained head, by their names in a state.
        """
        return tensors

    def from_file(self, adapted: Any, tensors: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
        """Return the tensors of a state from those of a file, less PEFT's prefix: the inverse of `to_file`."""
        return tensors

    def program(self, task: "Task") -> str:
        """Return the lines of a model card's program that put the adapter into ``model``."""
        return LOADED_BY_PEFT

    def merged(self, adapted: Any) -> Any:
        """Return the base with the adapter in its own weights.

        Raises:
            InputError: weights of the base cannot hold what the method adds.
        """
        method = str(getattr(self, "method", ""))
        raise InputError(
            f"adapter.method = {method!r} adds layers that the base's weights cannot hold, so nothing can be merged; "
            "use the adapter beside its base"
        )


def peft_named(tensors: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return tensors under the names that PEFT's files give them."""
    return {f"base_model.model.{name}": value for name, value in tensors.items()}
