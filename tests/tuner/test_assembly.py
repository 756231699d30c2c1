"""Every setting of a space file reaches the part of a trial that it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from tuner.config import loads
from tuner.errors import StudyError
from tuner.models import build_network
from tuner.training.augment import AugmentSpec
from tuner.training.checkpoint import newest_checkpoint
from tuner.training.crops import Crops
from tuner.training.feed import Alone
from tuner.training.recipe import Recipe
from tuner.trials.assembly import Job, assemble
from tuner.trials.trial import TrialSpec, train

CPU = Alone(torch.device("cpu"))


@pytest.fixture
def features(one_clip_features: str) -> str:
    return one_clip_features


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))


def job(text: str, features: str, stage: str = "search") -> Job:
    config = loads("name: s\n" + text).template
    return assemble(config, stage, 9, features, CPU, from_weights=True)


EVERYTHING = """
model: {name: cnn, blocks: 2, channels: 4}
features: {sample_rate: 16000, n_fft: 512, hop_length: 256, n_mels: 16}
data: {clip_seconds: 0.5, clips_per_track: 1}
optim: {name: rmsprop, lr: 0.02, body_lr: 0.003, weight_decay: 0.5, schedule: cosine, warmup_share: 0.3,
        cycles: 7, momentum: 0.6, clip_norm: 2.5}
augment: {time_mask: 3, num_time_masks: 2, freq_mask: 4, num_freq_masks: 3, mixup: 0.7, time_shift: 0.064,
          freq_shift: 5, gain_db: 6.5, noise: 0.25, polarity: 0.4, speed: 0.125}
train: {epochs: 11, batch_size: 8, accumulate: 2, crop_seconds: 0.2, crop_where: sound, eval_crops: 4,
        freeze_epochs: 3, label_smoothing: 0.15, balance: sampling, ema: 0.97, keep: last,
        precision: fp32, compile: true, sync_batch_norm: false}
search: {metric: val_log_loss, mode: min}
"""  # noqa: E501 - YAML


def test_every_setting_arrives(features: str) -> None:
    found = job(EVERYTHING, features)
    crops = Crops(13, 4, "sound")  # 1 + 0.2 s x 16000 / 256
    augment = AugmentSpec(
        kind="logmel", time_mask=3, num_time_masks=2, freq_mask=4, num_freq_masks=3, mixup=0.7,
        time_shift=4, freq_shift=5, gain_db=6.5, noise=0.25, polarity=0.4, speed=0.125,
    )  # fmt: skip
    assert found.recipe == Recipe(
        epochs=11, optimizer="rmsprop", peak_lr=0.02, weight_decay=0.5, schedule="cosine",
        body_lr=0.003, warmup_share=0.3, cycles=7, momentum=0.6, clip_norm=2.5, freeze_epochs=3,
        accumulate=2, label_smoothing=0.15, balance="sampling", ema_decay=0.97, keep="last",
        precision="fp32", compile=True, sync_batch_norm=False, augment=augment, crops=crops,
        seed=9, metric="val_log_loss", maximise=False,
    )  # fmt: skip
    feed = found.feed
    assert (feed.batch_size, feed.spec, feed.crops, feed.seed) == (8, augment, crops, 9)
    assert (feed.order, feed.rank, feed.size) == ("balanced", 0, 1)
    assert found.bundle.crops == crops
    assert found.bundle.model["blocks"] == 2


def test_words_in_place_of_numbers(features: str) -> None:
    text = EVERYTHING.replace("lr: 0.02", "lr: find").replace("eval_crops: 4", "eval_crops: whole")
    found = job(text, features)
    assert found.recipe.peak_lr == 0.0  # still to be found
    assert found.recipe.crops == Crops(13, 0, "sound")


def test_only_the_final_fit_learns_from_validation_tracks(features: str) -> None:
    text = "model: {name: cnn, blocks: 2}\ntrain: {batch_size: 4}\n"
    search, final = job(text, features), job(text, features, "final")
    train_rows, val_rows = (search.arrays.splits[name] for name in ("train", "val"))
    assert final.feed.arrays.splits["train"].stop == val_rows.stop > train_rows.stop
    assert search.feed.arrays.splits["train"] == train_rows
    assert final.feed.arrays.splits["test"] == search.arrays.splits["test"]


def test_training_starts_from_the_weights_that_are_named(features: str, tmp_path: Path) -> None:
    torch.manual_seed(77)
    body = build_network("resnet18", 3, {}).get_submodule("body").state_dict()
    safetensors.torch.save_file(body, tmp_path / "own.safetensors")
    config = loads(
        f"name: s\nmodel: {{name: resnet18, weights: {tmp_path / 'own.safetensors'}}}\n"
        "optim: {lr: 1e-12, weight_decay: 0.0, schedule: constant}\n"
        "train: {epochs: 1, batch_size: 4, precision: fp32}\nscheduler: {name: none}\n"
    ).template
    spec = TrialSpec("t0", "search", 5, config, features)
    (_,) = train(tmp_path / "study", spec, CPU)
    checkpoint = newest_checkpoint(tmp_path / "study" / "trials" / "t0" / "checkpoints")
    assert checkpoint is not None
    for name in ("conv1.weight", "layer4.1.conv2.weight"):
        torch.testing.assert_close(
            checkpoint.weights[f"network.body.{name}"], body[name], atol=1e-6, rtol=0
        )


def test_too_few_clips_for_a_batch_are_told(features: str) -> None:
    class Many(Alone):
        size = 50

    config = loads("name: s\nmodel: {name: cnn}\n").template
    with pytest.raises(StudyError, match=r"training clips are too few .* 50 worker"):
        assemble(config, "search", 0, features, Many(torch.device("cpu")), from_weights=True)
