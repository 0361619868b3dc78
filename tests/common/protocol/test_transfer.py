from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from safetensors.numpy import load, save
from scipy.stats import binomtest

from confide.common.protocol.gate import GateError
from confide.common.protocol.transfer import decode, encode
from confide.common.tensors import State

ALPHA = 1e-6
FORMS = ["float32", "float16", "int8"]
COMPACT = ["float16", "int8"]
SHAPES = {"b": (2, 3), "a": (4,)}
BOUND = 1e40
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
STATES = st.builds(
    lambda b, a: {"b": b, "a": a}, arrays(np.float32, (2, 3), elements=NUMBERS), arrays(np.float32, 4, elements=NUMBERS)
)


def there_and_back(state: State, form: Any) -> State:
    return decode(encode(state, form), {name: value.shape for name, value in state.items()}, form, BOUND)


@given(state=STATES)
def test_float32_is_exact(state: State) -> None:
    for name, value in there_and_back(state, "float32").items():
        np.testing.assert_array_equal(value, state[name])


@given(state=STATES)
def test_the_error_of_float16_is_small_against_the_number_or_the_largest(state: State) -> None:
    for name, value in there_and_back(state, "float16").items():
        exact, largest = state[name].astype(np.float64), float(np.abs(state[name]).max())
        allowed = np.maximum(2.0**-11 * np.abs(exact), 2.0**-25 * largest)
        assert (np.abs(value - exact) <= allowed * (1 + 1e-6) + 2e-45).all()


@given(state=STATES)
def test_the_error_of_int8_is_below_one_of_127_parts_of_the_largest(state: State) -> None:
    for name, value in there_and_back(state, "int8").items():
        exact, largest = state[name].astype(np.float64), float(np.abs(state[name]).max())
        assert (np.abs(value - exact) <= largest / 127 * (1 + 1e-6) + 2e-45).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("largest", [0.0, 1e-45, 1e-12, 1.0, 70_000.0, float(np.finfo(np.float32).max)])
