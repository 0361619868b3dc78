"""report.html: complete, offline, escaped, and loud where there is no privacy."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest
from support.cards import make_statement
from support.reports import LOOK, NAMES, PLAN, make_facts, rendered

from confide.server.results.report import write_report


def without_privacy(facts: dict[str, Any]) -> dict[str, Any]:
    """The same facts of a run without privacy."""
    rounds = [{**row, "epsilon": None} for row in facts["rounds"]]
    institutions = [{**row, "epsilon": None} for row in facts["institutions"]]
    return {**facts, "plan": {"no_privacy": True}, "rounds": rounds, "institutions": institutions}


def as_read(page: str) -> str:
    """The page's words, without pictures, tags and style, on one line."""
    body = page[page.index("<body>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


class _Parts(HTMLParser):
    """Tags that are open at the end, and all attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[tuple[str, list[tuple[str, str]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [(name, value or "") for name, value in attrs]))
        self.attributes += self.tags[-1][1]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A shape of a picture, which closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(page: str) -> _Parts:
    parts = _Parts()
    parts.feed(page)
    return parts


def test_it_refers_to_nothing_outside_the_file(tmp_path: Path) -> None:
    page = rendered(tmp_path, make_facts())
    assert not re.search(r"https?:|//\w|url\(|@import|<script|<link", page)
    assert [value for name, value in parse(page).attributes if name in ("src", "href")] == []


def test_every_tag_is_closed_and_every_picture_described(tmp_path: Path) -> None:
    for facts in (make_facts(), without_privacy(make_facts(own_data=True)), make_facts(rounds=[], score=None)):
        parts = parse(rendered(tmp_path, facts))
        assert parts.open == []
        pictures = [dict(attributes) for tag, attributes in parts.tags if tag == "svg"]
        assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)


def test_the_verdict_is_one_line(tmp_path: Path) -> None:
    page = as_read(rendered(tmp_path, make_facts()))
    score = "accuracy 78.1 % in the mean over institutions."
    assert f"4 institutions, 40 of 40 rounds: epsilon 3.00 at delta 0.00001, {score}" in page


def test_the_first_epsilon_of_shared_noise_stands_beside_its_condition(tmp_path: Path) -> None:
    broken = {"epsilon_if_broken": 19.9986, "colluding": {1: 2.6}, "institutions_if_broken": {2: 30.0}}
    plan = {**PLAN, "sharing": {"max_colluding": 3, "min_members": 17}}
    institutions = [{**row, "epsilon_if_broken": 19.9986} for row in make_facts()["institutions"]]
    condition = "if at most 3 of a sum's members are in league with the server"
    for statement in (make_statement(**broken), None):
        facts = make_facts(plan=plan, statement=statement, institutions=institutions)
        page = as_read(rendered(tmp_path, facts)).replace("&#39;", "'")
        assert f"epsilon 3.00 {condition} (20.00 if all others are)" in page
        assert f"The most of any institution {condition}. Dashed" in page
        assert f"at most 3.00 at any institution {condition}, but" in page
        first = f"who are not in them, {condition}." if statement else f"Epsilon 3.00 at delta 0.00001 {condition};"
        assert first in page


def test_bytes_of_a_sum_do_not_have_the_form_in_which_the_adapter_comes(tmp_path: Path) -> None:
    facts = make_facts()
    facts["run"]["federation"] |= {"transfer": "int8"}
    page = as_read(rendered(tmp_path, facts))
    assert ", as int8. " in page
    assert "the adapter, which is about as large" in page
    facts["run"]["federation"] |= {"aggregation": "secure-sum"}
    page = as_read(rendered(tmp_path, facts))
    assert "masked, four bytes for each number" in page
    assert "the adapter, as int8." in page


def test_sections_come_in_order(tmp_path: Path) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", rendered(tmp_path, make_facts()))
    assert headings == [
        "At a glance",
        "Accuracy and epsilon, round by round",
        "Institutions",
        "Compared with",
        "Bytes sent",
        "Privacy statement",
        "Settings and versions",
    ]


def test_it_holds_every_number(tmp_path: Path) -> None:
    page = as_read(rendered(tmp_path, make_facts()))
    for share in (0.781, 0.793, 0.771, 0.786, 0.774, 0.809, 0.845, 0.718, 0.045):
        assert f"{100 * share:.1f} %" in page
    for text in ("st-jude 2 000 3.00 40 39 1 77.1 %", "120.4 kB", "159 updates", "19.1 MB", "noise_multiplier 1.1873"):
        assert text in page
    assert "17 – 1.80 3 st-jude: norm: not finite, or above the bound 2.1" in page
    assert "dp-accounting 0.6.0" in page
    assert "5a" * 32 in page


def test_it_says_who_answered_when_how_fast_and_in_how_much_memory(tmp_path: Path) -> None:
    page = as_read(rendered(tmp_path, make_facts(look=LOOK, memory="1,234 MB")))
    assert "in 85 seconds of training: 94 records a second by all together, as expected" in page
    assert "The process that trained took at most 1,234 MB of memory. 1 of them lacked an answer;" in page
    assert "st-mary 2 000 3.00 40 40 0 79.3 % 60 1–40 " in page
    assert "st-jude 2 000 3.00 40 39 1 77.1 % 58 1–16, 18–40 " in page
    assert "st-jude: norm: not finite, or above the bound 2.1 2026-03-02 10:01:08 " in page
    real = as_read(rendered(tmp_path, make_facts(look={**LOOK, "sizes": {"public": 118}}, speed=None)))
    assert "test records which rounds" not in real
    assert "of memory" not in real, "at a server the institutions train"
    assert "a second by" not in real
    assert "st-mary 2 000 3.00 40 40 0 79.3 % 1–40 " in real


def test_what_others_wrote_is_escaped(tmp_path: Path) -> None:
    facts = make_facts(title="<b>", status="<i>")
    facts["run"]["task"]["labels"] = ["<b>", "</style><script>alert(1)</script>"]
    facts["institutions"][0]["name"] = '<img src="x">'
    facts["rounds"][3]["dropped"] = ["<u>reason</u>"]
    page = rendered(tmp_path, facts)
    assert not re.search(r"<(b|i|u|script)>|<img src=\"x", page.replace("<b>&lt;i&gt;</b>", ""))
    assert "&lt;b&gt;, &lt;/style&gt;" in page


def test_samples_are_shown_as_they_are(tmp_path: Path) -> None:
    sample = {"input": "<script>alert(1)</script>\nWhy?", "answer": "<b>because</b>", "right": ""}
    page = rendered(tmp_path, make_facts(samples=[sample]))
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;\nWhy?</td><td>&lt;b&gt;because&lt;/b&gt;</td><td>–</td>" in page
    assert "The finished adapter on 1 record of the public test data." in as_read(page)
    assert parse(page).open == []
    assert "<h2>Samples</h2>" not in rendered(tmp_path, make_facts(samples=[]))


@pytest.mark.parametrize(
    ("own_data", "baselines", "warned"), [(True, True, True), (True, False, True), (False, True, False)]
)
def test_it_warns_of_results_without_privacy_on_own_data(
    tmp_path: Path, own_data: bool, baselines: bool, warned: bool
) -> None:
    facts = make_facts(own_data=own_data)
    page = rendered(tmp_path, facts if baselines else {**facts, "baselines": None})
    assert ("Do not share this report" in page) == warned


def test_no_privacy_is_said_loudly(tmp_path: Path) -> None:
    page = as_read(rendered(tmp_path, without_privacy(make_facts())))
    assert "No privacy. This run clipped no person's part and added no noise." in page
    assert "st-mary 2 000 ∞ 40" in page
    assert "40 of 40 rounds: no privacy, accuracy" in page
    assert "There is none." in page
    assert "unit of privacy" not in page
    assert "Epsilon for them" not in page


def statement_of(page: str) -> str:
    """The words of the privacy statement."""
    return as_read("<body>" + page[page.index("<h2>Privacy statement") : page.index("<h2>Settings and versions")])


@pytest.mark.parametrize(
    ("unit", "words"),
    [("record", "k records can cost more than k times"), ("group", "max_records_per_group records of one")],
)
def test_the_statement_answers_the_questions_of_nist_for_the_unit(tmp_path: Path, unit: str, words: str) -> None:
    facts = make_facts(plan={**PLAN, "unit": unit}, statement=make_statement(unit))
    read = statement_of(rendered(tmp_path, facts))
    questions = (
        "guarantee Whether a",
        "privacy parameters",
        "unit of privacy",
        "mechanism",
        "accountant",
        "correctness",
        "side channels",
        "security",
        "trust model",
        "data collection exposure",
        "choice of hyper-parameters",
        "other studies",
    )
    places = [read.index(question) for question in questions]
    assert places == sorted(places)
    assert f"Whether a {unit} was in an institution's data" in read
    assert f"changing a {unit} counts as two" in read
    assert words in read
    assert read.count("Not covered") == 4


def test_the_statement_gives_its_numbers_rounded_up(tmp_path: Path) -> None:
    read = statement_of(rendered(tmp_path, make_facts()))
    assert "wrongly takes 1 % of the records outside the data for members recognises at most 4.5 % of" in read
    assert "for all 40 steps of the plan: a person with epsilon, at most one record in one institution 3.00 " in read
    assert (
        "each of 2 institutions 4.12 one record in each of 4 institutions 5.82 2 records in one institution 6.67"
        in read
    )
    assert read.endswith("5 records in one institution 20.30")
    group = statement_of(
        rendered(tmp_path, make_facts(plan={**PLAN, "unit": "group"}, statement=make_statement("group")))
    )
    assert group.endswith("one group in each of 4 institutions 5.82")


def test_the_statement_speaks_of_no_more_institutions_than_take_part(tmp_path: Path) -> None:
    facts = make_facts()
    read = statement_of(rendered(tmp_path, {**facts, "institutions": facts["institutions"][:3]}))
    assert "each of 2 institutions" in read
    assert "each of 4 institutions" not in read


def test_a_bound_that_is_no_protection_is_not_shown_as_a_number(tmp_path: Path) -> None:
    hopeless = make_statement(institutions={2: 50.0, 4: 50.0001}, records={2: 1286.44, 5: float("inf")})
    read = statement_of(rendered(tmp_path, make_facts(statement=hopeless)))
    assert "each of 2 institutions 50.00 one record in each of 4 institutions no bound up to 50 2 records" in read
    assert read.endswith("5 records in one institution no bound up to 50")
    assert "1286" not in read


def test_without_its_numbers_the_statement_still_answers(tmp_path: Path) -> None:
    absent = make_facts()
    del absent["statement"]
    for facts in (absent, make_facts(statement=None)):
        read = statement_of(rendered(tmp_path, facts))
        assert "k records can cost more than k times as much" in read
        assert "at most 3.00 at any institution, but for a chance of about 0.00001 (delta). unit of privacy" in read
        assert "Epsilon for them" not in read


def test_the_statement_tells_of_validation_counts(tmp_path: Path) -> None:
    plan = {**PLAN, "validation_releases": 3, "validation_noise_multiplier": 12.0}
    assert "3 releases of validation counts with noise of 12." in statement_of(
        rendered(tmp_path, make_facts(plan=plan))
    )
    assert "validation counts" not in statement_of(rendered(tmp_path, make_facts()))


def test_a_simulation_says_so(tmp_path: Path) -> None:
    assert "simulated on one machine" in rendered(tmp_path, make_facts())
    real = rendered(tmp_path, make_facts(simulated=False))
    assert "simulated" not in as_read(real)
    assert "one machine" not in as_read(real)


def test_real_institutions_on_one_machine_are_no_simulation(tmp_path: Path) -> None:
    page = as_read(rendered(tmp_path, make_facts(simulated=False, one_machine=True)))
    assert "real institutions on one machine" in page
    assert "its own ledger is charged before anything is computed. In this run all institutions" in page
    assert "nobody was protected from its operator" in page
    assert "typed by hand, never counted from private records" in page
    assert "simula" not in page


def test_a_run_that_stopped_early_still_has_a_report(tmp_path: Path) -> None:
    facts = make_facts(rounds=[], score=None, baselines=None, status="stopped", statement=None)
    facts["institutions"] = []
    page = as_read(rendered(tmp_path, facts))
    assert "0 institutions, 0 of 40 rounds: nothing spent, accuracy not measured." in page


def test_equal_facts_give_equal_bytes(tmp_path: Path) -> None:
    assert rendered(tmp_path, make_facts()) == rendered(tmp_path, make_facts())


def test_the_first_screen_says_how_good_how_sure_and_what_it_tells_of_a_person(tmp_path: Path) -> None:
    page = as_read(rendered(tmp_path, make_facts(look=LOOK)))
    first = page[: page.index("Accuracy and epsilon, round by round")]
    assert "On all 118 test records together, accuracy is 75.0 % (95 % interval: 66.4 % to 82.0 %)." in first
    assert "Whoever always answers the commonest label reaches 52.0 %." in first
    assert "federating gained 6.3 points" in first
    assert "A hundred people who are in the data." in first
    assert "of them lacked an answer" in first


def test_classes_and_confusions_are_shown_and_escaped(tmp_path: Path) -> None:
    page = rendered(tmp_path, make_facts(look=LOOK))
    assert "negative 0.700 0.800 0.747" in as_read(page)
    assert "negative 45 12 &lt;b&gt; 17 44" in as_read(page)
    assert parse(page).open == []
    assert "<h2>By class</h2>" not in rendered(tmp_path, make_facts())


@pytest.mark.parametrize("num_rounds", [1, 2])
def test_each_value_of_a_short_run_is_seen(tmp_path: Path, num_rounds: int) -> None:
    rounds = [{**row, "score": 0.5, "per_institution": {"st-mary": 0.5}} for row in make_facts()["rounds"][:num_rounds]]
    page = rendered(tmp_path, make_facts(rounds=rounds))
    (picture,) = re.findall(r"Line chart of accuracy over rounds.*?</svg>", page)
    dots = re.findall(r'<path class="dot" d="M([\d.]+) ([\d.]+)h0"/>', picture)
    assert [float(left) for left, _ in dots] == [100 * number / num_rounds for number in range(1, num_rounds + 1)]
    assert all(0 <= float(top) <= 100 for _, top in dots)


def test_each_institution_has_a_curve_with_its_name_and_fifty_have(tmp_path: Path) -> None:
    page = rendered(tmp_path, make_facts())
    assert all(f"<figcaption>{name} <strong>" in page for name in NAMES)
    many = {f"institution-{number}": 0.5 for number in range(50)}
    rounds = [{**row, "per_institution": many} for row in make_facts()["rounds"] if row["score"] is not None]
    assert rendered(tmp_path, make_facts(rounds=rounds)).count("<figcaption>institution-") == 50


def test_a_missing_fact_is_an_error(tmp_path: Path) -> None:
    facts = make_facts()
    del facts["target_delta"]
    with pytest.raises(jinja2.UndefinedError, match="target_delta"):
        write_report(tmp_path / "report.html", facts)


def test_the_institution_that_is_served_least_is_told_with_its_gain(tmp_path: Path) -> None:
    shared = {"mean": 0.6, "per_institution": {"st-mary": 0.9, "<b>": 0.3}}
    home = {"mean": 0.85, "per_institution": {"st-mary": 0.95, "<b>": 0.75}}
    page = rendered(tmp_path, make_facts(score=shared, baselines={"personalised": home}))
    told = "Trained on there, without privacy, it went from 30.0 % to 75.0 %: personalising gained 45.0 points."
    assert f"The shared adapter serves &lt;b&gt; least. {told}" in as_read(page)
