"""Gradient matching: which tokens of a text come back by search, wherever the adapted layers lie.

The attacker looks for the text whose gradient has the direction of what was sent (Zhu, Liu and Han, arXiv 1906.08935).
Tokens are discrete, so the search goes from text to text, as LAMP (arXiv 2202.08827) and GCG (arXiv 2307.15043) do. The
derivative of the match by each embedding says which tokens to try. It is the difference of two ordinary gradients, at
weights a little to either side. So no second derivative of the base is needed.
"""

import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from confide.common.config.run import RunConfig
from confide.common.data.batches import Batch, Example, collate, padded_length
from confide.common.model.adapter import get_state, set_state, trainable
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.gradients import per_example_gradients
from confide.common.tasks.multi_label_classification import MultiLabelClassification
from confide.common.tasks.scoring import Scoring
from confide.common.tasks.text_classification import TextClassification
from confide.common.tensors import State
from confide.simulations.reconstruction.heads import CameBack
from confide.simulations.reconstruction.inversion import PLAIN, lone_plan, lone_update

_ONE_TEXT = (TextClassification, MultiLabelClassification, Scoring)
_SINGLE, _DOUBLE, _EXCHANGED = 40, 16, 8  # texts to try in a step, by what is changed
_BEST = 32  # tokens to draw from at a place, by the derivative
_PATIENCE = 4  # steps without a better text, then half of the best one is drawn anew
_ALIKE = 0.9999  # no other text matches so well
_LEAST = 1e-8  # of a norm
_ASIDE = 0.1  # norm of the change of weights for a difference: small beside those of a base


@dataclass(frozen=True)
class Limits:
    """The size of an attack: texts, each searched for three times; steps of a search, of 64 texts each; its seconds."""

    texts: int = 3
    steps: int = 80
    seconds: float = 30.0


