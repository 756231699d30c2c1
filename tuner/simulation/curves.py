"""Learning curves of configurations that were trained to their end, from a study or a file."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import pyarrow
import pyarrow.parquet

from tuner.config import loads
from tuner.config.ranges import Options
from tuner.config.searching import Cost
from tuner.errors import UsageError
from tuner.ledger.selection import Ranking
from tuner.ledger.timing import Timing
from tuner.ledger.trial_rows import TrialRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tuner.config import Experiment, Space
    from tuner.config.ranges import Range
    from tuner.ledger.journal import Record

COSTS = get_args(Cost)
KEPT = ("val_f1_macro", "val_log_loss")
"""Metrics that a file has, besides the one that ranks the trials."""


class Curve(NamedTuple):
    """One training, to its last report.

    Attributes:
        seed: Seed of the training.
        reports: Metrics of each report.
        seconds: Time that each report took.
    """

    seed: int
    reports: Sequence[Mapping[str, float]]
    seconds: Sequence[float]


@dataclass(frozen=True)
class Configuration:
    """A point of a space, with the trainings that are known of it.

    Attributes:
        params: Sampled values by the name of the setting.
        experiment: The resolved experiment.
        curves: Its trainings, with different seeds.
    """

    params: Mapping[str, Any]
    experiment: Experiment
    curves: Sequence[Curve]

    def true_value(self, ranking: Ranking) -> float:
        """Return what its trainings reach in the mean, each at the report that it keeps."""
        pick = max if ranking.maximise else min
        last = self.experiment.keep == "last"
        return float(
            np.mean(
                [
                    values[-1] if last else pick(values)
                    for curve in self.curves
                    if (values := [report[ranking.metric] for report in curve.reports])
                ]
            )
        )


@dataclass(frozen=True)
class Curves:
    """Curves of many configurations of a space.

    Attributes:
        space: The space that they were drawn from.
        configurations: The configurations.
        num_tracks: Number of validation tracks; None if unknown.
        at_once: Number of trials that ran at once.
    """

    space: Space
    configurations: Sequence[Configuration]
    num_tracks: int | None
    at_once: int = 1

    @property
    def ranking(self) -> Ranking:
        """Order of the trials."""
        search = self.space.template.search
        return Ranking.of(search.metric, search.mode, self.num_tracks)

    @cached_property
    def true_values(self) -> list[float]:
        """What each configuration reaches in the mean over its trainings."""
        return [one.true_value(self.ranking) for one in self.configurations]

    @property
    def best(self) -> float:
        """The best of the true values."""
        return (max if self.ranking.maximise else min)(self.true_values)

    @property
    def standard_error(self) -> float:
        """Standard error of the best value over the validation tracks; 0 for a loss."""
        if not self.num_tracks or not self.ranking.maximise:
            return 0.0
        return math.sqrt(self.best * (1 - self.best) / self.num_tracks)

    @cached_property
    def _places(self) -> NDArray[np.float64]:
        return np.array([_place(self.space.ranges, one.params) for one in self.configurations])

    def nearest(self, params: Mapping[str, Any], taken: Sequence[int]) -> int:
        """Return the index of the configuration that is nearest to some values and not taken.

        The distance is that of the unit cube, a logarithmic range by its logarithm; two options
        are equal, or as far apart as can be, and so is what only one of the two has.
        """
        apart = self._places - _place(self.space.ranges, params)
        squares = np.minimum(np.where(np.isnan(apart), 1.0, apart**2), 1.0)
        # What neither has is no difference; nan minus nan cannot tell.
        squares[:, [name not in params for name in self.space.ranges]] = 0.0
        distances = squares.sum(1)
        distances[taken] = np.inf
        return int(distances.argmin())


def _place(ranges: Mapping[str, Range], params: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the place of some values in the unit cube, (number of ranges,), NaN without one.

    An option has its index times 2, so that others are more than 1 away.
    """
    found = np.full(len(ranges), np.nan)
    for index, (name, leaf) in enumerate(ranges.items()):
        if name not in params:
            continue
        own = params[name]
        if isinstance(leaf, Options):
            found[index] = 2.0 * leaf.arguments.index(own)
            continue
        low, high = leaf.low, leaf.high
        if leaf.log:
            low, high, own = math.log(low), math.log(high), math.log(own)
        found[index] = (own - low) / (high - low)
    return found


# -- from studies


