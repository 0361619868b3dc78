"""The parameter-efficient methods. A new method: one file with a class like `Lora`, its name in `METHODS`, its test.

lora          low-rank factors beside linear layers

A method is a frozen pydantic model. Its fields are the `[adapter]` section of run.toml; building, training and export
call its methods (`Method` lists them). PEFT and torch are imported inside methods, so that reading a configuration
stays instant.
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
    """The methods that each provides; names of parameters are PEFT's or those of a state."""

    @classmethod
    def adds(cls, name: str) -> bool:
        """Return whether the method adds this parameter to the base."""

    def trains(self, name: str) -> bool:
        """Return whether an added parameter is trained, and so travels."""

    def peft_config(self, num_layers: int, task_type: str | None) -> Any:
        """Return PEFT's configuration for a base of so many layers."""

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return the start value of a parameter that the method adds, drawn from a public stream."""


def is_added(name: str) -> bool:
    """Return whether a method adds the parameter of this name; others are the base's or the head's."""
    return any(method.adds(name) for method in METHODS)