def test_zeros_and_extremes_are_exact(form: str, largest: float) -> None:
    """A change of the size of 1e-12 is not lost, nor one of 70,000 infinite, as bare float16 would have it."""
    state = {"b": np.array([[largest, -largest, 0.0]], np.float32), "a": np.zeros(4, np.float32)}
    decoded = there_and_back(state, form)
    assert all(np.array_equal(decoded[name], state[name]) for name in state)
    assert {value.dtype for value in decoded.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("form", COMPACT)
def test_a_state_comes_back_by_name_in_the_order_of_the_schema(form: Any) -> None:
    state = {"b": np.full((2, 3), 8.0, np.float32), "a": np.ones(4, np.float32)}
    for given_order in (state, dict(reversed(state.items()))):
        decoded = decode(encode(given_order, form), SHAPES, form, BOUND)
        assert list(decoded) == ["b", "a"]
        assert all(np.array_equal(decoded[name], state[name]) for name in state)


# Bytes


@pytest.mark.parametrize("form", FORMS)
def test_equal_states_give_equal_bytes(form: Any) -> None:
    """The server repeats an ask after a resume: other bytes would be another question, and cost another charge."""
    random = np.random.Generator(np.random.PCG64(0))
    state = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    again = {name: np.asfortranarray(value) for name, value in reversed(state.items())}
    assert encode(state, form) == encode(again, form)
    assert encode(state, form) != encode({**state, "a": -state["a"]}, form)


def test_these_bytes_are_for_ever() -> None:
    """A server that was upgraded between two asks must still send the same: no library's generator is asked."""
    state = {"b": np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5, "a": np.array([0.1, 1, 10, 100], np.float32)}
    tensors = load(encode(state, "int8"))
    assert tensors["scales"].tolist() == [100.0, 2.5]
    assert tensors["values"].tolist() == [0, 1, 13, 127, -127, -76, -26, 26, 76, 127]


@given(state=STATES, other=STATES)
@pytest.mark.parametrize("form", FORMS)
def test_the_number_of_bytes_follows_from_the_shapes(form: Any, state: State, other: State) -> None:
    assert len(encode(state, form)) == len(encode(other, form))


def test_the_compact_forms_are_compact() -> None:
    shapes = {f"encoder.layer.{number}.attention.self.query.lora_B.weight": (384, 8) for number in range(12)}
    state = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    for form, size in (("float16", 2), ("int8", 1)):
        assert len(encode(state, form)) < size * 12 * 384 * 8 + 4 * 12 + 200  # type: ignore[arg-type]


# Stochastic rounding


def _rounded(fractions: list[float], count: int) -> NDArray[np.float64]:
    """What becomes of the same numbers in many states, which differ in one other number alone."""
    rows = []
    for number in range(count):
        flat = np.array([127.0, *fractions, number / count], np.float32)
        rows.append(there_and_back({"a": flat}, "int8")["a"][1:-1])
    return np.array(rows)


FRACTIONS = [0.02, 0.3, 0.5, 0.98, -0.02, -0.3, -0.98, 41.7, -126.5]


def test_int8_has_no_bias() -> None:
    """Rounding to the nearest would lose 0.3 in every state: averaging many institutions would not bring it back."""
    count = 3000
    for number, column in zip(FRACTIONS, _rounded(FRACTIONS, count).T, strict=True):
        below = np.floor(number)
        assert set(column) <= {below, below + 1}
        ups = int((column == below + 1).sum())
        assert binomtest(ups, count, float(np.float32(number)) - below).pvalue > ALPHA, number


def test_int8_rounds_every_number_by_a_draw_of_its_own() -> None:
    ups = _rounded([0.5, 0.5, 10.5], 3000) % 2 == 1
    for first, second in ((0, 1), (1, 2)):
        assert binomtest(int((ups[:, first] == ups[:, second]).sum()), 3000, 0.5).pvalue > ALPHA


def test_int8_never_rounds_away_from_what_is_exact() -> None:
    whole = [float(number) for number in range(-127, 128)]
    assert (_rounded(whole, 20) == np.array(whole)).all()


# The gate


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_has_the_same_size_and_is_dropped(form: Any, value: float) -> None:
    """Encoding never fails: whether an institution answers must not depend on its numbers."""
    state = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    bad = {**state, "a": np.array([1, value, 1, 1], np.float32)}
    assert len(encode(bad, form)) == len(encode(state, form))
    with pytest.raises(GateError):
        decode(encode(bad, form), SHAPES, form, BOUND)


SCALES = np.array([1.0, 2.0], np.float32)


@pytest.mark.parametrize(
    ("form", "change", "reason"),
    [
        ("int8", {"scales": np.array([1, np.nan], np.float32)}, "scales"),
        ("int8", {"scales": np.array([1, np.inf], np.float32)}, "scales"),
        ("float16", {"scales": np.array([-1e-9, 1], np.float32)}, "scales"),
        ("int8", {"scales": SCALES.astype(np.float64)}, "tensor scales"),
        ("int8", {"scales": np.ones(3, np.float32)}, "tensor scales"),
        ("int8", {"values": np.full(10, -128, np.int8)}, "values"),
        ("int8", {"values": np.ones(10, np.uint8)}, "tensor values"),
        ("int8", {"values": np.ones(10, np.float16)}, "tensor values"),
        ("int8", {"values": np.ones(9, np.int8)}, "tensor values"),
        ("int8", {"values": np.ones((10, 1), np.int8)}, "tensor values"),
        ("float16", {"values": np.ones(10, np.int8)}, "tensor values"),
        ("float16", {"values": np.full(10, np.nan, np.float16)}, "values"),
        ("float16", {"values": np.full(10, np.inf, np.float16)}, "values"),
        ("float16", {"values": np.full(10, 1.001, np.float16)}, "values"),
        ("int8", {"more": np.ones(1, np.int8)}, "keys"),
        ("int8", {"scales": np.full(2, 60, np.float32), "values": np.full(10, 127, np.int8)}, "norm"),
        ("float16", {"scales": np.full(2, 3e38, np.float32)}, "norm"),
        ("int8", {"values": np.ones(10_000, np.int8)}, "size"),
    ],
)
def test_what_no_encoder_writes_is_dropped_with_a_reason(form: Any, change: dict[str, Any], reason: str) -> None:
    payload = save({"scales": SCALES, "values": np.ones(10, form), **change})
    with pytest.raises(GateError, match=reason):
        decode(payload, SHAPES, form, 100.0)


@pytest.mark.parametrize("sent", FORMS)
@pytest.mark.parametrize("declared", FORMS)
def test_only_the_form_that_the_run_declares_is_taken(sent: Any, declared: Any) -> None:
    state = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    if sent == declared:
        assert decode(encode(state, sent), SHAPES, declared, 100.0)
    else:
        with pytest.raises(GateError):
            decode(encode(state, sent), SHAPES, declared, 100.0)
