"""The epoch generator on lists of batches: it learns, and resumes exactly."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from tuner.augment import AugmentSpec, draw
from tuner.errors import DivergedError
from tuner.feed import Alone, Batch
from tuner.loop import Recipe, clip_probabilities, crop_starts, epochs
from tuner.models import Classifier
from tuner.models.cnn import Cnn

F, M = 16, 20
CPU = torch.device("cpu")


@dataclass
class ListFeed:
    """Clips whose class is the loud half of the bands; as small as a data set can be."""

    count: int = 48
    batch: int = 16
    poison: bool = False
    num_labels: int = 2
    val_labels: np.ndarray = field(default_factory=lambda: np.arange(8) % 2)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.y = torch.arange(self.count) % 2
        self.x = torch.randn(self.count, F, M, generator=generator)
        self.x[self.y == 0, : F // 2] += 3.0
        self.x[self.y == 1, F // 2 :] += 3.0
        if self.poison:
            self.x[3] = float("inf")

    @property
    def steps_per_epoch(self) -> int:
        return self.count // self.batch

    def train(self, epoch: int):
        order = np.random.default_rng((1, epoch)).permutation(self.count)
        for step in range(self.steps_per_epoch):
            rows = order[step * self.batch : (step + 1) * self.batch]
            drawn = draw(
                AugmentSpec(time_mask=4, freq_mask=2), np.random.default_rng((1, epoch, step)),
                len(rows), F, M,
            )  # fmt: skip
            yield Batch(self.x[rows], self.y[rows], self.y[rows] * 0, len(rows), draws=drawn)

    def val(self):
        # Eight tracks of two clips each.
        rows = torch.arange(16)
        yield Batch(self.x[rows], self.y[rows], rows % 8, 16)


def classifier() -> Classifier:
    torch.manual_seed(0)
    network = Cnn(2, blocks=2, channels=4, dropout=0.3)
    return Classifier(network, np.zeros(F, np.float32), np.ones(F, np.float32))


RECIPE = Recipe(
    epochs=6, optimizer="adamw", peak_lr=0.02, weight_decay=0.01, schedule="one_cycle",
    precision="fp32", seed=3,
)  # fmt: skip


def test_learns_and_reports_each_epoch_from_one() -> None:
    seen = list(epochs(classifier(), ListFeed(), RECIPE, Alone(CPU)))
    assert [e.number for e in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].metrics["train_loss"] < 0.7 * seen[0].metrics["train_loss"]
    assert seen[-1].metrics["val_accuracy"] == 1.0
    assert set(seen[0].metrics) == {
        "train_loss", "lr", "val_loss", "val_accuracy", "val_f1_macro", "val_clip_accuracy",
        "val_clip_f1_macro",
    }  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stopped_after", [1, 4])
def test_a_resumed_run_ends_bit_for_bit_like_one_that_ran_through(
    precision, stopped_after
) -> None:
    recipe = replace(RECIPE, precision=precision)
    through = list(epochs(classifier(), ListFeed(), recipe, Alone(CPU)))[-1].checkpoint
    first = epochs(classifier(), ListFeed(), recipe, Alone(CPU))
    for epoch in first:
        if epoch.number == stopped_after:
            break
    halted = epoch.checkpoint
    resumed = list(epochs(classifier(), ListFeed(), recipe, Alone(CPU), halted))
    assert resumed[0].number == stopped_after + 1
    for name, tensor in through.weights.items():
        assert torch.equal(resumed[-1].checkpoint.weights[name], tensor), name
    assert resumed[-1].checkpoint.best == through.best


def test_frozen_epochs_move_the_head_only() -> None:
    model = classifier()
    before = {n: p.clone() for n, p in model.network.named_parameters()}
    run = epochs(model, ListFeed(), replace(RECIPE, freeze_epochs=2), Alone(CPU))
    next(run), next(run)
    moved = {n for n, p in model.network.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"head.1.weight", "head.1.bias"}
    next(run)
    moved = {n for n, p in model.network.named_parameters() if not torch.equal(p, before[n])}
    assert any(n.startswith("body") for n in moved)


def test_best_epoch_follows_the_mode() -> None:
    recipe = replace(RECIPE, metric="val_loss", maximise=False)
    seen = list(epochs(classifier(), ListFeed(), recipe, Alone(CPU)))
    losses = [e.metrics["val_loss"] for e in seen]
    assert seen[-1].checkpoint.best["epoch"] == 1 + int(np.argmin(losses))


def test_a_loss_that_is_not_finite_ends_with_epoch_and_rate() -> None:
    with pytest.raises(DivergedError, match=r"epoch 1 at learning rate"):
        list(epochs(classifier(), ListFeed(poison=True), RECIPE, Alone(CPU)))


def test_learning_rate_is_the_schedules() -> None:
    last = list(epochs(classifier(), ListFeed(), replace(RECIPE, schedule="constant"), Alone(CPU)))
    assert {e.metrics["lr"] for e in last} == {0.02}


@pytest.mark.parametrize(
    ("frames", "crop", "expected"),
    [
        (10, None, [0]),
        (10, 10, [0]),
        (10, 12, [0]),
        (10, 5, [0, 5]),
        (10, 4, [0, 3, 6]),
        (10, 6, [0, 4]),
    ],
)
def test_crops_cover_the_clip(frames, crop, expected) -> None:
    assert crop_starts(frames, crop) == expected
    covered = {f for s in expected for f in range(s, s + (crop or frames))}
    assert covered >= set(range(frames))


def test_probabilities_are_the_mean_over_crops() -> None:
    model = classifier().eval()
    x = torch.randn(3, F, M)
    by_hand = (model(x[..., :12]).softmax(-1) + model(x[..., 8:]).softmax(-1)) / 2
    torch.testing.assert_close(clip_probabilities(model, x, 12), by_hand)


@dataclass
class SumFeed(ListFeed):
    """The same batches for every worker's part: rank 0 gets the first third, rank 1 the rest."""

    rank: int = 0
    size: int = 1

    def train(self, epoch: int):
        for batch in super().train(epoch):
            edge = len(batch.y) // 3
            part = slice(None) if self.size == 1 else (slice(edge), slice(edge, None))[self.rank]
            drawn = batch.draws.of(part) if batch.draws else None
            yield replace(
                batch, x=batch.x[part], y=batch.y[part], track=batch.track[part], draws=drawn
            )


