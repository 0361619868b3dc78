"""Four institutions on disk, one of which colludes, and a server that shows each of them whatever a test says."""

import itertools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from flwr.app import RecordDict
from numpy.typing import NDArray
from support.installations import Asking, write_site

from confide.client.privacy.policy import cap_of
from confide.client.site.installation import Site, open_site
from confide.common.config.run import RunConfig, lock, make_plan
from confide.common.model.base_models import hash_model
from confide.common.protocol import secure_sum
from confide.common.protocol.enrolment import partner_fingerprint
from confide.common.protocol.secure_sum import SignedShare, Statement, mask_key_of, new_mask_secret, total
from confide.common.protocol.sum_messages import Masked, SumAsk, ask_for_sum, share_from

NAMES = ("site-0", "site-1", "site-2", "site-3")
HONEST, COLLUDER = NAMES[:3], NAMES[3]
_POLICY = {"max_epsilon_if_broken": 100.0, "tolerate_colluding": 1}
_UNITS = 20
_SECRET = 32  # bytes of a mask key, at the beginning of the file of a share
_UNIFORM = 448.0  # chi-square with 255 degrees of freedom at alpha 1e-12
Shared = NDArray[np.uint32]


@dataclass
class HostileServer:
    """Asks four installed clients, restarts them and puts their disks back.

    Attributes:
        errors: by institution, newest last. ``envelopes``: the newest of each institution, by round.
        secrets: the mask key of the colluding institution, by round.
    """

    folder: Path
    make_run: Callable[..., RunConfig]
    base: Path
    min_members: int
    errors: dict[str, list[BaseException]] = field(default_factory=dict)
    envelopes: dict[int, dict[str, SignedShare]] = field(default_factory=dict)
    secrets: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sites = {name: open_site(write_site(self.folder / name, name=name)) for name in NAMES}
        self.identities = {name: site.identity for name, site in sites.items()}
        keys = {name: identity.public_hex() for name, identity in self.identities.items()}
        self.run = lock(self.make_run(**_sections(keys, self.min_members)), hash_model(self.base))
        partners = {name: partner_fingerprint(key) for name, key in keys.items()}
        for name in NAMES:
            write_site(self.folder / name, name=name, policy=_POLICY, partners=partners)
            site = open_site(self.folder / name / "site.toml")
            cap = cap_of(site.config.policy)
            site.ledger.approve(self.run.study.name, self.run.sha256(), make_plan(self.run, _UNITS), cap)
        self.asking = {name: Asking(self.run, self._opened(name)) for name in NAMES}

    # What it does to an institution's disk

    def copy(self, name: str, label: str) -> None:
        """Keep a copy of everything that an institution has on its disks."""
        shutil.copytree(self.folder / name, self.folder / f"{name} {label}")

    def put_back(self, name: str, label: str) -> None:
        """Put a copy back, ledger, anchor and all, and start the client on it."""
        shutil.rmtree(self.folder / name)
        shutil.copytree(self.folder / f"{name} {label}", self.folder / name)
        self.asking[name].restart(self._opened(name))

    def _opened(self, name: str) -> Callable[[], Site]:
        errors = self.errors.setdefault(name, [])
        site = open_site(self.folder / name / "site.toml").with_report(errors.append)
        return lambda: site

    def rows(self, name: str, kind: str) -> list[int]:
        """Rounds of an institution's rows of a kind."""
        account = open_site(self.folder / name / "site.toml").ledger.account()
        of_kind = {"reserve": lambda item: True, "release": lambda item: item.released}[kind]
        return [item.key.round for item in account.reservations.values() if of_kind(item)]

    # What it asks

    def collect(self, number: int, *names: str) -> None:
        """The first exchange of a round with these institutions, or with all."""
        for name in names or NAMES:
            envelope = share_from(self.asking[name].update(number))
            self.envelopes.setdefault(number, {})[name] = envelope
            if name == COLLUDER:
                [path] = (self.folder / name / "state").rglob(f"{envelope.envelope().ledger_head}.share")
                self.secrets[number] = path.read_bytes()[:_SECRET]

    def statement(self, number: int, *names: str) -> Statement:
        """Of these institutions, or of all."""
        return Statement.of(self.envelopes[number][name] for name in names or NAMES)

    def recolluded(self, number: int) -> None:
        """From now on the colluding institution shows another envelope for its share, as well signed as the first."""
        self.secrets[number] = new_mask_secret()
        envelope = self.envelopes[number][COLLUDER].envelope()
        text = replace(envelope, mask_key=mask_key_of(self.secrets[number])).text()
        self.envelopes[number][COLLUDER] = SignedShare(text, self.identities[COLLUDER].sign(text))

    def sum(self, name: str, number: int, statement: Statement, receipt: str = "") -> Masked | None:
        """The second exchange with one institution; None where it declines."""
        ask = self.asking[name].ask(number)
        values = {key: getattr(ask, key) for key in ("study", "lineage", "round", "run_json", "run_sha256")}
        values |= {"input_sha256": ask.input_sha256, "deadline_unix": ask.deadline_unix, "receipt": receipt}
        content = self.asking[name].send(SumAsk(**values, statement=statement.text()).content(), "query.sum")
        return None if list(content) == ["declined"] else Masked.from_content(content)

    def rehearsed(self, name: str) -> SignedShare:
        """The first exchange of a rehearsal with one institution: the very ask of round 1."""
        content = self.asking[name].send(self.asking[name].ask(1), "query.rehearse")
        return share_from(RecordDict({"share": content["share"]}))

    def rehearsed_sum(self, name: str, statement: Statement) -> Masked | None:
        """The second exchange of a rehearsal; None where the institution declines."""
        ask = ask_for_sum(self.asking[name].ask(1), statement, 1e11)
        content = self.asking[name].send(ask.content(), "query.rehearse_sum")
        return None if list(content) == ["declined"] else Masked.from_content(content)

    def shown(self, number: int, statement: Statement, *names: str) -> dict[str, Shared]:
        """The answers of honest members to a statement, without those who decline and without the colluder's masks."""
        answers = {name: self.sum(name, number, statement) for name in names}
        return {name: self._bared(name, number, answer) for name, answer in answers.items() if answer is not None}

    def _bared(self, name: str, number: int, answer: Masked) -> Shared:
        """A masked share without the mask that the colluding institution knows, which the lower name has added."""
        key = X25519PublicKey.from_public_bytes(bytes.fromhex(self.envelopes[number][name].envelope().mask_key))
        common = X25519PrivateKey.from_private_bytes(self.secrets[number]).exchange(key)
        digest, count = bytes.fromhex(answer.envelope.statement_sha256), len(answer.payload) // 4
        mask: Shared = secure_sum.pair_mask(common, digest, (name, COLLUDER), count)
        return answer.numbers(count) - mask