def of_study(records: Sequence[Record], space: Space) -> Curves:
    """Return the whole curves of a study's search, with those of its confirmation runs.

    Trials that were stopped early are left out: nobody knows how they would have gone on.

    Raises:
        UsageError: No trial of the search ran to its end.
    """
    rows, seconds = TrialRows(records), _seconds(records)
    found: dict[str, list[Curve]] = defaultdict(list)
    for row in rows.values():
        if row.stage in ("search", "confirm") and len(row.history) == row.experiment.num_reports:
            reports = [{**metrics, **row.costs} for _, metrics in row.history]
            curve = Curve(row.seed, reports, seconds[row.trial_id])
            found[row.parent_trial or row.trial_id].append(curve)
    if not found:
        raise UsageError("no trial of the study ran to its end: there is no curve to replay")
    timing = Timing()
    for record in records:
        timing.take(record)
    tracks = [one.get("val_tracks") for one in records if one["kind"] == "baselines"]
    return Curves(
        space,
        [
            Configuration(rows[name].params, rows[name].experiment, of)
            for name, of in found.items()
        ],
        tracks[-1] if tracks else None,
        timing.at_once,
    )


def _seconds(records: Iterable[Record]) -> dict[str, list[float]]:
    """Return the time of each report of each trial, without the start of a process."""
    times: dict[str, list[int]] = defaultdict(list)
    for record in records:
        if record["kind"] in ("trial", "epoch"):
            times[record["trial_id"]].append(record["time_ms"])
    found = {name: [(b - a) / 1000 for a, b in pairwise(of)] for name, of in times.items()}
    # A search shares its processes, so a start belongs to no trial.
    return {name: [min(of[:2]), *of[1:]] if of else [] for name, of in found.items()}


# -- files


def write(curves: Curves, path: Path) -> None:
    """Write curves as Parquet: one row for each training, the space in the file's metadata."""
    first = curves.configurations[0].curves[0].reports[0]
    costs = [name for name in COSTS if name in first]
    metrics = list(dict.fromkeys((curves.ranking.metric, *KEPT, *costs)))
    columns: dict[str, list[Any]] = defaultdict(list)
    for number, one in enumerate(curves.configurations):
        for curve in one.curves:
            columns["configuration"].append(number)
            columns["params"].append(json.dumps(dict(one.params)))
            columns["seed"].append(curve.seed)
            columns["seconds"].append(np.array(curve.seconds, np.float32).round(2))
            for name in metrics:
                values = [report[name] for report in curve.reports]
                columns[name].append(np.array(values, np.float32).round(4))
    space = loads(curves.space.to_yaml(), overrides=["data.root=demo"])  # audio is not needed
    table = pyarrow.table(dict(columns)).replace_schema_metadata(
        {
            "space": space.to_yaml(),
            "val_tracks": str(curves.num_tracks or ""),
            "at_once": str(curves.at_once),
        }
    )
    pyarrow.parquet.write_table(table, path, compression="zstd", compression_level=19)


def read(path: Path) -> Curves:
    """Read curves that `write` has written.

    Raises:
        UsageError: The file is not one of these.
    """
    try:
        table = pyarrow.parquet.read_table(path)
        space = loads(table.schema.metadata[b"space"].decode(), file=str(path))
        tracks = table.schema.metadata[b"val_tracks"].decode()
        at_once = int(table.schema.metadata[b"at_once"])
    except (OSError, KeyError, TypeError, pyarrow.ArrowInvalid) as error:
        raise UsageError(f"{path} is no file of learning curves: {error}") from error
    metrics = [name for name in table.column_names if name.startswith("val_") or name in COSTS]
    found: dict[int, list[Curve]] = defaultdict(list)
    params: dict[int, dict[str, Any]] = {}
    for row in table.to_pylist():
        params[row["configuration"]] = json.loads(row["params"])
        values = zip(*(row[name] for name in metrics), strict=True)
        reports = [dict(zip(metrics, of, strict=True)) for of in values]
        found[row["configuration"]].append(Curve(row["seed"], reports, row["seconds"]))
    known = [
        Configuration(of, space.sample(of_name(of)).experiment, found[number])
        for number, of in params.items()
    ]
    return Curves(space, known, int(tracks) if tracks else None, at_once)


def of_name(params: Mapping[str, Any]) -> Callable[[str, Range], Any]:
    """Return a function that chooses given values of ranges, for `Space.sample`."""
    return lambda name, _leaf: params[name]
