"""Each trial draws its own validation tracks: whole groups, no leak, the test untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.settings import SplitSpec
from pipelines.sources.tracks import Track
from pipelines.splits.leakage import audit
from pipelines.splits.reshuffle import reshuffled
from pipelines.storage import Folder
from pipelines.store import open_feature_set
from tests.tuner.answering import Study
from tuner.config import loads
from tuner.errors import ConfigError
from tuner.study.fuse import to_be_fused
from tuner.training.feed import Alone
from tuner.trials.assembly import TRIAL_FILE, TrialSpec
from tuner.trials.plan import Proposal

SPEC = SplitSpec(train=0.6, val=0.2, test=0.2, group="artist")


def rows(spec: SplitSpec = SPEC) -> list[dict[str, str]]:
    """Three classes of 20 groups of two tracks: 12 groups in train, 4 in val, 4 in test."""
    return [
        {
            "track_id": f"{label}{group}{one}", "label": label, "group": f"{label}{group}",
            "split": "train" if group < 12 else "val" if group < 16 else "test", "reason": "",
        }
        for label in "abc" for group in range(20) for one in "xy"
    ]  # fmt: skip


def val_of(tracks: list[dict[str, str]], seed: int, spec: SplitSpec = SPEC) -> set[str]:
    found = reshuffled(tracks, spec, seed)
    return {one["track_id"] for one, chosen in zip(tracks, found, strict=True) if chosen}


def test_every_draw_moves_whole_groups_and_passes_the_audit() -> None:
    tracks = rows()
    draws = [val_of(tracks, seed) for seed in range(20)]
    assert len({frozenset(one) for one in draws}) == 20
    assert draws[3] == val_of(tracks, 3)
    listed = [Track(one["track_id"], one["track_id"], one["label"], columns={}) for one in tracks]
    groups = {one["track_id"]: one["group"] for one in tracks}
    for val in draws:
        assert len(val) == 24  # 4 of 16 groups of each class, of two tracks
        splits: dict[str, Any] = {
            one["track_id"]: "test" if one["split"] == "test" else
            "val" if one["track_id"] in val else "train"
            for one in tracks
        }  # fmt: skip
        assert audit(listed, groups, splits).passed
        assert not any(one["track_id"] in val for one in tracks if one["split"] == "test")
        assert {name[0] for name in val} == set("abc")


@pytest.mark.parametrize("rule", ["artist", "auto"])
def test_copies_that_groups_do_not_join_stay_where_they_are(rule: str) -> None:
    tracks, spec = rows(), SPEC.model_copy(update={"group": rule})
    copies = {"a0x", "a1x", "b12x", "b13x"}  # one pair in train, one in val
    for one in tracks:
        one["reason"] = "W_CLIPPED W_NEAR_DUP" if one["track_id"] in copies else ""
    apart = 0
    for seed in range(20):
        val = val_of(tracks, seed, spec)
        apart += (("a0x" in val) != ("a1x" in val)) + (("b12x" in val) != ("b13x" in val))
    # By `auto`, real copies would have one group; these two have not.
    assert (apart == 0) == (rule == "artist")


def test_a_draw_that_leaves_a_class_out_changes_nothing() -> None:
    tracks = [
        {"track_id": str(n), "label": label, "group": group, "split": split, "reason": ""}
        for n, (label, group, split) in enumerate(
            [("a", "g", "train"), ("b", "g", "train"), ("a", "h", "val"), ("b", "k", "val"),
             ("a", "t", "test"), ("b", "t", "test")]
        )
    ]  # fmt: skip
    for seed in range(10):
        val = val_of(tracks, seed)
        learns = {one["label"] for one in tracks[:4] if one["track_id"] not in val}
        assert learns == {one["label"] for one in tracks if one["track_id"] in val} == {"a", "b"}


TEXT = """
name: s
model: {name: cnn, blocks: 2, channels: 4}
features: {sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 16}
data: {clip_seconds: 0.5, clips_per_track: 1}
train: {batch_size: 4}
search: {reshuffle: true, trials: 5, seed: 7}
"""


def study_of(folder: Path, features: str) -> Study:
    study = Study(folder, {}, loads(TEXT))
    study.feature_paths[study.space.template.feature_set_key] = features
    return study


def test_each_trial_of_the_search_has_tracks_of_its_own_and_the_confirmation_those_of_the_data(
    one_clip_features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    study = study_of(tmp_path, one_clip_features)
    experiment = study.space.template
    before = sorted(p.name for p in Path(one_clip_features).parent.iterdir())
    stored = open_feature_set(Folder(Path(one_clip_features))).tracks().to_pylist()
    seen = []
    for ordinal in range(5):
        spec = study.spec(Proposal(f"t{ordinal}", "search", 7, experiment, ordinal, {}))
        spec.write(study.paths.folder)
        assert TrialSpec.read(study.paths.folder, f"t{ordinal}") == spec  # as its process does
        arrays = spec.assemble(Alone(torch.device("cpu")), from_weights=True).arrays
        val = {arrays.track_ids[i] for i in arrays.splits["val"].tracks}
        train = {arrays.track_ids[i] for i in arrays.splits["train"].tracks}
        test = {arrays.track_ids[i] for i in arrays.splits["test"].tracks}
        assert test == {one["track_id"] for one in stored if one["split"] == "test"}
        assert val | train == {one["track_id"] for one in stored if one["split"] != "test"}
        group = {one["track_id"]: one["group"] for one in stored}
        assert not {group[one] for one in val} & {group[one] for one in train}
        clips = arrays.x[arrays.splits["train"].clips].astype(np.float64)
        np.testing.assert_allclose(arrays.mean, clips.mean((0, 2)), rtol=1e-5)
        seen.append(frozenset(val))
    assert len(set(seen)) > 2
    assert sorted(p.name for p in Path(one_clip_features).parent.iterdir()) == before
    assert len(list((tmp_path / "cache").rglob("x.npy"))) == 1
    confirm = study.spec(Proposal("c0", "confirm", 8, experiment, 0, {}, "t0"))
    assert confirm.split_seed is None
    arrays = confirm.assemble(Alone(torch.device("cpu")), from_weights=True).arrays
    val = {arrays.track_ids[i] for i in arrays.splits["val"].tracks}
    assert val == {one["track_id"] for one in stored if one["split"] == "val"}


def test_a_trial_of_an_earlier_version_has_the_tracks_of_the_data(tmp_path: Path) -> None:
    study, folder = study_of(tmp_path, "features"), Folder(tmp_path / "s")
    spec = study.spec(Proposal("c0", "confirm", 8, study.space.template, 0, {}, "t0"))
    spec.write(folder)
    content = (folder / "trials" / "c0").read_json(TRIAL_FILE)
    content.pop("split_seed")
    (folder / "trials" / "c0").write_json(TRIAL_FILE, content)
    assert TrialSpec.read(folder, "c0").split_seed is None


def test_a_fusion_has_no_member_that_has_learned_from_the_validation_tracks(
    tmp_path: Path,
) -> None:
    study = study_of(tmp_path, "features")
    study.trial("t0", 0.9, "cnn")
    study.trial("t1", 0.8, "linear")
    study.trial("c0-1", 0.8, "cnn", "confirm", "t0")
    study.record("confirmed", winner={"trial_id": "t0", "run_trial_id": "c0-1"})
    assert [row.trial_id for row in to_be_fused(study)] == ["c0-1"]


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("{folds: 4}", "reshuffle draws one split for each trial, which folds do not have"),
        ("{column: fold, val: [4], test: [5]}", "which the column 'fold' names"),
        ("clip", "reshuffle moves whole groups"),
        ("{by: clip}", "reshuffle moves whole groups"),
    ],
)
def test_a_split_that_cannot_be_drawn_anew_is_refused(split: str, words: str) -> None:
    text = TEXT.replace("data: {", f"data: {{split: {split}, ")
    with pytest.raises(ConfigError, match=words) as caught:
        loads(text)
    assert "write search: {reshuffle: false}" in str(caught.value)
    loads(text.replace("reshuffle: true", "reshuffle: false"))
