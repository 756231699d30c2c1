"""Saved views of a study in MLflow's UI: its trials by score, and its seeds by configuration.

The keys are those that MLflow 3.17 keeps for "Save view" in a tag of the experiment: what its
table filters, sorts and shows, and the charts of its chart view.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

from tuner.tracking.shown import allowed, target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tuner.tracking.projection import Projection
    from tuner.tracking.shown import Run

TAG = "mlflow.sharedViewState."
MAX_TAG = 20_000  # characters that MLflow takes for the tag of an experiment
SECTION = "Compare"
WIDE = {"columns": 1, "cardHeight": 480}  # one chart to a row; height in pixels
MAX_FAMILIES = 12  # charts


def view_key(study_id: str) -> str:
    """Return the name of a study's view in the address of MLflow's page."""
    return allowed(study_id)


def views(projection: Projection, parent_run_id: str) -> dict[str, str]:
    """Return the tags of the experiment that hold the views of a study."""
    study = projection.parent
    assert study is not None
    best = target(projection.metric)
    trials = list(projection.kinds.values())
    searched = _searched(trials)
    seeds = ["metrics.`seeds_mean`", "metrics.`seeds_std`"]
    params = [f"params.`{name}`" for name in searched]
    shown = [f"metrics.`{best}`", f"tags.`{projection.told}`", *params, *seeds]
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_run_id}' AND tags.stage = 'search'",
        "orderByKey": f"metrics.`{best}`",
        "orderByAsc": not projection.maximise,
        "selectedColumns": shown,
        **_ordered(shown),
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": list(_charts(trials, searched, best)),
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": False, "deleted": False,
             "isGenerated": name != SECTION, **(WIDE if name == SECTION else {})}
            for name in (SECTION, "Model metrics", "System metrics")
        ],
    }  # fmt: skip
    shown = [f"metrics.`{best}`", *seeds, "tags.`configuration`", *params]
    by_seed = {
        **state,
        "selectedColumns": shown,
        **_ordered(shown),
        "searchFilter": state["searchFilter"].replace("'search'", "'confirm'"),
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": "configuration"}],
        },
        "compareRunCharts": None,
        "compareRunSections": None,
    }
    key = TAG + view_key(study.tags["study_id"])
    named = {
        key: _saved(f"{study.name}: trials by {projection.metric}", state, study.start_ms),
        f"{key}-seeds": _saved(f"{study.name}: seeds by configuration", by_seed, study.start_ms),
    }
    return {tag: text for tag, text in named.items() if len(text) <= MAX_TAG}


def _ordered(columns: Sequence[str]) -> dict[str, Any]:
    """Return the order of all columns and the widths of the first, in pixels.

    MLflow would sort columns by kind and name, and cut the name of the metric off.
    """
    order = ["attributes.`Run Name`", *columns, "duration", "runDateAndNestInfo"]
    widths = dict.fromkeys(columns, 110) | {order[0]: 190, columns[0]: 150, "duration": 80}
    return {"columnOrder": order, "columnWidths": widths}


def _saved(name: str, state: dict[str, Any], time_ms: int) -> str:
    text = json.dumps({key: value for key, value in state.items() if value is not None})
    packed = "deflate;" + base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return json.dumps({"name": name, "createdAt": time_ms, "updatedAt": time_ms, "state": packed})


def _searched(trials: Sequence[Run]) -> list[str]:
    """Return the searched parameters of all trials, in the order of the space."""
    names = dict.fromkeys(name for run in trials for name in run.params)
    if len({run.params["model"] for run in trials}) == 1:
        names.pop("model", None)
    return list(names)


def _charts(trials: Sequence[Run], searched: list[str], best: str) -> Iterator[dict[str, Any]]:
    """Yield parallel coordinates of all trials, then of each family of models.

    MLflow leaves out a run that lacks one of the parameters, so each chart has those that all of
    its runs have.
    """
    families = list(dict.fromkeys(run.params["model"] for run in trials))
    groups = {"All trials": list(trials)}
    if len(families) > 1:
        for model in families[:MAX_FAMILIES]:
            groups[model] = [run for run in trials if run.params["model"] == model]
    for title, runs in groups.items():
        names = [name for name in searched if all(name in run.params for run in runs)]
        if title != "All trials":
            names = [name for name in names if name != "model"]
        yield {
            "type": "PARALLEL", "uuid": f"parallel {title}", "metricSectionId": SECTION,
            "displayName": title, "isGenerated": False, "deleted": False, "showAllRuns": False,
            "runsCountToCompare": 10, "selectedParams": names,
            # A single axis is refused.
            "selectedMetrics": [best] if names else ["train_loss", best],
        }  # fmt: skip
