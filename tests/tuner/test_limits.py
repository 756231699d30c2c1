"""Limits of time, epochs and device hours: what they count, and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.storage import Folder
from tests.tuner.studies import Script, finished_study
from tuner.config import Search, Space, loads
from tuner.errors import UsageError
from tuner.ledger.cost import Cost
from tuner.ledger.journal import Ledger
from tuner.study.warm_start import load_earlier
from tuner.trials.likeness import alike
from tuner.trials.limits import Limit, Limits, in_force
from tuner.trials.reserve import ANSWER_SECONDS, Reserve

TRAIN = {"train": {"epochs": 5}}


def search(seconds: int = 0) -> Script:
    """A second for each record: a start of 2 s, then two whole trials of five epochs."""
    script = Script()
    script.study()
    script.add("searching")
    for number in range(2):
        script.trial(f"t{number}", number)
        script.records[-1]["config"] |= TRAIN
        script.epochs(f"t{number}", 0.5 + 0.1 * number, range(1, 6))
        script.end(f"t{number}", "completed", 0.5 + 0.1 * number, 5)
    script.time_ms += 1000 * seconds
    return script


def limits(asked: Search, records: list[dict[str, Any]], now: list[float], devices: float = 1.0):
    return Limits(in_force(asked, {}), records, devices, None, lambda: now[0])


@pytest.mark.parametrize(
    ("asked", "before", "after"),
    [
        # 15 records a second apart after the first, of which 6 + 6 s are of trials that run
        (Search(budget="20s"), 20 - 15.0, 0.0),
        (Search(max_epochs=12), 2.0, 2.0),
        (Search(device_hours=0.01), 0.01 - 2 * 12 / 3600, 0.01 - 2 * 12 / 3600),
    ],
)
def test_each_limit_counts_its_own(asked: Search, before: float, after: float) -> None:
    now = [100.0]
    found = limits(asked, search().records, now, devices=2)
    (name,) = in_force(asked, {})
    assert found.left(name) == pytest.approx(before)
    assert found.reached() is None
    now[0] += 5.0
    assert found.left(name) == pytest.approx(after)
    assert found.reached() == (name if after <= 0 else None)


def test_epochs_and_devices_of_trials_that_run_count_as_they_go() -> None:
    now = [0.0]
    found = limits(Search(max_epochs=12, device_hours=1.0), search().records, now)
    script = search()
    script.trial("t9", 9)
    script.records[-1]["config"] |= TRAIN
    found.take(script.records[-1])
    now[0] = 7.0
    assert found.left("search.device_hours") == pytest.approx(1 - (12 + 7) / 3600)
    for number in (1, 2):
        found.take({"kind": "epoch", "trial_id": "t9", "epoch": number, "metrics": {}})
        assert found.reached() == (None, "search.max_epochs")[number - 1]
    assert found.end("search.max_epochs")["reason"] == "12 epochs of search.max_epochs are used up"


SPACE = "name: s\nmodel: {name: cnn}\ntrain: {epochs: 5}\nconfirm: {top: 2, seeds: 3}\n"


def kept(space: Space, asked: Search, script: Script, now: list[float]) -> Limits:
    """Limits that keep back what the rest of a study will cost."""
    return Limits(in_force(asked, {}), script.records, 1, Reserve(space), lambda: now[0])


def test_the_time_before_an_interruption_is_of_the_devices_and_that_of_a_test_is_not() -> None:
    script = Script()
    script.study()
    script.trial("t0", 0)
    script.records[-1]["config"] |= TRAIN
    script.epochs("t0", 0.5, range(1, 3))
    script.add("study_end", status="interrupted")  # 3 s after the trial began
    script.add("test", trial_id="t0", metrics={})
    script.add("study_end", status="completed")
    found = limits(Search(device_hours=1.0), script.records, [100.0], devices=2)
    assert found.left("search.device_hours") == pytest.approx(1 - 2 * 3 / 3600)


def test_the_time_of_an_elastic_trial_is_that_of_the_workers_that_it_has() -> None:
    script = Script()
    script.study()
    script.trial("t0", 0)
    script.records[-1]["config"] |= TRAIN | {"resources": {"elastic": [1, 4]}}
    for epoch, devices in ((1, 2), (2, 2), (3, 1)):  # a second for each; then one worker is lost
        script.add("epoch", trial_id="t0", epoch=epoch, metrics={}, devices=devices)
    script.end("t0", "completed", 0.5, 3)
    found = limits(Search(device_hours=1.0), script.records, [100.0])
    assert found.left("search.device_hours") == pytest.approx(1 - (2 + 2 + 1 + 1) / 3600)


def test_the_runs_of_what_an_extension_left_out_confirm_nothing_that_is_left() -> None:
    space = loads(
        SPACE.replace("{name: cnn}", "{name: cnn, blocks: {integer: [2, 4]}}").replace(
            "seeds: 3", "seeds: 3, default: false"
        )
    )
    script = search()
    for seed in range(3):
        script.trial(f"t1-s{seed}", seed, "confirm", "t1")
        script.records[-1]["config"] |= TRAIN
        script.end(f"t1-s{seed}", "completed", 0.6, 5)
    assert Reserve(space, script.records).cost().epochs == 3 * 5  # of the second best
    script.add("extended", left_out=[{"trial_id": "t1"}])
    assert Reserve(space, script.records).cost().epochs == 2 * 3 * 5


def test_the_confirmation_of_the_best_trials_is_kept_but_at_most_half() -> None:
    space, now = loads(SPACE), [0.0]
    reserve = Reserve(space, search().records)
    # Six runs of five epochs, one at a time, a second each, after one start: the first report
    # took 2 s.
    cost = reserve.cost()
    assert cost == pytest.approx(Cost(1 + 6 * 5 + ANSWER_SECONDS, 30, 1 + 30))
    found = kept(space, Search(budget="100s"), search(), now)
    assert found.left("search.budget") == pytest.approx(100 - 15 - cost.seconds)
    now[0] = 100 - 15 - cost.seconds
    assert found.reached() == "search.budget"
    now[0] += 2.0  # what the end of a search takes
    assert found.too_dear(cost) is None
    # Half of 32 epochs hold no six runs of five; seeds are saved, and 2 x 2 hold no 20 either,
    # so what is kept is one configuration with two seeds.
    short = kept(space, Search(max_epochs=32), search(), now)
    assert short.left("search.max_epochs") == 32 - 10 - 10
    assert short.left("search.max_epochs", keep=False) == 22
    assert short.too_dear(cost) == "search.max_epochs"
    assert short.too_dear(Cost(10, 22, 0)) is None


def test_the_default_configuration_is_kept_beside_the_best_unless_it_is_one_of_them() -> None:
    space = loads(SPACE.replace("{name: cnn}", "{name: cnn, blocks: {integer: [2, 4]}}"))
    assert space.default_sample().params == {"model.blocks": 3}
    script = search()
    assert Reserve(space, script.records).cost().epochs == (2 + 1) * 3 * 5
    alone = Reserve(space, script.records).cost(lambda cost: cost.epochs < 45)
    assert alone.epochs == 2 * 3 * 5
    # It is the second of the two best, ...
    script.records[2]["params"] = {"model.blocks": 3}
    assert Reserve(space, script.records).cost().epochs == 2 * 3 * 5
    # ... then the third, with one seed of three that has run before an extension.
    script.trial("t2", 2)
    script.records[-1]["config"] |= TRAIN
    script.end("t2", "completed", 0.9, 5)
    script.trial("t0-s1", 0, "confirm", "t0")
    script.records[-1]["config"] |= TRAIN
    script.end("t0-s1", "completed", 0.5, 5)
    assert Reserve(space, script.records).cost().epochs == 2 * 3 * 5 + 2 * 5


def test_a_search_without_a_result_has_the_whole_limit() -> None:
    text = SPACE.replace("seeds: 3", "seeds: 3, default: false")
    space = loads(text.replace("{name: cnn}", "{name: cnn, blocks: {integer: [2, 4]}}"))
    script, now = Script(), [0.0]
    script.study()
    script.add("pace", seconds_per_epoch={"cnn": 4.0}, at_once=2, start_seconds=6.0)
    # Nobody knows the best two yet, but how long they take: 6 runs of 20 s in two slots.
    cost = Reserve(space, script.records).cost()
    assert cost == pytest.approx(Cost(6 + 3 * 20 + ANSWER_SECONDS, 30, 2 * 6 + 6 * 20))
    found = kept(space, Search(budget="100s"), script, now)
    assert found.seconds_left() == pytest.approx(100 - 1 - 6 - 40 - ANSWER_SECONDS)  # 2 x 2 runs
    now[0] = 98.0
    assert found.reached() is None
    found.take({"kind": "epoch", "trial_id": "t0", "epoch": 1, "metrics": {}})
    assert found.reached() == "search.budget"


def test_a_trial_that_was_promoted_and_ends_again_is_one_of_the_best_once() -> None:
    script = search()
    for name in ("t0", "t1"):
        script.add("promoted", trial_id=name)
        script.end(name, "completed", 0.9, 5)
    script.trial("t2", 2)
    script.records[-1]["config"] |= {"train": {"epochs": 50}}
    script.end("t2", "stopped early", 0.8, 5)
    assert Reserve(loads(SPACE), script.records).cost().epochs == 2 * 3 * 5


def test_a_limit_that_has_ended_a_search_ends_it_when_the_study_resumes() -> None:
    script = search()
    script.add("budget_ended", limit="search.budget", total=100.0, reason="r")
    for budget, reached in (("100s", "search.budget"), ("200s", None)):
        assert limits(Search(budget=budget), script.records, [0.0]).reached() == reached
    since = Limits({"search.budget": Limit(1000, 900)}, script.records)
    assert since.reached() is None  # the search of an extension


# -- what earlier studies are worth


def test_spaces_are_alike_by_the_share_of_their_ranges() -> None:
    text = "name: s\nmodel: {name: cnn}\noptim: {lr: {log_uniform: [1e-4, 1e-2]}}\n"
    text += "train: {batch_size: {choice: [16, 32]}}\n"
    one = loads(text)
    assert alike(one, one) == 1
    # By hand: one of three decades is shared, and one of three sizes.
    other = loads(text.replace("[1e-4, 1e-2]", "[1e-3, 1e-1]").replace("[16, 32]", "[32, 64]"))
    assert alike(one, other) == pytest.approx((1 / 3 + 1 / 3) / 2)
    longer = loads(text + "augment: {mixup: 0.5}\n")
    assert alike(one, longer) == pytest.approx(2 / 3)  # two ranges are equal, a setting differs


def test_an_earlier_study_is_weighed_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    text = "name: new\nmodel: {choice: [{name: cnn}, {name: resnet18}]}\n"
    text += "optim: {lr: {log_uniform: [7e-3, 0.1]}}\nsearch: {warm_start: [quick]}\n"
    space = loads(text)
    ledger = Ledger(Folder(tmp_path / "studies" / "quick"))
    for record in finished_study():
        fields = {k: v for k, v in record.items() if k not in ("seq", "time_ms", "kind")}
        if record["kind"] == "study":
            fields["settings"] = space.settings()
        ledger.append(record["kind"], **fields)
    ledger.close()
    (same,) = load_earlier(space, Folder(tmp_path), ["0123456789abcdef"])
    (other,) = load_earlier(space, Folder(tmp_path), ["another"])
    assert same["weight"] == pytest.approx(2 * other["weight"])
    # t3 has failed; the rates of t0, t1 and t2 are 0.01, 0.0079 and 0.0063.
    found = {one["trial_id"]: one["params"] for one in same["trials"]}
    assert {name: set(params) for name, params in found.items()} == {
        "t0": {"model", "optim.lr"}, "t1": {"model", "optim.lr"}, "t2": {"model"},
    }  # fmt: skip
    with pytest.raises(UsageError, match="no study 'gone'"):
        load_earlier(loads(text.replace("[quick]", "[gone]")), Folder(tmp_path), [])
