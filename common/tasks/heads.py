"""Heads on the states of a base: one linear layer for each token, its mean over a text, and the base's own head."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# The length that standardised states have, whatever the base. The server's step moves each number of a head by about
# the learning rate, so this length decides how far it moves an output (docs/decisions.md).
FOR_LOGITS = 20.0
FOR_SHARES = 1.25  # outputs between 0 and 1, under a squared error


class TokenHead(nn.Module):
    """One linear layer in float32 on the last hidden state of every token, standardised by public constants.

    Many bases share a large direction among all their states. A gradient clipped as a whole then tells of little else,
    and noise in that direction moves the outputs of all texts alike (docs/decisions.md).

    Attributes:
        centre, spread: constants of each coordinate, shape ``(hidden_size,)``; `model.plain_texts` measures them on
            the base. They are not trained and do not travel.
        length: the usual length of a standardised state.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, encoder: nn.Module, hidden_size: int, num_outputs: int, length: float = FOR_LOGITS) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(hidden_size, num_outputs)
        self.length = length
        self.register_buffer("centre", torch.zeros(hidden_size))
        self.register_buffer("spread", torch.ones(hidden_size))

    def states(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Return the last hidden states, standardised, shape ``(B, T, hidden)``, float32."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types)
        states: Tensor = (output.last_hidden_state.float() - self.centre) / self.spread
        return states

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return logits of shape ``(B, T, num_outputs)``."""
        logits: Tensor = self.head(self.states(input_ids, attention_mask, token_type_ids))
        return logits

    def plain(self) -> dict[str, Tensor]:
        """Return the tensors of the same head on states as the base gives them: "weight" and "bias", float32."""
        weight = self.head.weight.detach().double() / self.spread.double()
        bias = self.head.bias.detach().double() - weight @ self.centre.double()
        return {"weight": weight.float(), "bias": bias.float()}

    def take(self, plain: Mapping[str, Tensor]) -> None:
        """Become the head of which `plain` gave these tensors."""
        weight, bias = plain["weight"].double(), plain["bias"].double()
        self.head.weight.copy_(weight * self.spread.double())
        self.head.bias.copy_(bias + weight @ self.centre.double())


class MeanPooledHead(TokenHead):
    """The mean of a `TokenHead` over an example's own tokens: one linear layer on the mean of the last hidden states.

    On the bundled base a linear probe on the mean reaches 78.2 %, on the model's own pooler 73.3 %; under privacy
    the gap is larger (docs/decisions.md).

    The layer is applied to the states first, and the mean is taken of its output: the same result but for rounding.
    Applied to the mean, the layer would be the only product with one row per example. Kernels for few rows add in
    another order than those for many; products with one row per token agree (docs/decisions.md).
    """

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return logits of shape ``(B, num_outputs)``."""
        mask = attention_mask.unsqueeze(-1).float()
        logits = super().forward(input_ids, attention_mask, token_type_ids)
        return (logits * mask).sum(dim=1) / mask.sum(dim=1)


class QuestionHead(TokenHead):
    """One linear layer on each token's state and on its product with the mean of the question's states.

    A layer on the states alone cannot see the question where the layers below are frozen.
    """

    def __init__(self, encoder: nn.Module, hidden_size: int, num_outputs: int) -> None:
        super().__init__(encoder, hidden_size, num_outputs)
        self.head = nn.Linear(2 * hidden_size, num_outputs)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        question: Tensor | None = None,
    ) -> Tensor:
        """Return logits of shape ``(B, T, num_outputs)``; ``question`` marks its tokens, ``(B, T)``, by default all."""
        states = self.states(input_ids, attention_mask, token_type_ids)
        mask = (attention_mask if question is None else question).unsqueeze(-1).float()
        mean = (states * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
        logits: Tensor = self.head(torch.cat([states, states * mean], dim=2))
        return logits

    def plain(self) -> dict[str, Tensor]:
        """Return "weight" and "bias" of the same head on states less "centre": products have no other form."""
        spread = self.spread.double()
        weight = self.head.weight.detach().double() / torch.cat([spread, spread * spread])
        return {"weight": weight.float(), "bias": self.head.bias.detach(), "centre": self.centre}

    def take(self, plain: Mapping[str, Tensor]) -> None:
        """Become the head of which `plain` gave these tensors, with its centre."""
        spread = self.spread.double()
        self.head.weight.copy_(plain["weight"].double() * torch.cat([spread, spread * spread]))
        self.head.bias.copy_(plain["bias"])
        self.centre.copy_(plain["centre"])


class NativeHead(nn.Module):
    """The classification head of the base itself, which is trained as a whole."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return logits of shape ``(B, num_outputs)``."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits
