"""The parts of a trial: settings in frames, pretrained weights, and the clips of each stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from pipelines.storage import Folder
from tuner.config import loads
from tuner.errors import CheckpointError, StudyError
from tuner.models.backbone import Backbone
from tuner.training.checkpoint import newest_checkpoint
from tuner.training.feed import Alone
from tuner.training.recipe import Crops
from tuner.trials.assembly import TrialParts, TrialSpec
from tuner.trials.trial import train

CPU = Alone(torch.device("cpu"))


def test_a_trial_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    Folder(tmp_path / "trials" / "t0").write_json("trial.json", {"experiment": {"name": "?"}})
    with pytest.raises(
        CheckpointError, match=r"cannot read the trial \(name: .*got '\?'"
    ) as caught:
        TrialSpec.read(Folder(tmp_path), "t0")
    assert "pydantic" not in str(caught.value)


@pytest.fixture
def features(one_clip_features: str) -> str:
    return one_clip_features


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))


def parts_of(text: str, features: str, stage: str = "search", trial_id: str = "t") -> TrialParts:
    config = loads("name: s\n" + text).template
    return TrialSpec(trial_id, stage, 9, config, features).assemble(CPU, from_weights=True)


SETTINGS = """
model: {name: cnn, blocks: 2, channels: 4}
features: {sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 16}
data: {clip_seconds: 0.5, clips_per_track: 1}
augment: {time_shift: 0.064}
train: {batch_size: 8, crop_seconds: 0.2, crop_where: sound, eval_crops: EVAL_CROPS}
search: {metric: val_log_loss, mode: min}
"""


@pytest.mark.parametrize(("eval_crops", "count"), [("4", 4), ("null", None), ("whole", 0)])
def test_lengths_in_seconds_become_frames(features: str, eval_crops: str, count) -> None:
    """By hand: 1 + 0.2 s x 16000 / 256 frames of a crop, 0.064 s x 16000 / 256 of a shift."""
    found = parts_of(SETTINGS.replace("EVAL_CROPS", eval_crops), features)
    assert found.recipe.crops == found.bundle.crops == Crops(13, count, "sound")
    assert found.recipe.shift_frames == 4
    assert next(iter(found.feed.train(1))).x.shape == (8, 16, 13)


def test_the_recipe_has_the_metric_and_the_seed_of_the_trial(features: str) -> None:
    recipe = parts_of(SETTINGS.replace("EVAL_CROPS", "null"), features).recipe
    assert (recipe.metric, recipe.maximise, recipe.seed) == ("val_log_loss", False, 9)


def test_only_the_final_fit_and_its_twin_learn_from_validation_tracks(features: str) -> None:
    text = "model: {name: cnn, blocks: 2}\ntrain: {batch_size: 4}\n"
    search, final = parts_of(text, features), parts_of(text, features, "final")
    leaky_fit, leaky = (
        parts_of(text, features, "leaky", trial_id)
        for trial_id in ("leaky-refit-c0-s1", "leaky-c0-s1")
    )
    clips, learned, of_leaky_fit, of_leaky = (
        {name: rows.clips.tolist() for name, rows in one.feed.arrays.splits.items()}
        for one in (search, final, leaky_fit, leaky)
    )
    assert learned["train"] == clips["train"] + clips["val"] > clips["train"]
    assert learned["test"] == clips["test"]
    assert (of_leaky_fit, of_leaky) == (learned, clips)


def test_training_starts_from_the_weights_that_are_named(features: str, tmp_path: Path) -> None:
    torch.manual_seed(77)
    body = Backbone().build(3, 64).get_submodule("body").state_dict()
    safetensors.torch.save_file(body, tmp_path / "own.safetensors")
    config = loads(
        f"name: s\nmodel: {{name: resnet18, weights: {tmp_path / 'own.safetensors'}}}\n"
        "optim: {lr: 1e-12, weight_decay: 0.0, schedule: constant}\n"
        "train: {epochs: 1, batch_size: 4, precision: fp32}\nscheduler: {name: none}\n"
    ).template
    spec = TrialSpec("t0", "search", 5, config, features)
    study = Folder(tmp_path / "study")
    (_,) = train(study, spec, CPU)
    checkpoint = newest_checkpoint(study / "trials" / "t0" / "checkpoints")
    assert checkpoint is not None
    for name in ("conv1.weight", "layer4.1.conv2.weight"):
        torch.testing.assert_close(
            checkpoint.weights[f"network.body.{name}"], body[name], atol=1e-6, rtol=0
        )


def test_too_few_clips_for_a_batch_are_told(features: str) -> None:
    class Many(Alone):
        size = 50

    config = loads("name: s\nmodel: {name: cnn}\n").template
    spec = TrialSpec("t", "search", 0, config, features)
    with pytest.raises(StudyError, match=r"training clips are too few .* 50 worker"):
        spec.assemble(Many(torch.device("cpu")), from_weights=True)