@dataclass(frozen=True)
class Matching:
    """The tokens that came back, wherever they stand.

    Attributes:
        texts: how many texts were attacked, each alone in its round.
        tokens: of all of them together, less special ones.
        shares: of the tokens that came back.
        limits: texts, and steps and seconds of a search.
        void: why the attack says nothing about this run; None where it was tried.
    """

    texts: int = 0
    tokens: int = 0
    shares: CameBack | None = None
    limits: Limits | None = None
    void: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return its fields."""
        return asdict(self)


def match(
    run: RunConfig, model: WarmModel, limits: Limits | None = None, chance: np.random.Generator | None = None
) -> Matching:
    """Search for made-up texts of 4 to 6 words by what their rounds send, a few minutes in all if no limits are given.

    The attacker is told how many tokens a text has, and its label. The run is locked, its model has start values.
    """
    if reason := _reason(run):
        return Matching(void=reason)
    limits, chance = limits or Limits(), chance or np.random.default_rng()
    private = lone_plan(run)
    tokens, found = 0, Counter[str]()
    for number in range(limits.texts):
        text = model.task.examples(model.task.made_up(4, number, 4 + number % 3), model.tokenizer)[0]
        tokens += len(_places(text, model))
        ways = (("with_noise", text, private), ("without_noise", text, PLAIN), ("chance", None, private))
        for way, own, plan in ways:
            guess = search(model, text, lone_update(model, own, plan), limits, chance)
            found[way] += in_common(text, guess, model)
    shares = CameBack(*(found[way] / tokens for way in ("with_noise", "without_noise", "chance")))
    return Matching(limits.texts, tokens, shares, limits)


def in_common(text: Example, guess: list[int], model: WarmModel) -> int:
    """Return how many tokens of a text stand anywhere in a guess, special ones left out."""
    places = _places(text, model)
    own, theirs = (Counter(tokens[place] for place in places) for tokens in (text["input_ids"], guess))
    return (own & theirs).total()


def search(model: WarmModel, text: Example, update: State, limits: Limits, chance: np.random.Generator) -> list[int]:
    """Return the tokens that fit an update best. Of the text itself only length, special tokens and label are used."""
    match = _Match.of(model, text, update)
    tokens = match.drawn_anew(list(text["input_ids"]), match.places, chance)
    score = best_score = match.scores([tokens])[0]
    best, stuck, end = tokens, 0, time.monotonic() + limits.seconds
    for _ in range(limits.steps):
        tried = match.to_try(tokens, chance)
        scores = match.scores(tried)
        place = int(scores.argmax())
        stuck = 0 if scores[place] > score else stuck + 1
        if not stuck:
            tokens, score = tried[place], scores[place]
        if score > best_score:
            best, best_score = tokens, score
        if best_score > _ALIKE or time.monotonic() > end:
            break
        if stuck == _PATIENCE:
            half = chance.permutation(match.places)[: -(-len(match.places) // 2)]
            tokens, stuck = match.drawn_anew(best, list(half), chance), 0
            score = match.scores([tokens])[0]
    return best


@dataclass(frozen=True)
class _Match:
    """Texts of one length beside one update."""

    model: WarmModel
    text: Example
    places: list[int]  # of tokens that are not special
    target: list[Tensor]  # minus the update, tensor by tensor
    words: NDArray[np.int64]  # that a text may have

    @classmethod
    def of(cls, model: WarmModel, text: Example, update: State) -> "_Match":
        target = [torch.from_numpy(-update[name].ravel()).to(model.device) for name in trainable(model.module)]
        special = set(model.tokenizer.all_special_ids)
        words = np.array([token for token in range(len(model.tokenizer)) if token not in special])
        return cls(model, text, _places(text, model), target, words)

    def scores(self, texts: list[list[int]]) -> NDArray[np.float64]:
        """Return the mean over tensors of the cosine between gradient and target, shape ``(texts,)``."""
        parts = zip(self._gradients(texts), self.target, strict=True)
        cosines = [cosine_similarity(part, own[None], dim=1) for part, own in parts]
        return np.asarray(torch.stack(cosines).mean(dim=0).double().cpu().numpy())

    def drawn_anew(self, tokens: list[int], places: list[int], chance: np.random.Generator) -> list[int]:
        """Return a text with other tokens at these places."""
        return _with(tokens, {place: int(chance.choice(self.words)) for place in places})

    def to_try(self, tokens: list[int], chance: np.random.Generator) -> list[list[int]]:
        """Return texts with one or two other tokens, which the derivative favours, and with two in the other order."""
        gains = self._gains(tokens)
        best = {place: np.argpartition(-row, _BEST)[:_BEST] for place, row in zip(self.places, gains, strict=True)}
        few = min(2, len(self.places))
        changed = [
            {
                int(place): int(self.words[chance.choice(best[place])])
                for place in chance.permutation(self.places)[:count]
            }
            for count in [1] * _SINGLE + [few] * _DOUBLE
        ]
        for _ in range(_EXCHANGED):
            pair = [int(place) for place in chance.permutation(self.places)[:few]]
            changed.append({pair[0]: tokens[pair[-1]], pair[-1]: tokens[pair[0]]})
        return [_with(tokens, change) for change in changed]

    def _gradients(self, texts: list[list[int]]) -> list[Tensor]:
        """Return each text's gradient by the code that clients run, tensor by tensor, ``(texts, size)``."""
        self.model.wrapped.enable_hooks()
        gradients = per_example_gradients(self.model.wrapped, self.model.losses, self._batch(texts))
        return list(torch.split(gradients, [own.numel() for own in self.target], dim=1))

    def _gains(self, tokens: list[int]) -> NDArray[np.float64]:
        """Return to first order how much better each word would match at each place, shape ``(places, words)``."""
        weights, start = trainable(self.model.module), get_state(self.model.module)
        aside = self._uphill([part[0] for part in self._gradients([tokens])])
        norm = max(_LEAST, float(torch.cat(aside).norm()))
        sides = []
        for side in (_ASIDE, -_ASIDE):
            for weight, part in zip(weights.values(), aside, strict=True):
                weight.data.add_(side / norm * part.view_as(weight))
            sides.append(self._by_embedding(tokens))
            set_state(self.model.module, start)
        table = _embeddings(self.model).weight.detach()[self.words]
        gains = (sides[0] - sides[1])[self.places] @ table.float().T  # less the present token's: the same for all words
        return np.asarray(gains.double().cpu().numpy())

    def _uphill(self, gradients: list[Tensor]) -> list[Tensor]:
        """Return the derivative of the sum of cosines by each gradient."""
        found = []
        for gradient, target in zip(gradients, self.target, strict=True):
            own, other = normalize(gradient, dim=0), normalize(target, dim=0)
            found.append((other - torch.dot(own, other) * own) / gradient.norm().clamp(min=_LEAST))
        return found

    def _by_embedding(self, tokens: list[int]) -> Tensor:
        """Return the derivative of a text's loss by the embedding of each token, shape ``(T, size)``."""
        kept = list[Tensor]()

        def keep(_layer: Any, _inputs: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[-1]

        self.model.wrapped.disable_hooks()
        handle = _embeddings(self.model).register_forward_hook(keep)
        loss = self.model.task.losses(self.model.module, self._batch([tokens])).sum()
        handle.remove()
        [found] = torch.autograd.grad(loss, kept)
        return found[0, : len(tokens)].float()

    def _batch(self, texts: list[list[int]]) -> Batch:
        examples = [{**self.text, "input_ids": tokens} for tokens in texts]
        return collate(examples, padded_length(len(texts[0])), self.model.pads, self.model.device)


def _with(tokens: list[int], changed: dict[int, int]) -> list[int]:
    return [changed.get(place, token) for place, token in enumerate(tokens)]


def _places(text: Example, model: WarmModel) -> list[int]:
    special = set(model.tokenizer.all_special_ids)
    return [place for place, token in enumerate(text["input_ids"]) if token not in special]


def _embeddings(model: WarmModel) -> Any:
    encoder: Any = model.module.encoder
    return encoder.get_base_model().get_input_embeddings()


def _reason(run: RunConfig) -> str | None:
    # Where tokens are targets, too, the derivative by embeddings misses that: 1 of 10 tokens came back, 2 by chance.
    if not isinstance(run.task, _ONE_TEXT):
        return f"the search is for kinds that read one text and write none, not for task.kind = {run.task.kind!r}"
    name = run.adapter.method
    return f"adapter.method = {name!r} puts virtual tokens before a text" if run.adapter.virtual_tokens else None
