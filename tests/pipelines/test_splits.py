from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import SplitError
from pipelines.spec import Split, SplitSpec
from pipelines.splits import TrackInfo, assign_splits, audit

SIDES: dict[Split, float] = {"train": 0.70, "val": 0.15, "test": 0.15}


def infos(sizes: dict[str, list[int]]) -> list[TrackInfo]:
    """Tracks of classes whose groups have the given sizes."""
    return [
        TrackInfo(f"{label}{group}-{n}", label, f"{label}{group}")
        for label, counts in sizes.items()
        for group, count in enumerate(counts)
        for n in range(count)
    ]


group_sizes = st.dictionaries(
    st.sampled_from("abcde"), st.lists(st.integers(1, 12), min_size=3, max_size=30), min_size=1
)


@settings(max_examples=150, deadline=None)
@given(sizes=group_sizes, seed=st.integers(0, 5), shuffle=st.randoms(use_true_random=False))
def test_whole_groups_every_class_everywhere_in_any_order(
    sizes: dict[str, list[int]], seed: int, shuffle: random.Random
) -> None:
    tracks = infos(sizes)
    spec = SplitSpec(seed=seed)
    sides = assign_splits(tracks, spec)
    assert sides.keys() == {track.track_id for track in tracks}
    report = audit(tracks, sides, [])
    assert (report.groups_shared, report.passed) == (0, True)
    count = Counter((track.label, sides[track.track_id]) for track in tracks)
    for label, counts in sizes.items():
        for side, share in SIDES.items():
            assert count[label, side] >= 1
            # No bound is better: a class of few groups can miss by its largest group, and the
            # smallest side must hold at least one whole group.
            assert abs(count[label, side] - share * sum(counts)) <= 2 * max(counts)
    mixed = list(tracks)
    shuffle.shuffle(mixed)
    assert assign_splits(mixed, spec) == sides


@pytest.mark.parametrize("seed", range(20))
def test_groups_that_hold_several_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = [
        TrackInfo(str(n), "abc"[rng.integers(3)], f"g{rng.integers(15)}") for n in range(150)
    ]
    sides = assign_splits(tracks, SplitSpec())
    assert audit(tracks, sides, []).passed
    assert len({(track.label, sides[track.track_id]) for track in tracks}) == 9


@pytest.mark.parametrize("count", [20, 100, 1000])
def test_single_tracks_meet_the_shares_to_the_track(count: int) -> None:
    tracks = infos({"a": [1] * count, "b": [1] * count})
    sides = assign_splits(tracks, SplitSpec())
    for label in "ab":
        got = Counter(sides[track.track_id] for track in tracks if track.label == label)
        assert got == {side: round(share * count) for side, share in SIDES.items()}


def test_six_speakers_with_all_words_go_four_one_one() -> None:
    tracks = [
        TrackInfo(f"{speaker}{word}{take}", str(word), f"speaker{speaker}")
        for speaker in range(6)
        for word in range(10)
        for take in range(5)
    ]
    sides = assign_splits(tracks, SplitSpec())
    got = Counter({track.group: sides[track.track_id] for track in tracks}.values())
    assert got == {"train": 4, "val": 1, "test": 1}


def test_the_split_is_the_same_on_every_machine() -> None:
    # Written down once; order of groups comes from a keyed hash and not from Python's.
    tracks = infos({"a": [2, 2, 2, 2, 2, 2], "b": [1, 1, 1, 4, 4, 4]})
    by_group = {
        t.group: side
        for t, side in zip(tracks, assign_splits(tracks, SplitSpec()).values(), strict=True)
    }
    assert "".join(by_group[group][1] for group in sorted(by_group)) == "arerrreaarrr"


def test_another_seed_gives_another_split() -> None:
    tracks = infos({"a": [1] * 40, "b": [1] * 40})
    splits = [assign_splits(tracks, SplitSpec(seed=seed)) for seed in range(4)]
    assert all(splits[0] != other for other in splits[1:])


def test_a_class_with_few_groups_is_named_with_the_remedy() -> None:
    with pytest.raises(SplitError, match="rare") as caught:
        assign_splits(infos({"common": [1] * 9, "rare": [5, 5]}), SplitSpec())
    text = str(caught.value)
    assert "2   too few" in text
    assert "Add recordings" in text


class TestGivenSplit:
    def given_tracks(self, values: list[str]) -> list[TrackInfo]:
        return [
            TrackInfo(f"{label}{n}", label, f"{label}{n}", {"fold": value})
            for label in "ab"
            for n, value in enumerate(values)
        ]

    def test_folds_are_honoured(self) -> None:
        tracks = self.given_tracks(["1", "2", "3", "4", "5"])
        spec = SplitSpec(column="fold", val_values=("4",), test_values=("5",))
        sides = assign_splits(tracks, spec)
        assert {t.columns["fold"]: sides[t.track_id] for t in tracks} == {
            "1": "train",
            "2": "train",
            "3": "train",
            "4": "val",
            "5": "test",
        }

    def test_words_are_honoured(self) -> None:
        tracks = self.given_tracks(["training", "Validation", "test"])
        sides = assign_splits(tracks, SplitSpec(column="fold"))
        assert [sides[t.track_id] for t in tracks[:3]] == ["train", "val", "test"]

    @pytest.mark.parametrize(
        ("values", "spec", "word"),
        [
            (["1", "2"], SplitSpec(column="fold"), "'1', which is none of"),
            (["train", "test"], SplitSpec(column="fold"), "'a' has none in val"),
            (["train", "test"], SplitSpec(column="part"), "no column 'part'"),
        ],
    )
    def test_a_column_that_does_not_give_three_sides(
        self, values: list[str], spec: SplitSpec, word: str
    ) -> None:
        with pytest.raises(SplitError, match=word):
            assign_splits(self.given_tracks(values), spec)


def test_the_audit_counts_what_leaks() -> None:
    tracks = [TrackInfo(name, "a", group) for name, group in zip("pqrs", "1122", strict=True)]
    sides: dict[str, Split] = {"p": "train", "q": "test", "r": "train", "s": "train"}
    report = audit(tracks, sides, [("p", "r"), ("p", "s"), ("q", "s"), ("q", "gone")])
    assert (report.groups_shared, report.near_duplicates_shared, report.passed) == (1, 1, False)
