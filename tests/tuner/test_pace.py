"""The pace of a search: the time of an epoch, and what a budget holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.tuner.studies import Script
from tests.tuner.test_loop import RECIPE, ListFeed, classifier
from tuner.config import loads
from tuner.ledger.doubts import doubts
from tuner.ledger.pace import Pace
from tuner.ledger.summary import summarise
from tuner.study.pace import one_of_each_family
from tuner.training.budget import epochs_that_fit
from tuner.training.feed import Alone, Batch
from tuner.training.pace import seconds_per_epoch


class SlowFeed(ListFeed):
    """A feed with times: 0.9 s for the first training batch, 0.1 s then, 0.02 s in validation."""

    seconds = 0.0
    num_drawn = 0

    def train(self, epoch: int) -> Iterator[Batch]:
        for number, batch in enumerate(super().train(epoch)):
            self.seconds += 0.1 if number else 0.9
            self.num_drawn += 1
            yield batch

    def val(self) -> Iterator[Batch]:
        (batch,) = super().val()
        for _ in range(30):
            self.seconds += 0.02
            yield batch


def test_an_epoch_is_its_steps_and_validation_batches_without_the_first_step() -> None:
    feed = SlowFeed(count=160, batch=4)
    alone = Alone(torch.device("cpu"))
    found = seconds_per_epoch(classifier(), feed, RECIPE, alone, clock=lambda: feed.seconds)
    assert found == pytest.approx(40 * 0.1 + 30 * 0.02)
    assert feed.num_drawn < 40


@pytest.mark.parametrize(
    ("budget_seconds", "epoch_seconds", "at_once", "num_trials", "epochs"),
    [(240, 5.0, 2, 8, 12), (240, 5.0, 1, 8, 6), (240, 100.0, 2, 8, 1), (60, 1.0, 1, 3, 20)],
)
def test_epochs_are_as_many_as_the_budget_holds(
    budget_seconds: float, epoch_seconds: float, at_once: int, num_trials: int, epochs: int
) -> None:
    assert epochs_that_fit(budget_seconds, epoch_seconds, at_once, num_trials) == epochs


def pace(trials: int = 40, folds: int = 1, **seconds_per_epoch: float) -> Pace:
    return Pace("5m", 300.0, trials, 2, 25, folds, seconds_per_epoch, 240.0)


def test_a_budget_that_holds_few_full_trials_says_what_to_set() -> None:
    # A trial takes 25 x 6 s on average, so 240 s hold 3.2 of two at once; 8 need 10 minutes, and
    # features and confirmation the sixth that they need now.
    short = pace(cnn=12.0, linear=0.0)
    assert short.is_short
    assert str(short) == (
        "the budget of 5m leaves about 4 min for the search, which holds about 3 trials of full "
        "length (25 epochs, 2 at a time); for 8, set train.epochs=10 or search.budget=11m"
    )
    enough = pace(cnn=2.0)  # 9.6
    assert not enough.is_short
    assert str(enough).endswith("holds about 10 trials of full length (25 epochs, 2 at a time)")
    assert not pace(trials=3, cnn=6.0).is_short  # the 3.2 are all that was asked for
    # Five times as long as 9.6 of them.
    assert "about 2 trials of full length (5 folds of 25 epochs" in str(pace(folds=5, cnn=2.0))
    assert "for 8, set train.epochs=6 or" in str(pace(folds=5, cnn=2.0))
    assert "less than one trial" in str(pace(cnn=100.0))


def test_a_short_budget_is_a_reason_for_doubt() -> None:
    for seconds, doubted in ((12.0, True), (1.0, False)):
        script = Script()
        script.study()
        script.add(
            "pace", budget="4m", budget_seconds=240.0, trials=40, at_once=2, epochs=25, folds=1,
            seconds_per_epoch={"cnn": seconds},
        )  # fmt: skip
        found = " ".join(doubts(summarise(script.records)))
        assert ("set train.epochs=5" in found) == doubted


def test_a_family_is_timed_with_its_first_configuration_of_the_start() -> None:
    space = loads("""
name: s
model: {choice: [{name: cnn, blocks: {integer: [2, 5]}}, {name: linear}, {name: resnet18}]}
search: {start: [{model: cnn, model.cnn.blocks: 4}]}
""")
    found = one_of_each_family(space)
    assert set(found) == {"cnn", "linear", "resnet18"}
    assert found["cnn"].params["model.cnn.blocks"] == 4
