"""The reasons of refusals, as an institution's own log and status hold them."""

import pytest

from confide.client.service.reasons import reason_of
from confide.common.protocol.answers import Update
from confide.common.protocol.gate import GateError
from confide.common.protocol.wire import MessageError


def test_the_form_of_a_server_s_message_is_told_to_the_administrator() -> None:
    with pytest.raises(MessageError) as refused:
        Update.from_bytes(b"{}")
    assert reason_of(refused.value).endswith("the round goes on without it, and nothing more is charged")
    assert reason_of(GateError("norm: 7 is above 3")) == "norm: 7 is above 3"


def test_an_error_that_may_quote_a_record_is_not() -> None:
    assert "CANARY" not in reason_of(ValueError("CANARY"))
