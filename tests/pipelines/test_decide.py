"""Decisions over verdicts that are made up, with no audio: fingerprints are taken from noise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.duplicates import acoustic_fingerprint
from pipelines.errors import BuildError, SplitError
from pipelines.settings import SplitSpec, Tolerance
from pipelines.sources.tracks import Catalog, Track
from pipelines.splits.decide import Decision, check_splits, decide
from pipelines.verdicts import Verdict


@cache
def sound(number: int) -> NDArray[np.uint32]:
    rng = np.random.default_rng(number)
    noise = np.convolve(rng.standard_normal(40_000), rng.standard_normal(16), "same")
    return acoustic_fingerprint((noise / np.abs(noise).max()).astype(np.float32), 8000)


def catalog(columns: dict[str, dict[str, str]] | None = None, per_class: int = 8) -> Catalog:
    tracks = [
        Track(f"{label}{n}", f"{label}/{n}.wav", label, (columns or {}).get(f"{label}{n}", {}))
        for label in "ab"
        for n in range(per_class)
    ]
    return Catalog("/data", tuple(tracks), "manifest")


def verdicts(found: Catalog, **changed: Verdict) -> dict[str, Verdict]:
    plain = {
        track.track_id: Verdict(
            track.track_id, "k", num_clips=1, pcm_digest=track.track_id, signature=sound(number)
        )
        for number, track in enumerate(found.tracks)
    }
    return plain | changed


def test_near_copies_are_one_group_in_one_split_and_flagged() -> None:
    found = catalog()
    for seed in range(6):
        made = verdicts(found)
        made["a5"] = Verdict("a5", "k", num_clips=1, pcm_digest="other", signature=sound(0))
        decision = decide(found, made, SplitSpec(seed=seed), Tolerance())
        assert decision.copies.near == (("a0", "a5"),)
        assert decision.groups["a0"] == decision.groups["a5"]
        assert decision.splits["a0"] == decision.splits["a5"]
        assert {name for name, one in decision.verdicts.items() if one.flags} == {"a0", "a5"}
        assert decision.verdicts["a0"].flags == ("W_NEAR_DUP",)
        assert decision.leakage.passed


def test_of_exact_copies_over_a_given_split_the_one_in_test_is_used() -> None:
    splits = {f"{c}{n}": ("test", "val")[n] if n < 2 else "train" for c in "ab" for n in range(8)}
    found = catalog({name: {"split": split} for name, split in splits.items()})
    made = verdicts(found)
    made["a7"] = Verdict("a7", "k", num_clips=1, pcm_digest="a0", signature=sound(0))
    decision = decide(found, made, SplitSpec(column="split"), Tolerance())
    assert decision.verdicts["a7"].code == "E_DUP"
    assert decision.verdicts["a0"].used
    assert decision.leakage.passed


def with_given_splits(**groups: str) -> Catalog:
    """Two tracks of each class in test, two in val, four in training; some with a group."""
    splits = {f"{c}{n}": ("test", "val", "train", "train")[n // 2] for c in "ab" for n in range(8)}
    return catalog(
        {t: {"split": split, "artist": groups.get(t, t)} for t, split in splits.items()}
    )


def near(found: Catalog, **copies: int) -> dict[str, Verdict]:
    """Verdicts where some tracks sound like the track of that number."""
    return verdicts(found) | {
        name: Verdict(name, "k", num_clips=1, pcm_digest=name, signature=sound(number))
        for name, number in copies.items()
    }


class TestLeaks:
    REPORT = SplitSpec(column="split")
    DROP = SplitSpec(column="split", leaks="drop")

    @staticmethod
    def codes(decision: Decision) -> dict[str, str]:
        return {name: one.code for name, one in decision.verdicts.items() if one.code}

    def test_reported_they_are_used_and_the_audit_fails(self) -> None:
        found = with_given_splits()
        decision = decide(found, near(found, a7=0), self.REPORT, Tolerance())
        assert self.codes(decision) == {}
        assert (decision.leakage.passed, decision.leakage.dropped) == (False, 0)

    def test_dropped_they_are_not_used_and_the_audit_passes_and_counts(self) -> None:
        found = with_given_splits()
        made = near(found, a7=0, b3=9)  # a7 (train) like a0 (test), b3 (val) like b1 (test)
        decision = decide(found, made, self.DROP, Tolerance(max_bad_share=0.0))
        assert self.codes(decision) == {"a7": "E_LEAK", "b3": "E_LEAK"}
        assert decision.verdicts["a7"].detail == (
            "in train, and the same recording as a/0.wav, which is in test"
        )
        leakage = decision.leakage
        assert (leakage.passed, leakage.dropped, leakage.dropped_val) == (True, 2, 1)
        assert leakage.examples == ()
        left = {track.track_id for track in found.tracks} - {"a7", "b3"}
        assert {track.track_id for track in decision.used} == left
        assert decision.splits.keys() == decision.groups.keys() == left
        assert decision.decoded["a7"].used, "another split may use it"

    def test_a_group_on_two_splits_goes_and_copies_join_groups_where_auto_says_so(self) -> None:
        found = with_given_splits(a4="duo", a5="duo", b0="solo", b6="solo")
        made = near(found, a4=0)  # in training, by an artist who is in training only
        named = SplitSpec(group="artist", column="split", leaks="drop")
        decision = decide(found, made, named, Tolerance())
        assert self.codes(decision) == {"a4": "E_LEAK", "b6": "E_LEAK"}
        assert decision.leakage.passed
        decision = decide(found, made, self.DROP, Tolerance())
        assert self.codes(decision) == dict.fromkeys(["a4", "a5", "b6"], "E_LEAK")
        assert decision.verdicts["a5"].detail == (
            "in train, and of the same group as a/0.wav, which is in test"
        )
        assert decision.leakage.passed

    def test_a_drawn_split_by_a_named_group_is_mended_too(self) -> None:
        found = with_given_splits()
        made = near(found, a1=0, b1=8)
        failed = 0
        for seed in range(6):
            spec = SplitSpec(group="artist", train=0.5, val=0.25, test=0.25, seed=seed)
            before = decide(found, made, spec, Tolerance()).leakage
            after = decide(found, made, spec.model_copy(update={"leaks": "drop"}), Tolerance())
            failed += not before.passed
            assert after.leakage.passed
            assert after.leakage.dropped == before.near_duplicates_shared
            assert len(self.codes(after)) == before.near_duplicates_shared
        assert failed

    def test_nothing_changes_where_nothing_leaks(self) -> None:
        found = with_given_splits()
        made = near(found, a7=6)  # both in training
        plain = decide(found, made, self.REPORT, Tolerance())
        decision = decide(found, made, self.DROP, Tolerance())
        assert decision.splits == plain.splits
        assert decision.leakage == plain.leakage

    def test_a_split_that_becomes_empty_is_told(self) -> None:
        found = with_given_splits()
        made = near(found, a4=0, a5=0, a6=1, a7=2)
        with pytest.raises(SplitError, match=r"without the 4 tracks .* 'a' has none in train"):
            decide(found, made, self.DROP, Tolerance())
        groups = dict.fromkeys(["b0", "b2", "b3"], "trio")
        spec = SplitSpec(group="artist", column="split", leaks="drop")
        with pytest.raises(SplitError, match=r"without the 2 tracks .* 'b' has none in val"):
            check_splits(with_given_splits(**groups), spec)
        check_splits(with_given_splits(**groups), SplitSpec(group="artist", column="split"))


def test_copies_are_not_bad_files_and_too_many_bad_files_are() -> None:
    found = catalog()
    same = {
        f"a{n}": Verdict(f"a{n}", "k", num_clips=1, pcm_digest="a0", signature=sound(0))
        for n in range(1, 5)
    }
    decision = decide(found, verdicts(found, **same), SplitSpec(), Tolerance(max_bad_share=0.0))
    assert sum(one.code == "E_DUP" for one in decision.verdicts.values()) == 4
    bad = {f"a{n}": Verdict(f"a{n}", "k", code="E_EMPTY") for n in range(4)}
    words = (
        r"4 of 16 files cannot be used, more than the 20%[^$]*max_bad_share \(--max-bad-share\)"
    )
    with pytest.raises(BuildError, match=words):
        decide(found, verdicts(found, **bad), SplitSpec(), Tolerance())


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(Exception, match="max_bad_share must be from 0 to 1"):
        Tolerance(share)
