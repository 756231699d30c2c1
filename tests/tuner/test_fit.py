"""Warnings about settings that do not fit the data; the expected values are counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.facts import DataFacts
from pipelines.sources.tracks import Track
from tests.tuner.test_auto import Around
from tuner.config import Space, loads


def facts(seconds: tuple[float, ...] = (10.0,), rate: int = 44_100, column: str = "") -> DataFacts:
    """Sixty tracks of four classes; each third one is in the fold 1."""
    listed = tuple(
        Track.listed(f"{n}.wav", "abcd"[n % 4], {column: str(n % 3)} if column else {})
        for n in range(60)
    )
    return DataFacts(listed, seconds, (rate,), (rate / 2,))


def remarks(text: str, of: DataFacts) -> list[str]:
    space: Space = loads(f"name: x\nmodel: {{name: cnn}}\n{text}", "f.yaml", (), Around(of))
    return list(map(str, space.remarks))


FITTING = "data: {clip_seconds: 3.0, split: {train: 0.6, val: 0.2, test: 0.2}}\n"


def test_settings_that_fit_cause_no_warning() -> None:
    assert remarks(FITTING, facts()) == []


@pytest.mark.parametrize(
    ("seconds", "is_long"),
    [((2.0,), True), ((2.9,), False), ((0.4, *[3.0] * 9), False), ((*[0.4] * 39, 3.0), True)],
)
def test_clips_longer_than_most_tracks(seconds: tuple[float, ...], is_long: bool) -> None:
    found = remarks(FITTING, facts(seconds))
    assert [text.startswith("f.yaml:3:22: data.clip_seconds: clips of 3 s") for text in found] == (
        [True] if is_long else []
    )


def test_a_default_is_warned_about_too_but_not_for_whole_tracks() -> None:
    split = "data: {split: {train: 0.6, val: 0.2, test: 0.2}}"
    assert "clips of 3 s are longer" in remarks(split, facts((0.5,)))[0]
    forest = loads(f"name: x\nmodel: {{name: forest}}\n{split}", "f", (), Around(facts((0.5,))))
    assert forest.remarks == ()


def test_files_that_cannot_be_read() -> None:
    def unread(bad: int, seconds: tuple[float, ...]) -> DataFacts:
        return replace(facts(seconds), unreadable=("a.wav: looks like text",) * bad)

    (found,) = remarks(FITTING, unread(12, (10.0,) * 12))
    assert found == (
        "f.yaml:3:7: data.max_bad_share: 12 of 24 files looked at cannot be read, for example "
        "a.wav: looks like text; more than the share 0.2 that may be bad"
    )
    assert remarks(FITTING, unread(2, (10.0,) * 8)) == []
    assert "3 of 10" in remarks(FITTING, unread(3, (10.0,) * 7))[0]
    # Nothing else is known about files of which none can be read.
    short = FITTING.replace("3.0", "30.0")
    (found,) = remarks(short + "features: {sample_rate: 44100}", unread(24, ()))
    assert "24 of 24" in found


def test_a_rate_above_that_of_the_files() -> None:
    (found,) = remarks(FITTING, facts(rate=16_000))
    assert "22,050 Hz is above the rate of most files, 16,000 Hz" in found
    assert remarks(FITTING + "features: {sample_rate: 16000}", facts(rate=16_000)) == []
    # A pretrained network has the rate that it has.
    heads = f"{FITTING}features: {{network: speech}}".replace("3.0", "1.0")
    space = loads(f"name: x\nmodel: {{name: linear}}\n{heads}", "f", (), Around(facts(rate=8_000)))
    assert space.remarks == ()


@pytest.mark.parametrize(
    ("split", "number"),
    [
        ("{train: 0.7, val: 0.15, test: 0.15}", 9),  # of 60, for 4 classes: 12 are wanted
        ("{train: 0.6, val: 0.2, test: 0.2}", None),
        ("{column: fold, val: [1], test: [2]}", None),  # 20 of 60
        ("{column: fold, val: [1, 2], test: [7]}", None),
        ("{column: fold, val: [7], test: [1]}", 0),
        ("clip", None),
    ],
)
def test_few_validation_tracks(split: str, number: int | None) -> None:
    found = remarks(f"data: {{split: {split}}}", facts(column="fold"))
    said = [f"only about {number} validation tracks for 4 classes" in text for text in found]
    assert said == ([] if number is None else [True])


def test_a_class_with_fewer_groups_than_folds_need() -> None:
    split = "data: {split: {folds: 3, test: 0.2}, group: fold}"  # three groups in each class
    (found,) = remarks(split, facts(column="fold"))
    assert "'a' (3), 'b' (3), 'c' (3), 'd' (3): too few groups for a test and 3 folds" in found
    assert remarks(split.replace("folds: 3", "folds: 2"), facts(column="fold")) == []
    by_file = "data: {split: {folds: 10, test: 0.2}}"  # fifteen files in each class
    assert remarks(by_file, facts()) == []
    assert "too few groups" in remarks(by_file.replace("10", "15"), facts())[0]


def test_a_study_that_has_begun_is_not_warned_again() -> None:
    text = "name: x\nmodel: {name: cnn}\n"
    assert loads(text, "f", (), Around(facts((0.5,)), recorded=[])).remarks == ()
    assert loads(text).remarks == ()
