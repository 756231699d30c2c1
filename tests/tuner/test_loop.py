"""The epoch generator on lists of batches: it learns, and resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from tests.tuner.training_inputs import make_recipe, vary
from tuner.errors import DivergedError
from tuner.models.convnets import Cnn
from tuner.models.layers import Classifier
from tuner.training.augment import draw
from tuner.training.feed import Alone, Batch, Partner
from tuner.training.learner import Learner
from tuner.training.loop import epochs, find_rate
from tuner.training.metrics import clip_probabilities
from tuner.training.recipe import Crops, Recipe
from tuner.training.settings import Augment

F, M = 16, 20
RECIPE = make_recipe(
    epochs=6, name="adamw", lr=0.02, weight_decay=0.01, schedule="one_cycle", precision="fp32",
    time_mask=4, num_time_masks=2, freq_mask=2, mixup=0.1, freq_shift=1, gain_db=1.0, noise=0.1,
    speed=0.05, shift_frames=3, seed=3,
)  # fmt: skip
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

    @property
    def train_counts(self) -> np.ndarray:
        return np.bincount(self.y.numpy())

    def train(self, epoch: int):
        order = np.random.default_rng((1, epoch)).permutation(self.count)
        for step in range(self.steps_per_epoch):
            rows = order[step * self.batch : (step + 1) * self.batch]
            whole = np.zeros(len(rows), np.int64)
            rng = np.random.default_rng((1, epoch, step))
            drawn = draw(RECIPE, rng, (whole, whole), F, M)
            yield Batch(
                self.x[rows], self.y[rows], self.y[rows] * 0, len(rows),
                Partner(self.x[rows[drawn.partner]], self.y[rows[drawn.partner]],
                        drawn.at(drawn.partner)),
                drawn,
            )  # fmt: skip

    def val(self) -> Iterator[Batch]:
        # Eight tracks of two clips each.
        rows = torch.arange(16)
        yield Batch(self.x[rows], self.y[rows], rows % 8, 16)


def classifier() -> Classifier:
    torch.manual_seed(0)
    network = Cnn(blocks=2, channels=4, dropout=0.3).build(2, 64)
    return Classifier(network, np.zeros(F, np.float32), np.ones(F, np.float32))


def test_learns_and_reports_each_epoch_from_one() -> None:
    seen = list(epochs(classifier(), ListFeed(), RECIPE, Alone(CPU)))
    assert [e.epoch for e in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].metrics["val_loss"] < 0.8 * seen[0].metrics["val_loss"]
    assert set(seen[0].metrics) == {
        "train_loss", "lr", "val_loss", "val_accuracy", "val_balanced_accuracy",
        "val_precision_macro", "val_recall_macro", "val_f1_macro", "val_log_loss",
        "val_hard_accuracy", "val_hard_f1_macro", "val_clip_accuracy",
        "val_clip_balanced_accuracy", "val_clip_precision_macro", "val_clip_recall_macro",
        "val_clip_f1_macro",
    }  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"precision": "bf16"},
        {"name": "sgd", "schedule": "cyclical", "cycles": 2},
        {"ema": 0.9, "freeze_epochs": 2, "body_lr": 0.01},
        {"accumulate": 3, "clip_norm": 0.5, "label_smoothing": 0.1, "balance": "loss"},
    ],
    ids=["plain", "bf16", "cyclical", "averaged", "accumulated"],
)
@pytest.mark.parametrize("stopped_after", [1, 4])
def test_a_resumed_run_ends_bit_for_bit_like_one_that_ran_through(changed, stopped_after) -> None:
    recipe = vary(RECIPE, **changed)
    through = list(epochs(classifier(), ListFeed(), recipe, Alone(CPU)))[-1]
    first = epochs(classifier(), ListFeed(), recipe, Alone(CPU))
    for halted in first:
        if halted.epoch == stopped_after:
            break
    resumed = list(epochs(classifier(), ListFeed(), recipe, Alone(CPU), halted))
    assert resumed[0].epoch == stopped_after + 1
    for name, tensor in through.weights.items():
        assert torch.equal(resumed[-1].weights[name], tensor), name
    for name, tensor in through.average.items():
        assert torch.equal(resumed[-1].average[name], tensor), name
    assert resumed[-1].best == through.best


def test_frozen_epochs_move_the_head_only() -> None:
    model = classifier()
    before = {n: p.clone() for n, p in model.network.named_parameters()}
    run = epochs(model, ListFeed(), vary(RECIPE, freeze_epochs=2), Alone(CPU))
    next(run), next(run)
    moved = {n for n, p in model.network.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"head.1.weight", "head.1.bias"}
    next(run)
    moved = {n for n, p in model.network.named_parameters() if not torch.equal(p, before[n])}
    assert any(n.startswith("body") for n in moved)


def test_best_epoch_follows_the_mode() -> None:
    recipe = vary(RECIPE, metric="val_loss", maximise=False)
    seen = list(epochs(classifier(), ListFeed(), recipe, Alone(CPU)))
    losses = [e.metrics["val_loss"] for e in seen]
    assert seen[-1].best["epoch"] == 1 + int(np.argmin(losses))


def test_a_loss_that_is_not_finite_ends_with_epoch_and_rate() -> None:
    with pytest.raises(DivergedError, match=r"epoch 1, step \d, at learning rate"):
        list(epochs(classifier(), ListFeed(poison=True), RECIPE, Alone(CPU)))


def test_learning_rate_is_the_schedules() -> None:
    last = list(epochs(classifier(), ListFeed(), vary(RECIPE, schedule="constant"), Alone(CPU)))
    assert {e.metrics["lr"] for e in last} == {0.02}


def test_probabilities_are_the_mean_over_crops() -> None:
    model = classifier().eval()
    x = torch.randn(3, F, M)
    by_hand = (model(x[..., :12]).softmax(-1) + model(x[..., 8:]).softmax(-1)) / 2
    torch.testing.assert_close(clip_probabilities(model, x, Crops(12)), by_hand)


@dataclass
class SumFeed(ListFeed):
    """The same batches for every worker's part: rank 0 gets the first third, rank 1 the rest."""

    rank: int = 0
    size: int = 1

    def train(self, epoch: int):
        for batch in super().train(epoch):
            edge = len(batch.y) // 3
            part = slice(None) if self.size == 1 else (slice(edge), slice(edge, None))[self.rank]
            yield Batch(
                batch.x[part], batch.y[part], batch.track[part], batch.whole_size,
                batch.partner.of(part), batch.draws.of(part),
            )  # fmt: skip


