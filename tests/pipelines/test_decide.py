"""Decisions over verdicts that are made up, with no audio: fingerprints are taken from noise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.decide import decide
from pipelines.duplicates import signature
from pipelines.errors import BuildError
from pipelines.spec import SplitSpec
from pipelines.tolerance import Tolerance
from pipelines.tracks import Catalog, Track
from pipelines.verdicts import Verdict


@cache
def sound(number: int) -> NDArray[np.uint32]:
    rng = np.random.default_rng(number)
    noise = np.convolve(rng.standard_normal(40_000), rng.standard_normal(16), "same")
    return signature((noise / np.abs(noise).max()).astype(np.float32), 8000)


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


def test_near_copies_are_one_group_on_one_side_and_flagged() -> None:
    found = catalog()
    for seed in range(6):
        made = verdicts(found)
        made["a5"] = Verdict("a5", "k", num_clips=1, pcm_digest="other", signature=sound(0))
        decision = decide(found, made, SplitSpec(seed=seed), Tolerance())
        assert decision.copies.near == (("a0", "a5"),)
        assert decision.groups["a0"] == decision.groups["a5"]
        assert decision.sides["a0"] == decision.sides["a5"]
        assert {name for name, one in decision.verdicts.items() if one.flags} == {"a0", "a5"}
        assert decision.verdicts["a0"].flags == ("W_NEAR_DUP",)
        assert decision.leakage.passed


def test_of_exact_copies_over_a_given_split_the_one_in_test_is_used() -> None:
    sides = {f"{c}{n}": ("test", "val")[n] if n < 2 else "train" for c in "ab" for n in range(8)}
    found = catalog({name: {"side": side} for name, side in sides.items()})
    made = verdicts(found)
    made["a7"] = Verdict("a7", "k", num_clips=1, pcm_digest="a0", signature=sound(0))
    decision = decide(found, made, SplitSpec(column="side"), Tolerance())
    assert decision.verdicts["a7"].code == "E_DUP"
    assert decision.verdicts["a0"].used
    assert decision.leakage.passed


def test_copies_are_not_bad_files_and_too_many_bad_files_are() -> None:
    found = catalog()
    same = {
        f"a{n}": Verdict(f"a{n}", "k", num_clips=1, pcm_digest="a0", signature=sound(0))
        for n in range(1, 5)
    }
    decision = decide(found, verdicts(found, **same), SplitSpec(), Tolerance(max_bad_share=0.0))
    assert sum(one.code == "E_DUP" for one in decision.verdicts.values()) == 4
    bad = {f"a{n}": Verdict(f"a{n}", "k", code="E_EMPTY") for n in range(4)}
    with pytest.raises(BuildError, match="4 of 16 files cannot be used, more than the 20%"):
        decide(found, verdicts(found, **bad), SplitSpec(), Tolerance())


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(Exception, match="max_bad_share must be from 0 to 1"):
        Tolerance(share)