class Recorded(Alone):
    """One of two workers whose gradients are kept instead of averaged."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(CPU)
        self.rank, self.size = rank, size


def first_gradients(rank: int, size: int) -> list[torch.Tensor]:
    """Gradients of the first step of a worker, for a network without norms and dropout."""
    torch.manual_seed(0)
    network = Cnn(2, blocks=2, channels=4, dropout=0.0, batch_norm=False)
    model = Classifier(network, np.zeros(F, np.float32), np.ones(F, np.float32))
    feed = SumFeed(count=16, batch=16, rank=rank, size=size)
    recipe = replace(RECIPE, epochs=1, optimizer="sgd", peak_lr=1e-9, momentum=0.0)
    next(epochs(model, feed, recipe, Recorded(rank, size)))
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def test_the_mean_of_uneven_workers_gradients_is_that_of_the_whole_batch() -> None:
    whole = first_gradients(0, 1)
    parts = [first_gradients(rank, 2) for rank in (0, 1)]
    for one, a, b in zip(whole, *parts, strict=True):
        torch.testing.assert_close((a + b) / 2, one, atol=1e-6, rtol=1e-4)


def test_a_resumed_run_remembers_a_best_epoch_before_the_stop() -> None:
    halted = next(epochs(classifier(), ListFeed(), RECIPE, Alone(CPU))).checkpoint
    unbeatable = {"epoch": 1, "metrics": {**halted.metrics, "val_f1_macro": 2.0}}
    resumed = epochs(
        classifier(), ListFeed(), RECIPE, Alone(CPU), replace(halted, best=unbeatable)
    )
    assert list(resumed)[-1].checkpoint.best == unbeatable


def test_mixup_weighs_sound_and_label_alike() -> None:
    """A share of 0.9 means nine tenths of the clip and nine tenths of its label."""
    from tuner.augment import Draws
    from tuner.loop import _Learner, _loss

    model = Classifier(_LabelReader(), np.zeros(F, np.float32), np.ones(F, np.float32))
    zeros = np.zeros((1, 2), np.int64)
    drawn = Draws(np.zeros(1, np.int64), np.zeros(1, np.int64), 0.9, zeros, zeros)
    own, other = torch.zeros(1, F, M), torch.ones(1, F, M)
    batch = Batch(
        own, torch.tensor([0]), torch.tensor([0]), 1,
        partner=(other, torch.tensor([1])), draws=drawn,
    )  # fmt: skip
    off = torch.autocast("cpu", enabled=False)
    learner = _Learner(model, torch.optim.SGD(model.parameters(), lr=0.0), off)
    found = float(_loss(model.network, learner, batch).detach())
    # The network sees 0.1 of the partner and answers with logits (0.9, 0.1).
    log_p = torch.tensor([0.9, 0.1]).log_softmax(0)
    assert found == pytest.approx(float(-(0.9 * log_p[0] + 0.1 * log_p[1])), abs=1e-6)


class _LabelReader(torch.nn.Module):
    """Logits that are the shares of silence and of sound in the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = x.mean((1, 2, 3))
        return torch.stack([1 - share, share], dim=1) + 0 * self.unused