def opened(answers: Mapping[str, Shared]) -> list[dict[str, int]]:
    """Every sum and difference of answers that is other than uniform: what a server can read anything from.

    Each is given once: of a combination and its negative, the one that begins with 1.
    """
    found, names = [], list(answers)
    for chosen in itertools.product((-1, 0, 1), repeat=len(names)):
        used = {name: factor for name, factor in zip(names, chosen, strict=True) if factor}
        if not used or next(iter(used.values())) < 0:
            continue
        parts = [answers[name] if factor > 0 else np.negative(answers[name]) for name, factor in used.items()]
        if not _is_uniform(total(parts)):
            found.append(used)
    return found


def _is_uniform(numbers: Shared) -> bool:
    """As `sums.looks_uniform`, but seldom wrong among many combinations."""
    counts, expected = np.bincount(numbers.astype(np.int64) >> 24, minlength=256), len(numbers) / 256
    return float(((counts - expected) ** 2).sum() / expected) < _UNIFORM


def _sections(keys: dict[str, str], min_members: int) -> dict[str, dict[str, object]]:
    return {
        "study": {"institutions": list(keys), "keys": keys},
        "adapter": {"rank": 16},
        "federation": {
            "num_rounds": 3,
            "aggregation": "secure-sum",
            "weights": "declared",
            "min_clients": min_members,
        },
        "local": {"nominal_units": _UNITS, "sampling_probability": 1.0},
        "privacy": {"max_colluding": 1},
    }
