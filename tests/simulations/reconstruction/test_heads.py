"""The head attack: labels and texts come back from a head's change without noise, and with it as by chance."""

from collections.abc import Callable

import numpy as np
import pytest
from support.kinds import of_kind

from confide.common.config.run import RunConfig, lock
from confide.common.model.warm_model import warm_model
from confide.simulations.reconstruction.heads import HeadAttack, attack_head, guessed_labels, nearest

MakeRun = Callable[..., RunConfig]


def _attacked(make_run: MakeRun, kind: str, num_texts: int = 24, **task: object) -> HeadAttack:
    run = of_kind(make_run(federation={"num_rounds": 4}, privacy={"noise_multiplier": 20.0}), kind)
    run = run.model_copy(update={"task": run.task.model_copy(update=task)})
    locked = lock(run, "0" * 64).model_copy(update={"model": run.model})
    return attack_head(locked, warm_model(locked, locked.speed), num_texts, candidates=100)


@pytest.mark.parametrize("kind", ["text-classification", "multi-label-classification"])
def test_labels_and_texts_come_back_without_noise_clipped_or_not(make_run: MakeRun, kind: str) -> None:
    found = _attacked(make_run, kind)
    assert found.void is None
    assert found.labels is not None
    assert found.named is not None
    assert (found.labels.without_noise, found.labels.clip_alone) == (1, 1)
    assert (found.named.without_noise, found.named.clip_alone) == (1, 1)
    assert found.named.with_noise <= 0.25
    assert found.named.chance <= 0.25
    assert found.labels.chance < 1
    assert found.labels.with_noise < 1


def test_a_score_has_no_label_and_its_text_comes_back(make_run: MakeRun) -> None:
    found = _attacked(make_run, "scoring", 3)
    assert found.labels is None
    assert found.named is not None
    assert found.named.without_noise == 1


@pytest.mark.parametrize(
    ("kind", "task", "why"),
    [
        ("token-classification", {}, "mixes their states"),
        ("causal-lm", {}, "no head is trained"),
        ("text-classification", {"pooling": "native"}, "several layers"),
    ],
)
def test_a_kind_without_such_a_head_tells_why(make_run: MakeRun, kind: str, task: dict[str, object], why: str) -> None:
    found = _attacked(make_run, kind, 1, **task)
    assert why in str(found.void)
    assert found.named is None


def test_the_error_betrays_the_label_whatever_the_sign_of_the_factors(make_run: MakeRun) -> None:
    run = make_run(task={"labels": ["a", "b", "c"]})
    model = warm_model(run, run.speed)
    state = np.array([-3.0, 2.0, 0.5, 1.0])
    for label in range(3):
        pull = np.eye(3)[label] - np.array([0.2, 0.3, 0.5])
        for wrong in (1.0, 1e-6):
            assert guessed_labels(wrong * np.outer(pull, state), model) == {label}
    assert nearest(np.outer([1.0, -2.0], state), np.stack([state[::-1], 5 * state, np.abs(state)])) == 1
