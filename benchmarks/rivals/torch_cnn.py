"""A plain CNN on log-mel, as a user of Optuna or Ray Tune would write it."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from sklearn.metrics import f1_score
from torch import nn

RATE_HZ, EPOCHS = 44_100, 30
Data = dict[str, tuple[torch.Tensor, torch.Tensor]]


def load(manifest: str) -> Data:
    """Return standardised log-mel [N, 1, 64, T] and labels [N] of each split."""
    with Path(manifest).open() as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    mel = torchaudio.transforms.MelSpectrogram(RATE_HZ, 2048, hop_length=1024, n_mels=64)
    sounds = []
    for row in rows:
        sound, rate_hz = soundfile.read(row["path"], dtype="float32", always_2d=True)
        mono = torch.from_numpy(sound.mean(1))
        sounds.append(torchaudio.functional.resample(mono, rate_hz, RATE_HZ))
    padded = nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    x = torch.stack([(mel(sound) + 1e-6).log() for sound in padded]).unsqueeze(1)
    y = torch.tensor([classes.index(row["label"]) for row in rows])
    split = np.array([row["split"] for row in rows])
    known = x[torch.from_numpy(split == "train")]
    x = (x - known.mean()) / known.std()
    return {name: (x[split == name], y[split == name]) for name in ("train", "val", "test")}


def network(config: Mapping[str, Any], num_classes: int) -> nn.Sequential:
    """Return four blocks of convolution, norm and pooling, and a linear layer."""
    layers: list[nn.Module] = []
    before = 1
    for block in range(4):
        now = config["channels"] * 2**block
        conv = nn.Conv2d(before, now, 3, padding="same", bias=False)
        layers += [conv, nn.BatchNorm2d(now), nn.ReLU(), nn.MaxPool2d(2)]
        before = now
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(config["dropout"])]
    return nn.Sequential(*layers, nn.Linear(before, num_classes))


def scores(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Return macro F1 and accuracy of tracks x [N, 1, 64, T]."""
    model.eval()
    with torch.inference_mode():
        found = model(x).argmax(1)
    return float(f1_score(y, found, average="macro")), float((found == y).float().mean())


def train(config: Mapping[str, Any], data: Data) -> Iterator[tuple[int, float, nn.Module]]:
    """Yield the number of the epoch, macro F1 on validation and the model, 30 times."""
    x, y = data["train"]
    model = network(config, int(y.max()) + 1)
    optimizer = torch.optim.AdamW(model.parameters(), config["lr"], weight_decay=config["decay"])
    steps = EPOCHS * -(-len(x) // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config["lr"], steps)
    time_mask = torchaudio.transforms.TimeMasking(config["time_mask"], iid_masks=True)
    band_mask = torchaudio.transforms.FrequencyMasking(config["band_mask"], iid_masks=True)
    for epoch in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            clips = band_mask(time_mask(x[batch]))
            nn.functional.cross_entropy(model(clips), y[batch]).backward()
            optimizer.step()
            schedule.step()
        yield epoch, scores(model, *data["val"])[0], model
