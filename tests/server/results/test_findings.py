"""Comparisons of a run with its baselines, as sentences."""

from typing import Any

from confide.server.results.findings import findings, personalising


def scored(mean: float) -> dict[str, Any]:
    return {"mean": mean, "per_institution": {}}


def test_findings_follow_the_sign_of_the_difference() -> None:
    baselines = {"local_only": scored(0.75), "no_privacy": scored(0.7), "central": None}
    assert findings({"metric": "accuracy", "score": scored(0.7), "baselines": baselines}) == [
        "Training together reached 70.0 %, an institution alone 75.0 % on average: federating lost 5.0 points.",
        "Without privacy the same federation reached 70.0 %: privacy cost nothing that shows.",
    ]
    assert findings({"metric": "accuracy", "score": scored(0.7), "baselines": {"no_privacy": scored(0.69)}}) == [
        "Without privacy the same federation reached 69.0 %: it was worse by 1.0 points."
    ]
    assert findings({"metric": "accuracy", "score": None, "baselines": baselines}) == []


def test_a_lower_perplexity_is_a_gain() -> None:
    told = {"start": scored(12.0), "local_only": scored(11.0), "no_privacy": scored(9.0)}
    assert findings({"metric": "perplexity", "score": scored(10.0), "baselines": told}) == [
        "Before the first round the score was 12.000: training gained 2.000.",
        "Training together reached 10.000, an institution alone 11.000 on average: federating gained 1.000.",
        "Without privacy the same federation reached 9.000: privacy cost 1.000.",
    ]
    earlier = {"records": 40, "start": 8.0, "finished": 9.5}
    assert findings({"metric": "perplexity", "score": None, "baselines": None, "earlier": earlier}) == [
        "On 40 records of the earlier task the start reached 8.000, the end 9.500: it forgot 1.500."
    ]


def test_the_institution_that_is_served_least_has_its_gain_told() -> None:
    shared = {"mean": 0.6, "per_institution": {"a": 0.9, "b": 0.3}}
    home = {"mean": 0.85, "per_institution": {"a": 0.95, "b": 0.75}}
    told = "The shared adapter serves b least. Trained on there, without privacy, it went from 30.0 % to 75.0 %: "
    assert personalising("accuracy", shared, home) == f"{told}personalising gained 45.0 points."
    facts = {"metric": "accuracy", "score": shared, "baselines": {"personalised": home}}
    assert findings(facts) == [f"{told}personalising gained 45.0 points."]
    losses = [{"mean": 7.5, "per_institution": {"a": 10.0, "b": 5.0}}, {"mean": 8.0, "per_institution": {"a": 11.0}}]
    assert personalising("perplexity", *losses).startswith("The shared adapter serves a least.")
    assert personalising("perplexity", *losses).endswith("personalising lost 1.000.")
