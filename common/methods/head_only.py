"""Head only: the base stays as it is, and its head alone is trained."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from confide.common.errors import InputError
from confide.common.methods.method import LOADED_BY_NAME, Method

if TYPE_CHECKING:
    from torch import nn

    from confide.common.tasks.task import Task


class HeadOnly(Method):
    """`[adapter]` with method "head": nothing is added to the base."""

    markers: ClassVar[tuple[str, ...]] = ()
    method: Literal["head"]

    def described(self) -> str:
        """Return the method."""
        return "the head alone"

    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return the base; `InputError` for a kind that has no head to train."""
        from confide.common.methods.inserted import Extended

        if not (task.own_head or task.native_head):
            kind = getattr(task, "kind", "")
            raise InputError(f"adapter.method = 'head': task.kind = {kind!r} trains no head; use method = 'lora'")
        return Extended(base)

    def program(self, task: "Task") -> str:
        """Return the line that loads a head of the base; there is nothing in the file if the head is ours."""
        return LOADED_BY_NAME

    def merged(self, adapted: Any) -> Any:
        """Return the base, with its own head as it was trained."""
        return adapted.get_base_model()
