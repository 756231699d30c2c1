"""The settings of a search, of its scheduler, and of what follows it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, WithJsonSchema

from pipelines.settings import Block

SLUG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
PYTHON_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,99}"
DURATION = r"[0-9]{1,9}(\.[0-9]{1,3})?[smhd]"
Metric = Literal[
    "val_f1_macro", "val_accuracy", "val_loss", "val_clip_f1_macro", "val_clip_accuracy",
    "val_balanced_accuracy", "val_precision_macro", "val_recall_macro", "val_log_loss",
    "val_hard_accuracy", "val_hard_f1_macro",
]  # fmt: skip
METRIC_MODES: dict[str, Literal["max", "min"]] = {
    metric: "min" if metric.endswith("loss") else "max" for metric in get_args(Metric)
}
"""Metrics that every epoch reports and a study can select by, with their direction."""
Cost = Literal["latency_ms", "size_mb"]
"""What a configuration costs in use; less is better. `tuner.training.costs` measures it."""
SHARE_OF_GRACE = 9
"""Of a training, before trials are compared: docs/benchmarks.md has what earlier rungs cost."""
SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Objective = Annotated[
    Annotated[Metric, Tag("one")]
    | Annotated[tuple[Metric, Cost], Field(strict=False), Tag("two")],
    Discriminator(lambda of: "two" if isinstance(of, list | tuple) and len(of) == 2 else "one"),
]
_Params = Annotated[dict[str, Any], WithJsonSchema({"type": "object"})]


class Search(Block):
    """Search settings: the algorithm, its limits and the metric that decides."""

    algorithm: Literal["tpe", "gp", "nsga2", "qmc", "random", "grid", "plug"] = Field(
        "tpe",
        description="Search algorithm: tree-structured Parzen estimator, Gaussian process, "
        "genetic algorithm, quasi-random points, random draws, every combination, or `plug`.",
    )
    plug: str | None = Field(
        None,
        pattern=rf"^{PYTHON_NAME}(\.{PYTHON_NAME})*:{PYTHON_NAME}$",
        description="Sampler of your own for `algorithm: plug`, a function or class of a module "
        "on Python's path: `my_samplers:Mine`.",
    )
    trials: int = Field(24, ge=1, le=100_000, description="Number of configurations to try.")
    metric: Objective = Field(
        "val_f1_macro",
        description="Metric that decides; over tracks unless named clip_. Two objectives: the "
        "metric and a cost, `[val_f1_macro, latency_ms]`; of trials that are tied by the metric "
        "the cheapest wins.",
    )
    mode: Literal["max", "min"] = Field(
        "max", description="Direction of the metric: larger or smaller is better."
    )
    at_most: dict[Cost, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="Limits that every trial must keep, `{size_mb: 10, latency_ms: 5}`: size of "
        "the weights in MB (10^6 bytes), and milliseconds for one clip on one CPU thread (without "
        "decoding and features). Other trials end untrained.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed for the search and the trials.")
    start: tuple[_Params, ...] = Field(
        (),
        strict=False,
        description="Configurations to try first, as values of ranges by the names that trials "
        "show: `{model: cnn, optim.lr: 0.001}`; the others are drawn.",
    )
    reshuffle: bool = Field(
        False,
        description="Each trial of the search draws validation tracks of its own among those of "
        "train and val, by group; the confirmation keeps the split of the data.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="End the search once this many trials in a row have brought nothing clearly "
        "better than before; those of `start` do not count. null: run all trials.",
    )
    budget: str | None = Field(
        None,
        pattern=f"^{DURATION}$",
        description="Time limit of the study: 90s, 30m, 2h; null: none. Counts features, search "
        "and confirmation; the search ends when the time for the rest is all that is left.",
    )
    max_epochs: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Limit of the epochs of all trials, confirmation included; null: none.",
    )
    device_hours: float | None = Field(
        None,
        gt=0,
        le=1_000_000_000,
        description="Limit of the hours of all trials on their GPUs, or on their CPU cores if "
        "they have none, confirmation included; null: none.",
    )
    warm_start: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Earlier studies to learn from, by name or folder.",
    )

    @property
    def score(self) -> str:
        """The metric that decides, also of two objectives."""
        return self.metric if isinstance(self.metric, str) else self.metric[0]

    @property
    def cost(self) -> str | None:
        """The second objective; None without one."""
        return None if isinstance(self.metric, str) else self.metric[1]

    @property
    def costs(self) -> tuple[str, ...]:
        """Costs that are measured, because an objective or a limit asks for them."""
        return tuple(dict.fromkeys(filter(None, (self.cost, *self.at_most))))

    @property
    def budget_seconds(self) -> float | None:
        """Time limit in seconds, or None."""
        if self.budget is None:
            return None
        return float(self.budget[:-1]) * SECONDS_PER_UNIT[self.budget[-1]]


PROMOTING = ("asha", "pasha", "hyperband")
"""Schedulers whose trials wait at a rung and may go on."""


class Scheduler(Block):
    """How far each trial runs."""

    name: Literal["asha", "asha_stopping", "pasha", "hyperband", "median", "none"] = Field(
        "asha",
        description="Scheduler. asha: trials wait at each rung, and the best go on; pasha: rungs "
        "open as they are needed; hyperband: brackets that start at different rungs; "
        "asha_stopping, median: trials that are behind are stopped; none: every trial runs to its "
        "end.",
    )
    grace_epochs: int | None = Field(
        None,
        ge=1,
        description="Epochs before a trial can be stopped, the first rung; null: a ninth of the "
        "longest training.",
    )
    reduction_factor: int = Field(
        3, ge=2, le=64, description="One trial of this many continues at each rung."
    )

    def grace(self, max_epochs: int) -> int:
        """Return the epochs before a trial can be stopped, of so many in all."""
        return self.grace_epochs or math.ceil(max_epochs / SHARE_OF_GRACE)

    def rungs(self, max_epochs: int) -> list[int]:
        """Return the epochs at which trials are compared, all below the last one."""
        found, rung = [], self.grace(max_epochs)
        while rung < max_epochs:
            found.append(rung)
            rung *= self.reduction_factor
        return found


class Confirm(Block):
    """Confirmation of the winner over several random seeds."""

    top: int = Field(2, ge=1, le=1000, description="Number of best trials to train again.")
    seeds: int = Field(3, ge=1, le=1000, description="Number of random seeds for each of them.")
    default: bool = Field(
        True,
        description="Train the default configuration (the first of search.start, else the middle "
        "of each range) with the same seeds, to say what tuning bought. Left out first if it does "
        "not fit the budget.",
    )
    refit: bool = Field(
        False,
        description="Train the winner once more before the test, on training and validation "
        "tracks together.",
    )
    fuse: bool = Field(
        False,
        description="Test and register the fusion of the confirmed models and the best of each "
        "family, if it is better than the winner on validation by more than noise.",
    )


class Registry(Block):
    """Registration of the model."""

    model: str | None = Field(
        None,
        pattern=f"^{SLUG}$",
        description="Name of the registered model, whose champion a better version replaces; "
        "null: that of the data set.",
    )
