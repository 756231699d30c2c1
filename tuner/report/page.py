"""The report of a study: ``report.html``, and its figures."""

from __future__ import annotations

import datetime
import shlex
from functools import partial
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from pipelines.build.console import duration
from tuner.errors import decorating
from tuner.ledger import course, importance, objectives, pareto
from tuner.ledger.doubts import doubts
from tuner.ledger.noise import like_the_best, noise
from tuner.ledger.summary import VOTES
from tuner.ledger.trial_rows import is_reshuffled, num_folds
from tuner.ledger.trust import clips_in_words, leak_in_words
from tuner.report import facts, pareto_figure, score_figures, search_figures, training_figures
from tuner.report.figures import as_svg
from tuner.report.leaderboard import as_csv, leaderboard
from tuner.report.result import time_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from matplotlib.figure import Figure

    from pipelines.storage import Folder
    from tuner.ledger.summary import Summary

TEMPLATE = "page.html.jinja"
FEWEST_IN_A_SLICE = 4  # trials; fewer show no shape
MAX_SETTINGS, MAX_SLICES = 10, 6


def write_report(summary: Summary, folder: Folder, how_to_open: str | None = None) -> None:
    """Write the report of a study so far, replacing an older one.

    Args:
        summary: The study's result.
        folder: The study's folder.
        how_to_open: Line that shows the runs in MLflow; None if no store keeps them.
    """
    with decorating("leaderboard.csv"):
        folder.write_text("leaderboard.csv", as_csv(summary))
    importances = importance.importances(summary)
    names = [one.name for one in importances.settings] or importance.searched(summary)
    figures = (
        *_figures(summary, folder),
        *_figures_of_settings(summary, names, importances.settings),
    )
    pictures, problems = _drawn(figures)
    for name, svg in pictures.items():
        (folder / "figures").write_text(f"{name}.svg", svg)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    moment = datetime.datetime.fromtimestamp(summary.time_ms / 1000, tz=datetime.UTC)
    page = environment.get_template(TEMPLATE).render(
        study=summary,
        facts=facts,
        duration=duration,
        time=time_in_words(summary.seconds),
        leak=leak_in_words(summary.leakage) if summary.leakage else "",
        doubts=[*doubts(summary), *filter(None, [facts.weak_classes(summary)])],
        gain=course.gain_in_words(summary),
        importances=importances,
        sliced={f"slice_{number}": name for number, name in enumerate(names, start=1)},
        mistakes=facts.heard(summary, folder),
        classes=facts.class_rows(summary),
        board=leaderboard(summary),
        front=pareto.front(summary.ranked, summary.ranking),
        objectives=[*objectives.sentences(summary)],
        noise=noise(summary),
        is_reshuffled=is_reshuffled(summary.config),
        like_the_best=like_the_best(summary),
        num_folds=num_folds(summary.config),
        clips_in_words=clips_in_words,
        votes=VOTES,
        pictures={name: Markup(svg) for name, svg in pictures.items()},
        problems=[*summary.explanation.problems, *problems],
        date=moment.strftime("%Y-%m-%d %H:%M UTC"),
        exported=shlex.quote(f"{folder}/model"),
        storage=shlex.quote(str(folder.parent.parent)),
        how_to_open=how_to_open,
    )
    folder.write_text("report.html", page)


def _figures(study: Summary, folder: Folder) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yield the figures that the study has data for, by name, to be drawn."""
    marks = search_figures.Marks.of(study)
    unit = "folds so far" if num_folds(study.config) else "epoch"
    if steps := course.best_so_far(study):
        lines = _compared_with(study)
        yield "best_so_far", partial(search_figures.best_so_far, steps, marks, lines)
    if any(len(row.history) > 1 for row in study.trials):
        yield "history", partial(learning_curves, study)
    # After a cross-validation only the mean over its folds is known.
    if study.winner and len(study.winner.history) > 1 and not num_folds(study.config):
        yield "losses", partial(training_figures.losses, study.winner, unit)
    if study.ranked and len(families := course.families(study)) > 1:
        yield "families", partial(search_figures.families, families, marks)
    if (cost := study.ranking.cost) and (found := pareto.points(study.ranked, study.ranking)):
        best = pareto.front(study.ranked, study.ranking)
        yield "pareto_front", partial(pareto_figure.front, found, best, cost, marks)
    if test := study.test:
        name = "macro F1 on the test tracks"
        yield "scores", partial(score_figures.scores, facts.score_lines(study), name)
        drawn = partial(score_figures.confusion_matrix, labels=test.labels)
        yield "confusion_matrix", partial(drawn, test.confusion)
        if (clips := test.clip_confusion) is not None and (clips != test.confusion).any():
            yield "confusion_clips", partial(drawn, clips)
        if test.reliability:
            bins = {name: found["bins"] for name, found in test.reliability.items()}
            yield "reliability", partial(score_figures.reliability, bins)
    if finder := facts.lr_finder(study, folder):
        yield "lr_finder", partial(training_figures.learning_rates, **finder)


def learning_curves(study: Summary) -> Figure:
    """Draw the learning curves of a study's trials."""
    unit = "folds so far" if num_folds(study.config) else "epoch"
    marks, stops = search_figures.Marks.of(study), course.rungs(study.config)
    return training_figures.learning_curves(study.trials, marks, stops, unit)


def _compared_with(study: Summary) -> dict[str, float]:
    """Return validation scores of the baselines in the study's metric."""
    name = study.metric.removeprefix("val_")
    return {one.title: one.val[name] for one in study.baselines if one.val and name in one.val}


def _figures_of_settings(
    study: Summary, names: list[str], important: Sequence[importance.Importance]
) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yield importance, parallel coordinates, and a slice for each setting, to be drawn."""
    if len(rows := study.ranked) < FEWEST_IN_A_SLICE:
        return
    if important:
        yield "importance", partial(search_figures.importance, important[:MAX_SETTINGS])
    # The others would be gaps for the most part.
    usual = [
        name for name in names if 2 * sum(name in row.read_params for row in rows) >= len(rows)
    ]
    if len(usual) > 1:
        yield "parallel", partial(
            search_figures.parallel_coordinates, usual[:MAX_SETTINGS], rows, study.metric,
            study.maximise,
        )  # fmt: skip
    marks = search_figures.Marks.of(study)
    for number, name in enumerate(names[:MAX_SLICES], start=1):
        yield f"slice_{number}", partial(search_figures.slice_of, name, rows, marks)


def _drawn(
    figures: Iterable[tuple[str, Callable[[], Figure]]],
) -> tuple[dict[str, str], list[str]]:
    """Draw figures; return them as SVG by name, and why some are missing."""
    pictures, problems = {}, []
    for name, draw in figures:
        try:
            pictures[name] = as_svg(draw(), name)
        except Exception as error:  # noqa: BLE001  # a figure may not cost the page
            problems.append(f"figure {name}: {str(error) or type(error).__name__}")
    return pictures, problems
