import copy
import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.stats import kstest
from support import guarantees

from confide.common.privacy import coins as coins_module
from confide.common.privacy.coins import Coins

KEY = bytes(range(32))


class _Keystream:
    """A keystream of one repeated byte."""

    def __init__(self, byte: int) -> None:
        self.byte = byte

    def update(self, zeros: bytes) -> bytes:
        return bytes([self.byte]) * len(zeros)


def test_coins_are_aes_256_ctr_keystream_with_a_counter_block_for_each_stream() -> None:
    blocks = b"".join((2).to_bytes(8, "big") + number.to_bytes(8, "big") for number in range(4))
    keystream = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor().update(blocks)  # noqa: S305 - the block cipher
    words = np.frombuffer(keystream, dtype="<u8")
    expected = [(int(word) // 2**11 + 1) / 2**53 for word in words]
    assert Coins(KEY).noise_uniforms(8).tolist() == expected


def test_uniforms_are_uniform() -> None:
    assert kstest(Coins.fresh().noise_uniforms(100_000), "uniform").pvalue > guarantees.ALPHA


@pytest.mark.parametrize(("byte", "value"), [(0x00, 2.0**-53), (0xFF, 1.0)])
def test_uniforms_lie_in_0_to_1_without_0(byte: int, value: float) -> None:
    coins = Coins(KEY)
    coins._keystreams["noise"] = _Keystream(byte)
    assert coins.noise_uniforms(3).tolist() == [value] * 3


def test_no_value_is_given_out_twice() -> None:
    parts = Coins(KEY)
    joined = np.concatenate([parts.noise_uniforms(3), parts.noise_uniforms(0), parts.noise_uniforms(5)])
    np.testing.assert_array_equal(joined, Coins(KEY).noise_uniforms(8))
    assert len(set(joined)) == 8


def test_streams_for_mask_and_noise_are_disjoint() -> None:
    coins = Coins(KEY)
    assert len(set(np.concatenate([coins.mask_uniforms(5000), coins.noise_uniforms(5000)]))) == 10_000


def test_two_fresh_coins_are_independent() -> None:
    first, second = Coins.fresh(), Coins.fresh()
    assert not np.isin(first.noise_uniforms(1000), second.noise_uniforms(1000)).any()
    assert not np.isin(first.mask_uniforms(1000), second.mask_uniforms(1000)).any()


def test_the_key_of_fresh_coins_is_256_bits_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coins_module.os, "urandom", lambda count: KEY[:count])
    np.testing.assert_array_equal(Coins.fresh().noise_uniforms(4), Coins(KEY).noise_uniforms(4))
    with pytest.raises(ValueError, match=r"len\(key\)=31 must be 32"):
        Coins(KEY[:31])


def test_the_key_is_not_stored_and_coins_cannot_be_copied() -> None:
    coins = Coins(KEY)
    assert KEY not in list(vars(coins).values())
    with pytest.raises(TypeError):
        copy.deepcopy(coins)


def test_coins_refuse_to_cross_a_fork() -> None:
    guarantees.check_coins_refuse_to_cross_a_fork()


def test_a_child_may_draw_coins_of_its_own() -> None:
    parent = Coins.fresh().noise_uniforms(64)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, Coins.fresh().noise_uniforms(64).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    drawn = np.frombuffer(os.read(read, 512))
    os.close(read)
    os.close(write)
    assert len(drawn) == 64
    assert not np.isin(drawn, parent).any()


def test_public_seeds_do_not_choose_the_noise() -> None:
    guarantees.check_public_seeds_do_not_choose_the_noise()
