import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from support.coins import TestCoins
from support.toy import make_plan

from confide.common.privacy.noise import add_noise
from confide.common.privacy.plan import NoPrivacy
from confide.common.protocol.gate import GateError, load_state, size_problem, update_norm_bound
from confide.common.protocol.transfer import decode, encode
from confide.common.tensors import dump_state, schema_of

SHAPES = {"b": (2, 3), "a": (4,)}
STATE = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(4, dtype=np.float32)}
FORMS = ["float32", "float16", "int8"]
DTYPES = ["F32", "I8", "F64", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "C64", "I64", "U8", "BOOL", "X"]


def _raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_a_state_comes_back_in_the_order_of_the_schema() -> None:
    state = load_state(dump_state(STATE), SHAPES, 100.0)
    assert list(state) == ["b", "a"]
    assert all(np.array_equal(state[name], STATE[name]) and state[name].dtype == np.float32 for name in STATE)
    assert schema_of(STATE) == SHAPES


def test_equal_states_give_equal_bytes() -> None:
    assert dump_state(STATE) == dump_state(dict(reversed(STATE.items())))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"a": None}, "keys"),
        ({"c": np.ones(1, dtype=np.float32)}, "keys"),
        ({"a": np.ones(5, dtype=np.float32)}, "tensor a"),
        ({"a": np.ones((4, 1), dtype=np.float32)}, "tensor a"),
        ({"a": np.ones(4, dtype=np.float64)}, "tensor a"),
        ({"a": np.ones(4, dtype=np.float16)}, "tensor a"),
        ({"a": np.ones(4, dtype=np.int32)}, "tensor a"),
        ({"a": np.array([1, np.nan, 1, 1], dtype=np.float32)}, "norm"),
        ({"a": np.array([1, -np.inf, 1, 1], dtype=np.float32)}, "norm"),
        ({"a": np.full(4, 3e38, dtype=np.float32)}, "norm"),
        ({"a": np.full(4, 60.0, dtype=np.float32)}, "norm"),
        ({"a": np.ones(10_000, dtype=np.float32)}, "size"),
    ],
)
def test_a_state_that_is_not_as_expected_is_dropped_with_a_reason(change: dict, reason: str) -> None:
    state = {name: value for name, value in {**STATE, **change}.items() if value is not None}
    with pytest.raises(GateError, match=reason):
        load_state(save(state), SHAPES, 100.0)


def test_the_reason_holds_nothing_of_the_content() -> None:
    with pytest.raises(GateError) as caught:
        load_state(save({**STATE, "secret": np.full(1, 123.0, dtype=np.float32)}), SHAPES, 100.0)
    assert "secret" not in str(caught.value)
    assert "123" not in str(caught.value)


def _dropped_or_good(payload: bytes, form: Any) -> None:
    """Whatever the bytes are: a state that keeps every promise of the gate, or `GateError` and nothing else."""
    with contextlib.suppress(GateError):
        state = decode(payload, SHAPES, form, 100.0)
        assert {name: value.shape for name, value in state.items()} == SHAPES
        assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}
        assert np.linalg.norm(np.concatenate([value.ravel() for value in state.values()])) <= 100.001


@given(payload=st.binary(max_size=400) | st.builds(_raw, st.binary(max_size=200), st.binary(max_size=100)))
@pytest.mark.parametrize("form", FORMS)
def test_no_bytes_can_do_more_than_be_dropped(form: Any, payload: bytes) -> None:
    with pytest.raises(GateError):
        decode(payload, SHAPES, form, 100.0)


@given(place=st.integers(0, 239), byte=st.integers(0, 255), cut=st.integers(0, 240))
@pytest.mark.parametrize("form", FORMS)
def test_no_damaged_state_can_do_more_than_be_dropped(form: Any, place: int, byte: int, cut: int) -> None:
    payload = bytearray(encode(STATE, form))
    payload[place % len(payload)] = byte
    for damaged in (bytes(payload), bytes(payload[:cut]), bytes(payload) + b"x"):
        _dropped_or_good(damaged, form)


@given(numbers=st.binary(min_size=40, max_size=40))
@pytest.mark.parametrize("form", FORMS)
def test_no_numbers_can_do_more_than_be_dropped(form: Any, numbers: bytes) -> None:
    """Every pattern of bits in the right places: all kinds of NaN, of infinities, of scales."""
    payload = encode(STATE, form)
    size = {"float32": 40, "float16": 28, "int8": 18}[form]
    _dropped_or_good(payload[:-size] + numbers[:size], form)


ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(DTYPES) | st.integers(),
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, 4, 10, -1, 2**63, 2**64, 1.5]), max_size=3),
        "data_offsets": st.lists(st.sampled_from([0, 1, 8, 16, 18, 24, 28, 40, -8, 2**64]), max_size=3),
    }
)


@given(
    entries=st.dictionaries(st.sampled_from(["a", "b", "scales", "values", "__metadata__", "\ud800"]), ENTRY),
    size=st.sampled_from([0, 18, 24, 28, 40]),
)
@pytest.mark.parametrize("form", FORMS)
def test_no_header_can_do_more_than_be_dropped(form: Any, entries: dict, size: int) -> None:
    _dropped_or_good(_raw(entries, bytes(size)), form)


@pytest.mark.parametrize("clipping", ["automatic", "abadi"])
@pytest.mark.parametrize("noise_multiplier", [0.3, 2.0, 50.0])
def test_no_honest_update_passes_the_bound(clipping: str, noise_multiplier: float) -> None:
    """Even with every unit of a site twice as large as declared, all pointing the same way."""
    plan = make_plan(clipping=clipping, noise_multiplier=noise_multiplier, head_weight=0.1)
    signal = np.zeros(10)
    signal[0] = 2 * plan.expected_batch_size * plan.clip_norm
    update = 3 * 0.5 * add_noise(signal, plan, TestCoins(0)) / plan.expected_batch_size / plan.head_weight
    assert np.linalg.norm(update) <= update_norm_bound(plan, SHAPES, local_steps=3, learning_rate=0.5)


def test_the_bound_is_of_the_size_of_an_honest_update() -> None:
    plan = make_plan()
    assert update_norm_bound(plan, SHAPES, 1, 1.0) == pytest.approx(10 * (1 + 2.178 * np.sqrt(10) / 10))
    assert update_norm_bound(NoPrivacy(0.1, 5, 10), SHAPES, 2, 0.5) == 10.0


@pytest.mark.parametrize(("units", "fits"), [(99, False), (100, True), (40_000, True), (40_001, False)])
def test_nobody_chooses_a_bound_by_declaring_any_size(units: int, fits: bool) -> None:
    problem = size_problem(units, 2000)
    assert (problem is None) == fits
    assert fits or f"declared_units = {units} must be within 20 times local.nominal_units = 2000" in str(problem)
