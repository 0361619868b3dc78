"""What must hold of the shares of secure sums: which are held, and which asks for one may be refused."""

from pathlib import Path

from crash.asks import Ask
from support.accounts import Replay

_KEPT_ROUNDS = 3  # of answers that the server has acknowledged


def is_done(now: Replay, study: str, number: int) -> bool:
    """Whether three later rounds of a study are acknowledged, so that an answer to this round may be gone."""
    acknowledged = [now.asked[item] for item in now.acknowledged]
    return any(item[0] == study and item[3] >= number + _KEPT_ROUNDS for item in acknowledged)


def is_another_release(now: Replay, ask: Ask) -> bool:
    """Whether a later share of the study has left, or one of the round for another adapter or statement."""
    for number, (statement, _) in now.released.items():
        study, _, _, place, input_sha256, _ = now.asked[number]
        other = input_sha256 != ask.input_sha256 or ask.statement not in ("", statement)
        if study == ask.study and (place > ask.round or (place == ask.round and other)):
            return True
    return False


def is_sealed(now: Replay, ask: Ask) -> bool:
    """Whether there is a sealed answer to a round's first ask for this adapter."""
    wanted = (ask.study, ask.what, ask.round, ask.input_sha256)
    return any((item[0], *item[2:5]) == wanted for item in map(now.asked.__getitem__, now.sealed))


def needed_shares(now: Replay, sums: set[str]) -> tuple[set[str], set[str]]:
    """Files of shares that must be here, and that may be: sealed, not passed, and not yet masked in the outbox.

    ``sums`` are the masked shares that are there. A released share whose round is done may be here, or its masked share
    was deleted.
    """
    must, may = set[str](), set[str]()
    newest = dict[str, int]()
    for number in now.released:
        study, place = now.asked[number][0], now.asked[number][3]
        newest[study] = max(place, newest.get(study, 0))
    for number in now.sealed:
        study, _, what, place, *_ = now.asked[number]
        plan, row_hash = now.plans[study], now.hashes[number]
        if what != "update" or not (plan and plan.get("sharing")) or f"{row_hash}.sum" in sums:
            continue
        if number in now.released:
            (may if is_done(now, study, place) else must).add(f"{row_hash}.share")
        elif place > newest.get(study, 0):
            must.add(f"{row_hash}.share")
    return must, must | may


def fixed_names(now: Replay) -> set[str]:
    """Files that the outbox may hold: sealed answers, and masked shares that were released."""
    names = {f"{now.hashes[number]}.answer" for number in now.sealed}
    return names | {f"{now.hashes[number]}.sum" for number in now.released}


def held_shares(folder: Path) -> dict[str, Path]:
    """Finished files of shares, by name."""
    return {path.name: path for path in (folder / "state" / "shares").rglob("*.share")}
