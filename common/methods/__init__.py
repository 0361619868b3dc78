"""The parameter-efficient methods. A new method: one file with a class like `Lora`, its name in `METHODS`, its test.

lora          low-rank factors beside linear layers

A method is a frozen pydantic model: its fields are the `[adapter]` section of run.toml, its methods are what building,
training and export ask of it (`Method` lists them). PEFT and torch are imported inside methods, so that reading a
configuration stays instant.
"""

from typing import TYPE_CHECKING, Any, Protocol

from confide.common.methods.lora import Lora

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

METHODS = (Lora,)
MethodSettings = Lora  # the methods, joined by |


class Method(Protocol):
    """Everything that a method provides; names of parameters are PEFT's or those of a state."""

    @classmethod
    def adds(cls, name: str) -> bool:
        """Return whether a parameter is one that the method adds to the base."""

    def trains(self, name: str) -> bool:
        """Return whether a parameter that the method adds is trained, and so travels."""

    def peft_config(self, num_layers: int, task_type: str | None) -> Any:
        """Return PEFT's configuration for a base of so many layers."""

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return the start value of a parameter that the method adds, drawn from a public stream."""


def is_added(name: str) -> bool:
    """Return whether a parameter, by its name, is one that a method adds; others are the base's or the head's."""
    return any(method.adds(name) for method in METHODS)
