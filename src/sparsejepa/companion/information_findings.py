"""From measured multiinformation to plain words: what the penalty changes beyond the controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

from scipy.special import ndtri

from sparsejepa.companion.information_of_encoders import Measured
from sparsejepa.information.multiinformation import AmongRandom
from sparsejepa.intervals import Interval, seed_interval

LEVEL = 0.95
# Fewer seeds say which of these encoders differ, not which methods.
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Finding:
    """One question about one method, and its answer."""

    question: str  # total, dimension or grouping
    method: str
    answer: bool  # whether the penalty changes more than the control explains
    sentence: str


def per_unit_differences(
    measured: Sequence[Measured], method: str
) -> tuple[list[float], Interval | None]:
    """TC / (d - 1) of a method minus JEPA's, for every seed that has both, and an interval.

    Over seeds from three on; else over images, of the one seed or of the mean of two, as if both
    encoders saw images of their own (a wider interval than they deserve). None without a pair.
    """
    by_run = {(m.method, m.seed): m.copula for m in measured}
    pairs = [
        (by_run[method, seed], by_run["jepa", seed])
        for found, seed in by_run
        if found == method and ("jepa", seed) in by_run
    ]
    differences = [one.per_unit - jepa.per_unit for one, jepa in pairs]
    if not differences:
        return [], None
    if len(differences) >= ENOUGH_SEEDS:
        return differences, seed_interval(differences, LEVEL)
    errors = [
        hypot(one.standard_error / max(one.d - 1, 1), jepa.standard_error / max(jepa.d - 1, 1))
        for one, jepa in pairs
    ]
    mean = sum(differences) / len(differences)
    half = float(ndtri((1 + LEVEL) / 2)) * hypot(*errors) / len(errors)
    return differences, Interval(mean, mean - half, mean + half, LEVEL)


def findings(measured: Sequence[Measured], method: str) -> list[Finding]:
    """Total, dimension and grouping for one penalised method; questions without data are absent."""
    found = []
    differences, interval = per_unit_differences(measured, method)
    if interval:
        clear = interval.low > 0 or interval.high < 0
        side = "more" if interval.value > 0 else "less"
        basis = f"over {len(differences)} seeds"
        if len(differences) < ENOUGH_SEEDS:
            basis = f"over images, of {_count(len(differences), 'seed')}"
        found.append(
            Finding(
                "total",
                method,
                clear,
                f"At the same width and whatever the scale of the latents, {method} has "
                f"{f'clearly {side}' if clear else 'not clearly more or less'} multiinformation "
                f"per unit than JEPA: {interval.value:+.3f} nats "
                f"[{interval.low:+.3f}, {interval.high:+.3f}], {basis}.",
            )
        )
    own = [m for m in measured if m.method == method]
    subsets = [m.subset for m in own if m.subset]
    if subsets:
        found.append(
            _against_chance(
                "dimension",
                method,
                subsets,
                "the latents that some group reads have {} multiinformation than as many random "
                "ones of the same encoder",
            )
        )
    partitions = [m.partition for m in own if m.partition]
    if partitions:
        found.append(
            _against_chance(
                "grouping",
                method,
                partitions,
                "its groups leave {} multiinformation between them than random groups of the "
                "same sizes",
            )
        )
    return found


def conclusion(measured: Sequence[Measured]) -> str:
    """Does the penalty change multiinformation beyond dimension, scale and random grouping?"""
    methods = list(dict.fromkeys(m.method for m in measured))
    penalised = [m for m in methods if m.startswith("sparsejepa")]
    if not penalised:
        return "There is no run with a group penalty, so nothing can be said about it."
    sentences = []
    for method in penalised:
        found = findings(measured, method)
        sentences += [finding.sentence for finding in found]
        yes = [finding.question for finding in found if finding.answer]
        no = [finding.question for finding in found if not finding.answer]
        verdict = f"So for {method}, beyond what its controls explain: "
        verdict += f"yes for the {_listed(yes)}" if yes else "nothing is clear"
        verdict += f"; not clear for the {_listed(no)}." if yes and no else "."
        seeds = len({m.seed for m in measured if m.method == method})
        if seeds < ENOUGH_SEEDS:
            verdict += (
                f" With {_count(seeds, 'seed')} this is about *these* encoders, not about the "
                "method."
            )
        sentences.append(verdict)
    return " ".join(sentences)


def as_results(measured: Sequence[Measured]) -> dict[str, Any]:
    """What `results.json` keeps of each representation."""
    return {m.name: _cell(m) for m in measured}


def _cell(m: Measured) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "method": m.method,
        "seed": m.seed,
        "n": m.copula.n,
        "d": m.copula.d,
        "dropped": [f"{c.column}: {c.reason}" for c in m.copula.dropped],
        "total": {"value": m.copula.value, "interval": list(m.copula.interval())},
        "per_unit": m.copula.per_unit,
        "gaussian": {"value": m.gaussian.value, "interval": list(m.gaussian.interval())},
        "null": {"mean": m.null[0], "standard_deviation": m.null[1]},
        "missed_by_copula": {"mean": m.missed[0], "standard_error": m.missed[1]},
        "rankme": m.rankme,
        "spread": m.spread,
        "accuracy": m.accuracy,
        "read_latents": m.read,
        "shared_latents": m.shared,
        "between": m.between,
        "within": m.within,
    }
    for key, among in (("partition", m.partition), ("subset", m.subset)):
        if among:
            cell[key] = {
                "own": among.own,
                "rank": among.rank,
                "p_value": among.p_value,
                "random_range": [float(among.random.min()), float(among.random.max())],
            }
    return cell


def table(measured: Sequence[Measured]) -> dict[str, Mapping[str, str]]:
    """Representation -> column -> text, for a table that is read beside accuracy."""

    def cells(m: Measured) -> dict[str, str]:
        low, high = m.copula.interval(LEVEL)
        return {
            "TC, copula": f"{m.copula.value:.1f} [{low:.1f}, {high:.1f}]",
            "TC / (d - 1)": f"{m.copula.per_unit:.3f}",
            "TC, Gaussian": f"{m.gaussian.value:.1f}",
            "shuffled": f"{m.null[0]:+.2f} ± {m.null[1]:.2f}",
            "d": str(m.copula.d),
            "RankMe": f"{m.rankme:.0f}",
            "spread": f"{m.spread:.2f}",
            "accuracy, %": f"{100 * m.accuracy:.1f}",
        }

    return {m.name: cells(m) for m in measured}


def _against_chance(
    question: str, method: str, chances: Sequence[AmongRandom], sentence: str
) -> Finding:
    """Holds of all runs of a method, or is not clear."""
    # Bonferroni over runs is not needed: all of them have to agree.
    sides = {among.rank > 0.5 for among in chances if among.p_value <= 1 - LEVEL}
    clear = len(sides) == 1 and all(among.p_value <= 1 - LEVEL for among in chances)
    side = ("more" if sides == {True} else "less") if clear else "not clearly more or less"
    ranks = ", ".join(f"{100 * among.rank:.0f} %" for among in chances)
    return Finding(
        question,
        method,
        clear,
        f"In {method}, {sentence.format(side)}: of {len(chances[0].random)} random choices "
        f"{ranks} have less ({_count(len(chances), 'run')}, p = "
        f"{', '.join(f'{among.p_value:.2g}' for among in chances)}; clear is what all runs show "
        "at 0.05).",
    )


def _listed(words: Sequence[str]) -> str:
    return " and the ".join([", the ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
