"""Two objectives and limits: costs, the front, the choice, and what samplers are told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.storage import Folder
from tests.tuner.studies import Script, metrics
from tuner.config import loads
from tuner.errors import ConfigError, StudyError
from tuner.ledger import pareto, selection
from tuner.ledger.states import State
from tuner.ledger.summary import summarise
from tuner.ledger.trial_rows import TrialRow
from tuner.models.layers import Classifier
from tuner.report.leaderboard import as_csv
from tuner.report.page import write_report
from tuner.simulation.curves import Configuration, Curve, Curves
from tuner.simulation.search import simulate
from tuner.tracking.projection import Projection
from tuner.training.costs import broken_limits, excess, measure
from tuner.training.recipe import Crops
from tuner.trials.optuna_study import gp_study, nsga2_study, tpe_study
from tuner.trials.samplers import propose

SPACE = """
name: small
model: {name: cnn, blocks: 2, channels: {integer: [4, 32]}}
optim: {lr: {log_uniform: [1e-4, 1e-1]}}
train: {epochs: 4}
search: {trials: 16, metric: [val_f1_macro, size_mb], %s}
scheduler: {name: none}
"""


# -- costs


def test_costs_are_those_of_the_weights_by_hand() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.BatchNorm1d(4))
    classifier = Classifier(network, np.zeros(3, np.float32), np.ones(3, np.float32))
    threads = torch.get_num_threads()
    found = measure(classifier, torch.zeros(1, 3, 2), Crops(), ("size_mb", "latency_ms"))
    # 6 x 4 weights, 4 offsets, 4 scales, 4 shifts; buffers: 8 statistics and an int64 counter of
    # the norm, 3 means and 3 deviations.
    assert found["size_mb"] == pytest.approx((4 * (36 + 8 + 6) + 8) / 1e6)
    assert 0 < found["latency_ms"] < 1000
    assert torch.get_num_threads() == threads


def test_limits_name_what_breaks_them_and_by_how_much() -> None:
    costs = {"size_mb": 15.0, "latency_ms": 5.0}
    limits = {"size_mb": 10.0, "latency_ms": 5.0}
    assert broken_limits(costs, limits) == "size_mb 15 is above search.at_most, 10"
    assert excess(costs, limits) == pytest.approx(0.5)
    assert broken_limits({}, limits) == ""


# -- the ledger: front, ranking, report


def study(
    *trials: tuple[float, float], metric: Any = ("val_f1_macro", "size_mb"), **search: Any
) -> list[dict[str, Any]]:
    """Records of a search with (score, size) of each trial, on 60 validation tracks."""
    script = Script()
    config = {"search": {"metric": metric, "mode": "max", **search}}
    script.add("study", study="quick", source="name: quick\n", settings={}, config=config)
    script.add("baselines", val_tracks=60, rows=[])
    for number, (score, size) in enumerate(trials):
        name = f"t{number}"
        script.trial(name, number)
        script.records[-1]["config"] |= config
        script.add("costs", trial_id=name, costs={"size_mb": size})
        if search and size > search["at_most"]["size_mb"]:
            script.add(
                "trial_end", trial_id=name, status="stopped early", epochs=0, best=None, error=None
            )
            continue
        script.add("epoch", trial_id=name, epoch=1, metrics=metrics(score))
        script.add(
            "trial_end", trial_id=name, status="completed", epochs=1, error=None,
            best={"epoch": 1, "metrics": metrics(score)},
        )  # fmt: skip
    return script.records


TRIALS = ((0.90, 8.0), (0.87, 2.0), (0.60, 0.5), (0.86, 3.0), (0.90, 9.0), (0.60, 0.6))


def test_the_front_has_what_nothing_beats_and_the_cheapest_of_the_tied_wins() -> None:
    found = summarise(study(*TRIALS))
    # By hand: t3 is beaten by t1, t4 by t0, t5 by t2.
    front = pareto.front(found.ranked, found.ranking)
    assert [one.trial.trial_id for one in front] == ["t2", "t1", "t0"]
    # One standard error of 0.90 on 60 tracks is 0.039: 0.86 and more are tied with the best.
    assert [row.trial_id for row in found.ranked] == ["t1", "t3", "t0", "t4", "t2", "t5"]
    assert found.winner is not None
    assert found.winner.trial_id == "t1"
    assert [one["trial_id"] for one in found.to_json()["front"]] == ["t2", "t1", "t0"]


def test_with_one_objective_nothing_of_it_is_there() -> None:
    found = summarise(study(*TRIALS, metric="val_f1_macro"))
    assert pareto.front(found.ranked, found.ranking) == []
    assert found.ranked[0].trial_id in ("t0", "t4")


def test_a_loss_has_no_ties_but_equal_values() -> None:
    ranking = selection.Ranking.of(["val_loss", "size_mb"], "min", 60)
    rows = [row(0, {"val_loss": 0.3}, 5.0), row(1, {"val_loss": 0.31}, 1.0),
            row(2, {"val_loss": 0.3}, 2.0)]  # fmt: skip
    assert [one.ordinal for one in selection.leaderboard(rows, ranking)] == [2, 0, 1]
    assert [one.trial.ordinal for one in pareto.front(rows, ranking)] == [1, 2]


def row(ordinal: int, scores: Mapping[str, float], size: float, **extra: Any) -> TrialRow:
    config = {"model": {"name": "cnn"}, "search": {"at_most": extra.pop("at_most", {})}}
    return TrialRow(
        f"t{ordinal}", "search", ordinal, 0, extra.pop("params", {}), config, None,
        [(1, dict(scores))], State.COMPLETED, best={"epoch": 1, "metrics": dict(scores)},
        costs={"size_mb": size}, **extra,
    )  # fmt: skip


def test_trials_that_break_a_limit_are_not_ranked_and_say_why() -> None:
    found = summarise(study(*TRIALS, metric="val_f1_macro", at_most={"size_mb": 2.5}))
    assert [row.trial_id for row in found.ranked] == ["t1", "t2", "t5"]
    broken = [row for row in found.trials if row.breaks]
    assert [row.trial_id for row in broken] == ["t0", "t3", "t4"]
    assert broken[0].breaks == "size_mb 8 is above search.at_most, 2.5"
    assert found.counts["failed"] == 0


def test_report_leaderboard_and_mlflow_show_the_front(tmp_path: Path) -> None:
    records = study(*TRIALS)
    records.append({**records[-1], "kind": "study_end", "status": "completed", "reason": ""})
    found = summarise(records)
    write_report(found, Folder.at(str(tmp_path)))
    page = (tmp_path / "report.html").read_text()
    assert "Pareto front" in page
    assert "t1 (size_mb 2) is the cheapest of the 4 of 6 trials within one standard error" in page
    assert (tmp_path / "figures" / "pareto_front.svg").exists()
    assert "figure pareto_front:" not in page
    assert as_csv(found).splitlines()[0].split(",")[7:9] == ["val_f1_macro", "size_mb"]
    projection = Projection()
    for record in records:
        projection.apply(record)
    assert projection.parent is not None
    assert projection.parent.tags["pareto_front"] == "t2 t1 t0"
    tags = {name: run.tags.get("pareto_front") for name, run in projection.trials.items()}
    assert tags == {"t0": "true", "t1": "true", "t2": "true", "t3": None, "t4": None, "t5": None}
    names = [name for name, *_ in projection.trials["t0"].metrics]
    assert names[0] == "best_val_f1_macro", "MLflow compares runs by their first metric"
    assert "size_mb" in names
    assert "3 of 6 trials, the cheapest first: t2" in projection.parent.tags["mlflow.note.content"]


# -- the search


def space(search: str = "seed: 0", algorithm: str = "tpe") -> Any:
    return loads(SPACE % f"algorithm: {algorithm}, {search}")


def told(algorithm: str, rows: list[TrialRow], search: str = "seed: 0") -> list[Any]:
    """What a sampler of Optuna is told, without what it is not told."""
    of = {"tpe": tpe_study, "nsga2": nsga2_study}
    if algorithm == "gp":
        return gp_study(space(search, "gp"), rows, len(rows), (), {}).trials
    return of[algorithm](space(search, algorithm), rows, len(rows)).trials


def params(channels: int) -> dict[str, Any]:
    return {"model.channels": channels, "optim.lr": 1e-3}


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "nsga2"])
def test_samplers_are_told_both_objectives_as_ranks(algorithm: str) -> None:
    rows = [
        row(number, {"val_f1_macro": score}, size, params=params(4 + number))
        for number, (score, size) in enumerate(((0.9, 8.0), (0.7, 2.0), (0.8, 9.0)))
    ]
    found = told(algorithm, rows)
    assert all(len(one.values) == 2 for one in found)
    by_score, by_cost = zip(*(one.values for one in found), strict=True)
    assert sorted(range(3), key=by_score.__getitem__) == [1, 2, 0], "the best score is the largest"
    assert sorted(range(3), key=by_cost.__getitem__) == [2, 0, 1], "and so is the lowest cost"


def test_a_trial_that_breaks_a_limit_is_the_worst_for_a_sampler() -> None:
    rows = [row(0, {"val_f1_macro": 0.2}, 1.0, params=params(4)),
            row(1, {}, 30.0, params=params(32), at_most={"size_mb": 10}),
            row(2, {}, 11.0, params=params(9), at_most={"size_mb": 10})]  # fmt: skip
    both = [tuple(one.values) for one in told("tpe", rows)]
    assert both == [(3, 3), (1, 1), (2, 2)]
    text = SPACE.replace("[val_f1_macro, size_mb]", "val_f1_macro") % "seed: 0"
    alone = tpe_study(loads(text), rows, 3).trials
    assert [one.state.name for one in alone] == ["COMPLETE", "PRUNED", "PRUNED"]
    # Optuna ranks pruned trials by how far they came; these did not even begin.
    assert [one.last_step for one in alone] == [None, -1, -1]
    assert alone[1].intermediate_values[-1] == pytest.approx(-2.0)


def run(algorithm: str, seed: int, count: int = 30) -> list[TrialRow]:
    """A search in which more channels score higher and cost more, and one rate is good."""
    at, rows = space(f"seed: {seed}", algorithm), list[TrialRow]()
    for number in range(count):
        proposal = propose(at, rows, ordinal=number)
        assert proposal is not None
        channels, rate = proposal.params["model.channels"], proposal.params["optim.lr"]
        score = 0.5 + 0.01 * channels - 0.2 * abs(math.log10(rate) + 2)
        rows.append(row(number, {"val_f1_macro": score}, channels, params=dict(proposal.params)))
    return rows


def dominated(rows: list[TrialRow]) -> float:
    """Area that the front dominates, of channels below 33 and scores above 0."""
    area, left = 0.0, 33.0
    ranking = selection.Ranking("val_f1_macro", True, cost="size_mb")
    for one in reversed(pareto.front(rows, ranking)):
        area += (left - one.cost) * max(0.0, one.score)
        left = one.cost
    return area


def test_tpe_finds_more_of_the_front_than_random_draws() -> None:
    areas = {name: sum(dominated(run(name, seed)) for seed in range(3))
             for name in ("tpe", "random")}  # fmt: skip
    assert areas["tpe"] > areas["random"]


def simulated(size_mb: float) -> list[TrialRow]:
    """Search eight known configurations, whose sizes are their channels, below a limit."""
    at = space(f"seed: 0, at_most: {{size_mb: {size_mb}}}")
    known = []
    for channels in range(4, 33, 4):
        values = params(channels)
        one = at.sample(lambda name, _, values=values: values[name])
        scores = {"val_f1_macro": 0.02 * channels, "val_log_loss": 1.0, "val_loss": 1.0}
        reports = [{**scores, "size_mb": channels}] * 4
        known.append(Configuration(one.params, one.experiment, [Curve(0, reports, [1.0] * 4)]))
    return [*simulate(Curves(at, known, 60), at, 1).rows]


def test_the_simulator_keeps_limits_and_knows_costs() -> None:
    sizes = {row.costs["size_mb"]: row for row in simulated(10)}
    assert len(sizes) == 8
    assert {size for size, one in sizes.items() if not one.breaks} == {4, 8}
    assert all(one.status is State.STOPPED_EARLY for one in sizes.values() if one.breaks)
    message = (
        "none of 8 trials keeps search.at_most; the nearest is .*size_mb 4 is above "
        "search.at_most, 3; write a higher"
    )
    with pytest.raises(StudyError, match=message):
        simulated(3)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("metric: size_mb", "size_mb cannot decide alone or first; write [val_f1_macro, size_mb]"),
        ("metric: [size_mb, val_f1_macro]", "search.metric.0: size_mb cannot decide alone"),
        ("metric: [val_f1_macro, size_mb, latency_ms]", "a cost such as [val_f1_macro, latency"),
        ("metric: [val_f1_macro]", "got a list of 1"),
        ("metric: [val_f1_macro, size]", "unknown 'size'; did you mean `size_mb`?"),
        ("metric: [val_loss, size_mb]", "smaller is better for val_loss; write mode: min"),
        ("at_most: {size_mb: -1}", "search.at_most.size_mb: must be above 0, got -1"),
        ("at_most: {size: 1}", "unknown 'size'; did you mean `size_mb`?"),
        ("at_most: {size_mb: 5}}, confirm: {fuse: true", "several models, whose costs add up"),
        ("at_most: 5", "must be a block of limits such as {size_mb: 10}, got 5"),
    ],
)
def test_wrong_objectives_and_limits_are_named(search: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"{{name: x, model: {{name: cnn}}, search: {{{search}}}}}")
    assert message in str(caught.value)
