"""A comparison of two models, or of two configurations over seeds, on the same tracks."""

from __future__ import annotations

from typing import NamedTuple

TITLES = {
    "first": "the first configuration", "default": "the default configuration",
    "runner_up": "the runner-up",
}  # fmt: skip


class Comparison(NamedTuple):
    """What was chosen, beside something else on the same tracks.

    Attributes:
        first: Trial of the other configuration.
        split: ``test`` or ``val``.
        before: Score of the other one.
        after: Score of what was chosen.
        ci95: 95 % interval of the difference over resamplings of the tracks and the seeds.
        tracks: Number of tracks.
        of: What the other one is, a key of `TITLES`.
        metric: Name of the score.
        seeds: Number of seeds that both scores are means over; 0 for that of one model each.
    """

    first: str
    split: str
    before: float
    after: float
    ci95: tuple[float, float]
    tracks: int
    of: str = "first"
    metric: str = "f1_macro"
    seeds: int = 0

    @property
    def title(self) -> str:
        """The other one, in words."""
        return TITLES[self.of]

    @property
    def difference(self) -> float:
        """The score of what was chosen minus the other one."""
        return self.after - self.before

    @property
    def place(self) -> str:
        """What was measured, and where."""
        name = "macro F1" if self.metric == "f1_macro" else self.metric.replace("_", " ")
        split = "test" if self.split == "test" else "validation"
        seeds = {0: "", 1: " with the same seed"}.get(
            self.seeds, f" with the same {self.seeds} seeds"
        )
        return f"{name} on the same {self.tracks} {split} tracks{seeds}"

    @property
    def verdict(self) -> str:
        """What the difference says."""
        low, high = self.ci95
        noise = "within noise"
        if low > 0 or high < 0:
            noise = "more than noise" if low > 0 else "worse, beyond noise"
        return f"95 % interval of the difference {low:+.3f} to {high:+.3f}: {noise}"
