"""The simulator: known curves, replayed through the study's own search, in simulated time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tuner.config import Space, loads
from tuner.errors import UsageError
from tuner.simulate import main
from tuner.simulation.comparison import Band, Method, compare
from tuner.simulation.curves import Configuration, Curve, Curves, of_name, of_study, read, write
from tuner.simulation.search import Course, Moment, simulate

ROOT = Path(__file__).parents[2]
SPACE = """
name: s
model:
  choice:
    - {name: cnn, blocks: {grid: [2, 3, 4]}}
    - {name: resnet18}
train: {epochs: 9, keep: last}
search: {algorithm: grid, trials: 4}
scheduler: {name: none}
confirm: {top: 1}
"""
# Final values of cnn with 2, 3 and 4 blocks and of resnet18, whose epochs take so many seconds.
LEVELS, SECONDS = (0.3, 0.9, 0.6, 0.5), (1.0, 2.0, 3.0, 4.0)


def curve(level: float, seconds: float, seed: int = 0, epochs: int = 9) -> Curve:
    values = [level * (epoch + 1) / epochs for epoch in range(epochs)]
    reports = [{"val_f1_macro": value, "val_log_loss": 1 - value} for value in values]
    return Curve(seed, reports, [seconds] * epochs)


def made(text: str = SPACE, num_tracks: int | None = 100) -> Curves:
    space = loads(text)
    known = [
        Configuration(one.params, one.experiment, [curve(level, seconds)])
        for one, level, seconds in zip(space.enumerate_grid(), LEVELS, SECONDS, strict=True)
    ]
    return Curves(space, known, num_tracks)


def with_settings(curves: Curves, *settings: str) -> Space:
    return loads(curves.space.to_yaml(), overrides=list(settings))


@pytest.mark.parametrize(("slots", "seconds"), [(1, 90.0), (2, 54.0), (9, 36.0)])
def test_a_search_without_stopping_takes_what_its_curves_take(slots: int, seconds: float) -> None:
    """By hand: nine epochs of 1, 2, 3 and 4 s; in two slots 9 + 27 + 0 beside 18 + 36."""
    curves = made()
    course = simulate(curves, curves.space, slots)
    assert (course.seconds, course.epochs, len(course.rows)) == (seconds, 36, 4)
    assert course.moments[-1].chosen == 1


def test_the_choice_is_known_as_soon_as_its_trial_has_ended() -> None:
    curves = made()
    course = simulate(curves, curves.space, 1)
    first = [(one.seconds, one.epochs, one.chosen) for one in course.moments[:2]]
    assert first == [(9.0, 9, 0), (27.0, 18, 1)]
    method = Method("m", [course], curves, 1.0)
    assert method.until_good(lambda one: one.epochs) == Band(18, 18, 18)
    assert method.until_good(lambda one: one.seconds) == Band(27, 27, 27)
    after = [band.median for band in method.behind_after([8, 9, 20])]
    assert after == pytest.approx([np.inf, 0.6, 0.0])


def test_the_scheduler_of_a_study_saves_what_it_would_save() -> None:
    """Rungs at 1 and 3 and a third each, by hand: three wait, the best goes on, then the rest."""
    curves = made()
    space = with_settings(curves, "scheduler={name: asha, grace_epochs: 1}")
    course = simulate(curves, space, 1)
    assert [len(row.history) for row in course.rows] == [1, 9, 1, 1]
    assert course.epochs == 12
    stopping = with_settings(curves, "scheduler={name: asha_stopping, grace_epochs: 1}")
    # The first is never stopped; the second and the third are better than a third of the rung.
    assert [len(r.history) for r in simulate(curves, stopping, 1).rows][:2] == [9, 9]


def test_a_proposal_becomes_the_nearest_configuration_that_is_left() -> None:
    curves = made(
        SPACE.replace("{grid: [2, 3, 4]}", "{integer: [2, 4]}").replace("grid", "random")
    )
    cnn = {"model": "cnn", "model.cnn.blocks": 3}
    assert curves.nearest(cnn, []) == 1
    assert curves.nearest(cnn, [1]) in (0, 2)
    assert curves.nearest(cnn, [0, 1, 2]) == 3, "another family only when its own is used up"
    assert curves.nearest({"model": "resnet18"}, []) == 3
    course = simulate(curves, with_settings(curves, "search.trials=50"), 1)
    assert len(course.rows) == 4, "no configuration is tried twice"
    assert {json.dumps(row.params) for row in course.rows} == {
        json.dumps(dict(one.params)) for one in curves.configurations
    }


def test_each_seed_draws_one_training_of_a_configuration() -> None:
    curves = made()
    two = [
        replace(one, curves=[curve(level, 1.0), curve(level / 2, 1.0, seed=1)])
        for one, level in zip(curves.configurations, LEVELS, strict=True)
    ]
    curves = replace(curves, configurations=two)
    assert curves.true_values == pytest.approx([0.75 * level for level in LEVELS])
    (method,) = compare(curves, {"grid": []}, 30, 1)
    best = {max(row.value("val_f1_macro") or 0 for row in one.rows) for one in method.courses}
    assert {round(one, 6) for one in best} == {0.9, 0.6, 0.5, 0.45}


def test_a_file_of_curves_reads_as_what_was_written(tmp_path: Path) -> None:
    curves = made()
    write(curves, tmp_path / "c.parquet")
    again = read(tmp_path / "c.parquet")
    assert again.space.settings() == curves.space.settings()
    assert (again.num_tracks, again.at_once) == (100, 1)
    for one, other in zip(again.configurations, curves.configurations, strict=True):
        assert (one.params, one.experiment) == (other.params, other.experiment)
        for name in ("val_f1_macro", "val_log_loss"):
            values = [report[name] for report in one.curves[0].reports]
            assert values == pytest.approx([r[name] for r in other.curves[0].reports], abs=1e-4)
        assert one.curves[0].seconds == other.curves[0].seconds
    (tmp_path / "none.parquet").write_text("no Parquet")
    with pytest.raises(UsageError, match="is no file of learning curves"):
        read(tmp_path / "none.parquet")


def test_the_curves_of_a_study_are_those_of_its_whole_trials() -> None:
    space = loads(SPACE)
    one, other, *_ = space.enumerate_grid()
    records: list[dict] = [{"kind": "baselines", "val_tracks": 40}]

    def trial(
        name: str, sample, epochs: int, stage: str = "search", of: str | None = None
    ) -> None:
        records.append({
            "kind": "trial", "trial_id": name, "stage": stage, "ordinal": 0, "seed": len(records),
            "params": sample.params, "config": sample.experiment.model_dump(mode="json"),
            "parent_trial": of, "time_ms": 1000 * len(records),
        })  # fmt: skip
        began = records[-1]["time_ms"]
        for epoch in range(1, epochs + 1):
            # The first report includes 5 s in which the process starts.
            records.append({
                "kind": "epoch", "trial_id": name, "epoch": epoch, "stop": False,
                "metrics": {"val_f1_macro": epoch / 10, "val_log_loss": 1.0},
                "time_ms": began + 5000 + 2000 * epoch,
            })  # fmt: skip
        status = "completed" if epochs == 9 else "stopped early"
        records.append({
            "kind": "trial_end", "trial_id": name, "status": status, "epochs": epochs,
            "best": {"epoch": epochs, "metrics": {"val_f1_macro": epochs / 10}}, "error": None,
            "time_ms": began + 60_000,
        })  # fmt: skip

    trial("t0", one, 9)
    trial("t1", other, 3)
    with pytest.raises(UsageError, match="no trial of the study ran to its end"):
        of_study(records[len(records) - 5 :], space)
    trial("c0", one, 9, "confirm", "t0")
    found = of_study(records, space)
    (only,) = found.configurations
    assert only.params == one.params
    assert [len(c.reports) for c in only.curves] == [9, 9]
    assert only.curves[0].seconds == [2.0] * 9
    assert found.num_tracks == 40
    # sqrt(0.9 * 0.1 / 40)
    assert found.standard_error == pytest.approx(0.0474, abs=1e-4)


def test_bands_are_values_that_happened() -> None:
    assert Band.of([1, 2, 3, np.inf]) == Band(2, 3, np.inf)
    method = Method("m", [Course([Moment(1, 1, 0, 0.5)], [], 1, 1)], made(), 1.0)
    assert method.too_good.median == pytest.approx(0.2), "0.5 in the search, 0.3 in the mean"
    assert method.until_good(lambda one: one.epochs).median == np.inf
    assert method.reached == 0.0


@pytest.mark.parametrize(("name", "trainings"), [("cnn", 360), ("families", 320)])
def test_the_curves_that_are_kept_are_whole(name: str, trainings: int) -> None:
    curves = read(ROOT / "benchmarks" / "curves" / f"{name}.parquet")
    source = loads((ROOT / "benchmarks" / "curves" / f"{name}.yaml").read_text())
    assert curves.space.settings() == source.settings()
    known = [one for of in curves.configurations for one in of.curves]
    assert (len(curves.configurations), len(known)) == (200, trainings)
    assert {len(one.reports) for one in known} <= {27, 1}
    assert len(known[0].seconds) == len(known[0].reports)


def test_the_command_answers_with_a_table_a_figure_and_json(tmp_path: Path) -> None:
    write(made(), tmp_path / "c.parquet")
    words = [
        str(tmp_path / "c.parquet"), "--scheduler", "none", "--scheduler",
        "asha,grace_epochs=1,reduction_factor=4", "--algorithm", "random", "--seeds", "3",
        "--figure", str(tmp_path / "f.svg"), "--json",
    ]  # fmt: skip
    ran = CliRunner().invoke(main, words)
    assert ran.exit_code == 0, ran.output
    lines = ran.stderr.splitlines()
    assert "4 configurations ran to their end; the best has val_f1_macro 0.900" in lines[0]
    assert lines[1].split()[:2] == ["scheduler,", "algorithm"]
    assert lines[2].startswith("none, random")
    assert lines[3].startswith("asha,grace_epochs=1,reduction_factor=4, random")
    assert "times faster" in lines[4]
    (study,) = json.loads(ran.stdout)["studies"]
    assert [one["epochs"][1] for one in study["methods"]] == [36, 12]
    svg = (tmp_path / "f.svg").read_text()
    assert svg.startswith("<svg")
    assert "epochs of all trials" in svg


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no study 'nowhere'"),
        (["{c}", "--scheduler", "ashaa"], "did you mean `asha`"),
        (["{c}", "--scheduler", "asha,factor=4"], "scheduler.factor"),
        (["{c}", "--algorithm", "annealing"], "search.algorithm"),
        (["{c}", "--seeds", "0"], "--seeds"),
        (["{c}", "{c}", "--figure", "f.svg"], "take one study"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_a_sentence(
    words: list[str], said: str, tmp_path: Path
) -> None:
    write(made(), tmp_path / "c.parquet")
    words = [word.replace("{c}", str(tmp_path / "c.parquet")) for word in words]
    ran = CliRunner().invoke(main, [*words, "--storage", str(tmp_path)])
    assert ran.exit_code == 2
    assert said in ran.output
    assert "Traceback" not in ran.output


def test_a_chosen_value_is_the_one_that_is_given() -> None:
    space = loads(SPACE)
    first = next(iter(space.enumerate_grid()))
    assert space.sample(of_name(first.params)).experiment == first.experiment
