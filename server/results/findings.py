"""Comparisons of a run with its baselines, as sentences."""

from typing import Any

from confide.common.model.scores import gain, is_percent, score_text

# Results that `--baselines` computes from the same records besides the run, in the words of all who show them.
BASELINES = {
    "start": "before the first round",
    "local_only": "each institution alone, with privacy",
    "local_noise": "together, with all of the noise from each institution",
    "no_privacy": "together, without privacy",
    "central": "all records in one place, without privacy",
    "personalised": "this run, trained on at each institution without privacy",
}


def findings(facts: dict[str, Any]) -> list[str]:
    """Return a sentence for each baseline comparison; none if there is nothing to compare.

    >>> facts = {"metric": "accuracy", "score": {"mean": 0.781}, "baselines": {"local_only": {"mean": 0.718}}}
    >>> findings(facts)[0]
    'Training together reached 78.1 %, an institution alone 71.8 % on average: federating gained 6.3 points.'
    """
    metric, sentences = facts["metric"], list[str]()
    if earlier := facts.get("earlier"):
        sentences.append(_of_the_earlier_task(metric, earlier))
    if not facts["baselines"] or not facts["score"]:
        return sentences
    mean = facts["score"]["mean"]
    if begun := facts["baselines"].get("start"):
        told = _difference(metric, gain(metric, mean, begun["mean"]), "training gained", "training lost", "no change")
        sentences.append(f"Before the first round the score was {score_of(begun['mean'], metric)}: {told}.")
    alone, local, open_run = (facts["baselines"].get(name) for name in ("local_only", "local_noise", "no_privacy"))
    if alone:
        words = ("federating gained", "federating lost", "federating gained nothing")
        told = _difference(metric, gain(metric, mean, alone["mean"]), *words)
        own = f"an institution alone {score_of(alone['mean'], metric)} on average"
        reached = f"Training together reached {score_of(mean, metric)}, {own}"
        sentences.append(f"{reached}: {told}.")
    if local:
        words = ("sharing it gained", "sharing it lost", "sharing it gained nothing")
        told = _difference(metric, gain(metric, mean, local["mean"]), *words)
        reached = f"With all of the noise from each institution it reached {score_of(local['mean'], metric)}"
        sentences.append(f"{reached}: {told}.")
    if open_run:
        words = ("privacy cost", "it was worse by", "privacy cost nothing that shows")
        told = _difference(metric, gain(metric, open_run["mean"], mean), *words)
        sentences.append(f"Without privacy the same federation reached {score_of(open_run['mean'], metric)}: {told}.")
    if home := facts["baselines"].get("personalised"):
        sentences.append(personalising(metric, facts["score"], home))
    return sentences


def _of_the_earlier_task(metric: str, earlier: dict[str, Any]) -> str:
    """Return a sentence about what was forgotten.

    >>> _of_the_earlier_task("accuracy", {"records": 500, "start": 0.812, "finished": 0.79})
    'On 500 records of the earlier task the start reached 81.2 %, the end 79.0 %: it forgot 2.2 points.'
    """
    start, finished = earlier["start"], earlier["finished"]
    told = _difference(metric, gain(metric, start, finished), "it forgot", "it gained", "nothing was forgotten")
    who = f"On {earlier['records']} records of the earlier task the start reached"
    return f"{who} {score_of(start, metric)}, the end {score_of(finished, metric)}: {told}."


def personalising(metric: str, shared: dict[str, Any], home: dict[str, Any]) -> str:
    """Return a sentence about the institution that the shared adapter serves least: its gain from training on at home.

    Args:
        metric: of both.
        shared: `Scores.as_json` of the run.
        home: the same of the baseline "personalised".
    """
    before, after = shared["per_institution"], home["per_institution"]
    least = min(before.keys() & after.keys(), key=lambda name: (gain(metric, before[name], 0.0), name), default=None)
    if least is None:
        return f"Trained on at home the shared adapter reached {score_of(home['mean'], metric)}."
    words = ("personalising gained", "personalising lost", "personalising gained nothing")
    told = _difference(metric, gain(metric, after[least], before[least]), *words)
    reached = f"from {score_of(before[least], metric)} to {score_of(after[least], metric)}"
    return f"The shared adapter serves {least} least. Trained on there, without privacy, it went {reached}: {told}."


def _difference(metric: str, difference: float, more: str, less: str, same: str) -> str:
    amount = f"{100 * abs(difference):.1f} points" if is_percent(metric) else f"{abs(difference):.3f}"
    return same if float(amount.split(maxsplit=1)[0]) == 0 else f"{more if difference > 0 else less} {amount}"


def score_of(value: float | None, metric: str) -> str:
    """Return a score with a blank before its sign, or a dash for none."""
    return "–" if value is None else score_text(metric, value).replace("%", " %")