class Recorded(Alone):
    """One of two workers whose gradients are kept instead of averaged."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(CPU)
        self.rank, self.size = rank, size


def first_gradients(rank: int, size: int) -> list[torch.Tensor]:
    """Gradients of the first step of a worker, for a network without norms and dropout."""
    torch.manual_seed(0)
    network = Cnn(blocks=2, channels=4, dropout=0.0, batch_norm=False).build(2, 64)
    model = Classifier(network, np.zeros(F, np.float32), np.ones(F, np.float32))
    feed = SumFeed(count=16, batch=16, rank=rank, size=size)
    recipe = vary(RECIPE, epochs=1, name="sgd", lr=1e-9, momentum=0.0)
    next(epochs(model, feed, recipe, Recorded(rank, size)))
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def test_the_mean_of_uneven_workers_gradients_is_that_of_the_whole_batch() -> None:
    whole = first_gradients(0, 1)
    parts = [first_gradients(rank, 2) for rank in (0, 1)]
    for one, a, b in zip(whole, *parts, strict=True):
        torch.testing.assert_close((a + b) / 2, one, atol=1e-6, rtol=1e-4)


def test_a_resumed_run_remembers_a_best_epoch_before_the_stop() -> None:
    halted = next(epochs(classifier(), ListFeed(), RECIPE, Alone(CPU)))
    unbeatable = {"epoch": 1, "metrics": {**halted.metrics, "val_f1_macro": 2.0}}
    resumed = epochs(
        classifier(), ListFeed(), RECIPE, Alone(CPU), replace(halted, best=unbeatable)
    )
    assert list(resumed)[-1].best == unbeatable


def first_step(recipe: Recipe, batch_norm: bool = False) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of a step on 16 clips, without dropout."""
    torch.manual_seed(0)
    network = Cnn(blocks=2, channels=4, dropout=0.0, batch_norm=batch_norm).build(2, 64)
    model = Classifier(network, np.zeros(F, np.float32), np.ones(F, np.float32))
    feed = ListFeed(count=16, batch=16)
    learner = Learner.create(model, feed, recipe, Alone(CPU))
    learner.wrap()
    loss = float(learner.step(next(feed.train(1)), 1e-9))
    return loss, [p.grad.clone() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(parts: int) -> None:
    whole_loss, whole = first_step(RECIPE)
    loss, gradients = first_step(vary(RECIPE, accumulate=parts))
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    for one, other in zip(whole, gradients, strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-4)


def test_a_gradient_is_cut_to_its_longest_norm() -> None:
    def norm(gradients: list[torch.Tensor]) -> float:
        return float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())

    free = norm(first_step(RECIPE)[1])
    assert norm(first_step(vary(RECIPE, clip_norm=free / 3))[1]) == pytest.approx(
        free / 3, rel=1e-4
    )
    assert norm(first_step(vary(RECIPE, clip_norm=free * 3))[1]) == pytest.approx(free, rel=1e-4)


def test_the_body_has_its_own_rate() -> None:
    """One plain step of SGD moves each weight by its rate times its gradient."""
    recipe = vary(
        RECIPE, epochs=1, name="sgd", momentum=0.0, weight_decay=0.0, lr=0.5,
        body_lr=0.05, schedule="constant",
    )  # fmt: skip
    model = classifier()
    before = {n: p.detach().clone() for n, p in model.network.named_parameters()}
    list(epochs(model, ListFeed(count=16), recipe, Alone(CPU)))
    for name, p in model.network.named_parameters():
        rate = 0.05 if name.startswith("body") else 0.5
        assert p.grad is not None
        torch.testing.assert_close(p.detach(), before[name] - rate * p.grad, msg=name)


