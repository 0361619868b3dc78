"""A request with shared noise: both numbers, the partners, and a tick that says they were compared."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.installations import write_site
from support.pages import local_institution

from confide.client.answers.proposed_runs import keep_offer
from confide.client.page.request import request_of
from confide.client.site.installation import open_site
from confide.client.steward.history import spend_over_time
from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model
from confide.common.protocol.enrolment import partner_fingerprint
from confide.common.protocol.signatures import Identity

MakeRun = Callable[..., RunConfig]
SHARING = {"max_epsilon": 5.0, "max_epsilon_if_broken": 20.0, "max_delta": 1e-5, "tolerate_colluding": 1}
PARTNERS = {name: Identity(bytes([number]) * 32).public_hex() for number, name in enumerate(("luke", "mark", "paul"))}
COMPARED = {name: partner_fingerprint(key) for name, key in PARTNERS.items()}


def _offered(folder: Path, partners: dict[str, str], make_run: MakeRun, base: Path) -> tuple[Path, RunConfig]:
    path = write_site(folder, name="mary", policy=SHARING, partners=partners)
    site = open_site(path)
    keys = {"mary": site.identity.public_hex(), **PARTNERS}
    run = make_run(
        study={"name": "test", "institutions": list(keys), "keys": keys},
        federation={"num_rounds": 10, "aggregation": "secure-sum", "weights": "declared", "min_clients": 4},
        local={"steps": 1, "sampling_probability": 0.2, "nominal_units": 20},
        privacy={"max_colluding": 1},
    )
    locked = lock(run, hash_model(base))
    keep_offer(site.offers, locked)  # type: ignore[arg-type]
    return path, locked


@pytest.mark.parametrize(
    ("changed", "word"), [({}, "not yet"), ({"luke": "0000-1111"}, "NO: [partners] has another one")]
)
def test_a_run_whose_partners_nobody_compared_shows_whom_to_telephone(
    tmp_path: Path, make_run: MakeRun, base_folder: Path, changed: dict[str, str], word: str
) -> None:
    partners = {**{name: COMPARED[name] for name in ("mark", "paul")}, **changed}
    path, run = _offered(tmp_path / "a", partners, make_run, base_folder)
    text = local_institution(path).get(f"requests/{run.sha256()}").text
    assert "First compare the" in text
    assert word in text
    assert "Approve this run" not in text
    assert all(fingerprint in text for fingerprint in COMPARED.values())


def test_both_numbers_are_shown_and_the_comparison_is_ticked(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    path, run = _offered(tmp_path / "a", COMPARED, make_run, base_folder)
    facts, steward = request_of(path, run.sha256()), local_institution(path)
    text = " ".join(steward.get(f"requests/{run.sha256()}").text.split())
    assert facts.verdict.shared is not None
    assert facts.budgets is not None
    assert f"epsilon {facts.verdict.cost:g}</strong>" in text
    assert f"epsilon {facts.verdict.shared.cost:g}</strong>" in text
    assert facts.budgets.second is not None
    assert facts.budgets.second.after == facts.verdict.shared.cost
    assert (facts.budgets.first.before, facts.budgets.first.after) == (0.0, facts.verdict.cost)
    form = {"known": "yes", "cost": "yes", "hash": run.sha256()[:20]}
    assert steward.post(f"requests/{run.sha256()}/approve", form).status_code == 400, "nobody has telephoned"
    assert steward.post(f"requests/{run.sha256()}/approve", {**form, "partners": "yes"}).status_code == 200
    assert spend_over_time(open_site(path)) == [], "an approval spends nothing"