def test_each_phase_has_a_schedule_of_its_own() -> None:
    recipe = vary(RECIPE, schedule="cosine", freeze_epochs=2)
    rates = [e.metrics["lr"] for e in epochs(classifier(), ListFeed(), recipe, Alone(CPU))]
    # 3 steps an epoch: the second ends phase one, the sixth phase two, each at 0
    assert rates[1] == pytest.approx(0.0, abs=1e-9)
    assert rates[2] > 0.015
    assert rates[5] == pytest.approx(0.0, abs=1e-9)


def test_averaged_weights_are_what_is_validated_and_kept() -> None:
    recipe = vary(RECIPE, ema=0.9)
    model = classifier()
    last = list(epochs(model, ListFeed(), recipe, Alone(CPU)))[-1]
    live, kept = last.weights, last.validated_weights
    assert torch.equal(
        live["network.head.1.weight"], dict(model.network.named_parameters())["head.1.weight"]
    )
    assert not torch.equal(live["network.head.1.weight"], kept["network.head.1.weight"])
    assert kept.keys() == live.keys()
    model.load_state_dict(kept)
    x = ListFeed().x[:16]
    p = clip_probabilities(model.eval(), x, Crops())
    expected = torch.nn.functional.nll_loss(p.log(), ListFeed().y[:16])
    assert last.metrics["val_loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("smoothing", "weighted"), [(0.0, False), (0.2, False), (0.0, True)])
def test_the_loss_is_the_mean_over_clips_that_the_recipe_asks_for(smoothing, weighted) -> None:
    """Cross-entropy written out: targets (1 - s) onehot + s / k, times n / (k n_c)."""
    model = classifier()
    feed = ListFeed(count=16)
    feed.y = (torch.arange(16) % 4 == 0).long()  # 12 clips of the first class, 4 of the second
    recipe = vary(
        RECIPE, label_smoothing=smoothing, balance="loss" if weighted else "none",
        augment=Augment(),
    )  # fmt: skip
    learner = Learner.create(model, feed, recipe, Alone(CPU))
    learner.wrap()
    model.eval()  # dropout would blur the comparison
    batch = replace(next(feed.train(1)), draws=None, partner=None)
    found = float(learner.step(batch, 1e-9)) / 16
    log_p = model(batch.x).detach().log_softmax(-1).numpy()
    target = np.full((16, 2), smoothing / 2)
    target[np.arange(16), batch.y.numpy()] += 1 - smoothing
    weight = np.array([16 / (2 * 12), 16 / (2 * 4)])[None] if weighted else 1.0
    assert found == pytest.approx(float(-(weight * target * log_p).sum() / 16), rel=1e-4)


def test_the_range_test_leaves_no_trace_and_finds_a_rate_that_learns() -> None:
    model, feed = classifier(), ListFeed()
    before = {n: p.clone() for n, p in model.state_dict().items()}
    torch.manual_seed(11)
    state = torch.get_rng_state()
    found = find_rate(model, feed, RECIPE, Alone(CPU))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.requires_grad for p in model.parameters())
    recipe = vary(RECIPE, lr=found.suggestion, epochs=20)
    assert list(epochs(model, feed, recipe, Alone(CPU)))[-1].metrics["val_accuracy"] == 1.0


def test_mixup_weighs_sound_and_label_alike() -> None:
    """A share of 0.9 means nine tenths of the clip and nine tenths of its label.

    Each of the two is augmented by draws of its own: here the one mixed in is 1 dB louder.
    """
    model = Classifier(_LabelReader(), np.zeros(F, np.float32), np.ones(F, np.float32))
    zeros = np.zeros(1, np.int64)
    drawn = replace(draw(make_recipe(), np.random.default_rng(0), (zeros, zeros), F, M), share=0.9)
    own, other = torch.zeros(1, F, M), torch.ones(1, F, M)
    batch = Batch(
        own, torch.tensor([0]), torch.tensor([0]), 1,
        partner=Partner(other, torch.tensor([1]), replace(drawn, gain_db=np.ones(1))),
        draws=drawn,
    )  # fmt: skip
    recipe = vary(RECIPE, augment=Augment(gain_db=1.0))
    learner = Learner.create(model, ListFeed(), recipe, Alone(CPU))
    found = float(learner.step(batch, 0.0))
    # The network sees a tenth of 2, the partner, and answers with logits (0.8, 0.2).
    log_p = torch.tensor([0.8, 0.2]).log_softmax(0)
    assert found == pytest.approx(float(-(0.9 * log_p[0] + 0.1 * log_p[1])), abs=1e-6)


class _LabelReader(torch.nn.Module):
    """Logits that are the shares of silence and of sound in the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(1, 1), torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = x.mean((1, 2, 3))
        unused = 0 * self.body.weight.sum()
        return torch.stack([1 - share + unused, share], dim=1)
