"""Invalid space files: each problem is reported with its place, its value and a remedy."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from tuner.config import Space, load, loads
from tuner.config.load import MAX_BYTES
from tuner.errors import ConfigError

N = "name: x\n"
M = "model: {name: cnn}\n"
P = N + M  # a valid file of two lines; what follows starts on line 3

# A document and all of its problems: "line:col: path" and a part of the message.
FAULTS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    # --- the text
    "duplicate key": ("name: a\nname: b\n" + M, [("2:1: name", "duplicate key, first on line 1")]),
    "duplicate inside": (P + "train: {epochs: 5, epochs: 6}", [("3:20: train.epochs", "line 3")]),
    "octal": (P + "data: {seed: 010}", [("3:14: data.seed", "write 10 for the number")]),
    "octal bound": (
        P + "train: {epochs: {integer: [01, 9]}}",
        [("3:28: train.epochs", "01 is ambiguous")],
    ),
    "nan": (P + "optim: {lr: .nan}", [("3:13: optim.lr", ".nan is not a finite number")]),
    "inf bound": (
        P + "optim: {lr: {uniform: [0.1, .inf]}}",
        [("3:29: optim.lr", ".inf is not a finite")],
    ),
    "overflow": (P + "optim: {lr: 1e999}", [("3:13: optim.lr", "too large")]),
    "5000 digits": (P + f"data: {{seed: {'9' * 5000}}}", [("3:14: data.seed", "5000 characters")]),
    "200 digits": (P + f"data: {{seed: {'9' * 200}}}", [("3:14: data.seed", "too large")]),
    "underscores": (P + "data: {seed: 1_000}", [("3:14: data.seed", "write 1000 without")]),
    "decimal comma": (P + "optim:\n  lr: 0,001", [("4:7: optim.lr", "write 0.001 with a point")]),
    "decimal comma in braces": (
        P + "optim: {weight_decay: 0,001}",
        [("3:25: optim.001", "a decimal comma? write 0.001")],
    ),
    "quoted number": (
        P + "optim: {lr: '1e-3'}",
        [("3:13: optim.lr", "write 1e-3 without quotes")],
    ),
    "empty": ("", [("1:1", "empty")]),
    "start is a number": (P + "search: {start: 3}", [("3:17: search.start", "must be a list")]),
    "start is a block": (
        P + "search: {start: {model: cnn}}",
        [("3:17: search.start", "must be a list such as [{model: cnn}], got a block with model")],
    ),
    "model is a word": (
        "name: x\nmodel: cnn",
        [("2:8: model", "write `model: {name: cnn}`, or --set 'model={name: cnn}'")],
    ),
    "model is a misspelled word": (
        "name: x\nmodel: ccn",
        [("2:8: model", "must be a block of settings such as {name: cnn}, got the string 'ccn'")],
    ),
    "start of a grid": (
        P + "optim: {lr: {grid: [0.1, 0.2]}}\nsearch: {algorithm: grid, start: [{optim.lr: 0.1}]}",
        [("4:34: search.start", "has no start")],
    ),
    "start with a number": (
        P + "search: {start: [3]}",
        [("3:18: search.start.0", "got 3")],
    ),
    "start outside its range": (
        P + "optim: {lr: {uniform: [0.1, 0.2]}}\nsearch: {start: [{optim.lr: 0.3}]}",
        [("4:29: search.start: optim.lr", "0.3 is not in uniform [0.1, 0.2]")],
    ),
    "start misspelled": (
        P
        + "optim: {lr: {uniform: [0.1, 0.2]}}\n"
        + "search: {start: [{optim.rl: 0.1, train.epochs: 5}]}",
        [
            ("4:19: search.start: optim.rl", "did you mean `optim.lr`?"),
            ("4:34: search.start: train.epochs", "not a range of this space"),
        ],
    ),
    "start in two alternatives": (
        N
        + "model: {choice: [{name: resnet18}, {name: cnn, blocks: {integer: [2, 5]}}]}\n"
        + "search:\n  start:\n    - {model: resnet18, model.cnn.blocks: 3}\n"
        + "    - {model.cnn.blocks: 3}\n    - {model: vgg}\n",
        [
            ("5:25: search.start: model.cnn.blocks", "needs model: cnn for it, but has resnet18"),
            ("6:8: search.start: model.cnn.blocks", "needs model: cnn for it"),
            ("7:15: search.start: model", '"vgg" is not in choice'),
        ],
    ),
    "only comments": ("# a\n# b\n", [("1:1", "empty")]),
    "only a marker": ("---\n", [("2:1", "empty")]),
    "two documents": (P + "---\n" + P, [("3:1", "found another document")]),
    "a list": ("- name: x\n", [("1:1", "got a list")]),
    "a word": ("hello\n", [("1:1", "got a single value")]),
    "toml": ("name = 'x'\n[model]\n", [("1:1", "got a single value")]),
    "tab": (P + "train:\n\tepochs: 3\n", [("4:1", "invalid YAML")]),
    "unclosed quote": (N + "model: 'x\n", [("3:1", "invalid YAML")]),
    "unclosed brace": (N + "model: {name: cnn\n", [("3:1", "invalid YAML")]),
    "bad indent": ("name: x\n  model: y\n", [("2:8", "invalid YAML")]),
    "percent": ("%YAML 3.0\n---\nname: x\n", [("1:1", "invalid YAML")]),
    "at sign": ("name: @x\n" + M, [("1:7", "invalid YAML")]),
    "NUL": ("name: x\nmo\0del: y\n", [("2:3", "U+0000")]),
    "escaped NUL": ('name: "x\\0y"\n' + M, [("1:7: name", "U+0000")]),
    "newline": ("name: |\n  x\n  y\n" + M, [("1:7: name", "U+000A")]),
    "python tag": (
        "name: !!python/object/apply:os.system [ls]\n" + M,
        [("1:7: name", "python/object/apply:os.system' is not supported")],
    ),
    "tag of everything": ("!!map\n" + P, [("1:1", "org,2002:map' is not supported")]),
    "custom tag": (
        "name: !include /etc/passwd\n" + M,
        [("1:7: name", "'!include' is not supported")],
    ),
    "set": (N + "model: !!set {a, b}\n", [("2:8: model", "is not supported")]),
    "complex key": ("? [a]\n: b\n", [("1:3", "a key must be a plain word")]),
    "merge key": (N + "model:\n  <<: {name: cnn}\n", [("3:3", "merge keys")]),
    "alias of itself": ("name: &a [*a]\n", [("1:11", "is inside its own anchor")]),
    "alias of nothing": ("name: *a\n", [("1:7", "undefined alias")]),
    # --- shape
    "no name": (M, [("1:1: name", "missing `name`")]),
    "no model": (N, [("1:1: model", "missing `model`; write for example")]),
    "model without value": (N + "model:\n", [("2:7: model", "got nothing (null)")]),
    "block without value": (P + "train:\n", [("3:7: train", "must be a block of settings")]),
    "model as a word": (N + "model: cnn\n", [("2:8: model", "got the string 'cnn'")]),
    "model without name": (
        N + "model: {blocks: 3}\n",
        [("2:8: model", "write one of cnn, resnet18")],
    ),
    "split as a list": (P + "data: {split: [1, 2]}", [("3:15: data.split", "got a list of 2")]),
    "list for a number": (P + "train: {epochs: [1, 2]}", [("3:17: train.epochs", "a list of 2")]),
    "unknown key": (
        P + "lerning_rate: 1\n",
        [("3:1: lerning_rate", "no such setting; this block")],
    ),
    "misspelled key": (
        P + "train: {epoch: 3}",
        [("3:9: train.epoch", "did you mean `train.epochs`?")],
    ),
    "key of another block": (
        P + "train: {lr: 1}",
        [("3:9: train.lr", "did you mean `optim.lr`?")],
    ),
    "key of another model": (
        N + "model: {name: cnn, drop_rate: 0.1}",
        [("2:20: model.drop_rate", "no such setting")],
    ),
    # --- types
    "fraction": (P + "train: {epochs: 1.5}", [("3:17: train.epochs", "an integer, got 1.5")]),
    "whole fraction": (
        P + "train: {epochs: 3.0}",
        [("3:17: train.epochs", "integer, got 3.0")],
    ),
    "word": (P + 'train: {epochs: "ten"}', [("3:17: train.epochs", "got the string 'ten'")]),
    "true for a number": (P + "train: {epochs: true}", [("3:17: train.epochs", "got true")]),
    "true for a float": (P + "optim: {lr: true}", [("3:13: optim.lr", "a number, got true")]),
    "one for true": (
        N + "model: {name: cnn, batch_norm: 1}",
        [("2:32: model.batch_norm", "must be true or false, got 1")],
    ),
    "yes for true": (
        N + "model: {name: cnn, batch_norm: yes}",
        [("2:32: model.batch_norm", "true or false, got the string 'yes'")],
    ),
    "number for a text": ("name: 12\n" + M, [("1:7: name", 'write "12" in quotes')]),
    "float kernel": (
        N + "model: {name: cnn, kernel_size: 3.0}",
        [("2:33: model.kernel_size", "an integer, got 3.0")],
    ),
    "fold of true": (
        P + "data: {split: {column: f, val: [true], test: [5]}}",
        [("3:33: data.split.val.0", "must be a string, got true")],
    ),
    "folds as a word": (
        P + "data: {split: {column: f, val: 4, test: [5]}}",
        [("3:32: data.split.val", "a list such as [4, 5], got 4")],
    ),
    # --- limits
    "no epochs": (P + "train: {epochs: 0}", [("3:17: train.epochs", "at least 1, got 0")]),
    "negative epochs": (P + "train: {epochs: -1}", [("3:17: train.epochs", "at least 1, got -1")]),
    "no rate": (P + "optim: {lr: 0}", [("3:13: optim.lr", "above 0, got 0")]),
    "no batch": (P + "train: {batch_size: 0}", [("3:21: train.batch_size", "at least 1")]),
    "share": (
        P + "data: {split: {train: 0.5, val: 1.2, test: 0.1}}",
        [("3:33: data.split.val", "below 1, got 1.2")],
    ),
    "reduction": (
        P + "scheduler: {reduction_factor: 1}",
        [("3:31: scheduler.reduction_factor", "at least 2, got 1")],
    ),
    "path as a name": ("name: ../x\n" + M, [("1:7: name", "got the string '../x'")]),
    "empty name": ("name: ''\n" + M, [("1:7: name", "must be 1 to 64")]),
    "long name": (f"name: {'a' * 300}\n" + M, [("1:7: name", "must be 1 to 64")]),
    "emoji": ("name: 🎵\n" + M, [("1:7: name", "must be 1 to 64")]),
    "budget without unit": (
        P + "search: {budget: 30}",
        [("3:18: search.budget", "write 30s, 30m or 30h")],
    ),
    "budget of nothing": (
        P + "search: {budget: 0.0s}",
        [("3:18: search.budget", "the budget must be above 0, got 0.0s; write 10m, say, or null")],
    ),
    "budget in words": (P + "search: {budget: soon}", [("3:18: search.budget", "90s, 30m or 2h")]),
    # --- names
    "model": (
        N + "model: {name: resnet_18}",
        [("2:15: model.name", "did you mean `resnet18`")],
    ),
    "number as a model": (
        N + "model: {name: 18}",
        [("2:15: model.name", "one of cnn, resnet18")],
    ),
    "weights": (
        N + "model: {name: resnet18, weights: imagenet}",
        [
            (
                "2:34: model.weights",
                "imagenet: no such file; write `pretrained`, a safetensors file",
            )
        ],
    ),
    "weights of a size that has none": (
        P.replace("cnn", "wav2vec2, size: tiny, weights: pretrained")
        + "features: {sample_rate: 16000}",
        [("2:46: model.weights", "no published weights of size tiny")],
    ),
    "weights at another rate": (
        P.replace("cnn", "wav2vec2, weights: pretrained") + "features: {sample_rate: 22050}",
        [("3:25: features.sample_rate", "are for sample_rate 16000, not 22050")],
    ),
    "more layers than a size has": (
        P.replace("cnn", "wav2vec2, size: tiny, trainable_layers: 4"),
        [("2:55: model.trainable_layers", "size tiny has 3 layers, not 4")],
    ),
    "weights of a plain network": (
        P.replace("cnn", "cnn, weights: pretrained"),
        [("2:20: model.weights", "no such setting")],
    ),
    "rate in a word": (
        P + "optim: {lr: fnd}",
        [("3:13: optim.lr", "did you mean `find`?")],
    ),
    "parts of a batch": (
        P + "train: {batch_size: 32, accumulate: 5}",
        [("3:37: train.accumulate", "must divide the 32 clips")],
    ),
    "time shift": (
        P + "data: {clip_seconds: 2}\naugment: {time_shift: 3}",
        [("4:23: augment.time_shift", "longer than what the model sees, 2 s")],
    ),
    "frequency shift": (
        P + "augment: {freq_shift: 64}",
        [("3:23: augment.freq_shift", "freq_shift 64 must be below n_mels, 64")],
    ),
    "a fusion and a final fit": (
        P + "confirm: {refit: true, fuse: true}",
        [("3:30: confirm.fuse", "set one of them to false")],
    ),
    "leaks of a split by clips": (
        P + "data: {split: clip, leaks: drop}",
        [("3:15: data.split", "leaks")],
    ),
    "feature kind": (
        P + "features: {kind: mfc}",
        [("3:18: features.kind", "did you mean `mfcc`")],
    ),
    "feature kind that the model does not take": (
        P + "features: {kind: waveform}",
        [("3:18: features.kind", "cnn takes logmel, stft, mfcc or tempogram, not waveform")],
    ),
    "feature kind of one alternative": (
        N + "model: {name: {choice: [conv1d, forest]}}\nfeatures: {kind: song}",
        [("2:25: model.name", "conv1d takes waveform, not song; write kind: auto")],
    ),
    "default outside its range": (
        P + "optim:\n  lr:\n    uniform: [0.1, 0.2]\n    default: 0.3",
        [("6:14: optim.lr.default", "0.3 is not in uniform [0.1, 0.2]")],
    ),
    "default between two steps": (
        P + "augment: {mixup: {quantized: [0.0, 0.4, 0.1], default: 0.25}}",
        [("3:56: augment.mixup.default", "0.25 is not in quantized [0.0, 0.4, 0.1]")],
    ),
    "default of another kind": (
        P + "train: {epochs: {integer: [3, 9], default: 4.5}}",
        [("3:44: train.epochs.default", "4.5 is not in integer [3, 9]")],
    ),
    "default that is no label": (
        N + "model: {choice: [{name: cnn}, {name: forest}], default: resnet18}",
        [("2:57: model.default", '"resnet18" is not in choice')],
    ),
    "default that is a block": (
        N + "model: {choice: [{name: cnn}, {name: forest}], default: {name: cnn}}",
        [("2:57: model.default", "a default is one value, or the label of a block")],
    ),
    "default without a range": (
        P + "optim: {lr: {default: 0.1}}",
        [("3:13: optim.lr", "must be a number, got a block with default")],
    ),
    "scheduler": (
        P + "scheduler: {name: ashaa}",
        [("3:19: scheduler.name", "did you mean `asha`")],
    ),
    "searcher": (
        P + "search: {algorithm: tpee}",
        [("3:21: search.algorithm", "did you mean `tpe`?")],
    ),
    "metric": (
        P + "search: {metric: val_f1}",
        [("3:18: search.metric", "did you mean `val_f1_macro`")],
    ),
    "mode typo": (P + "search: {mode: maxx}", [("3:16: search.mode", "did you mean `max`?")]),
    "optimizer": (P + "optim: {name: adamm}", [("3:15: optim.name", "did you mean `adam`")]),
    "kernel": (
        N + "model: {name: cnn, kernel_size: 4}",
        [("2:33: model.kernel_size", "must be one of 3, 5, 7, got 4")],
    ),
    # --- ranges
    "range kind": (
        P + "optim: {lr: {lognormal: [0.1, 1]}}",
        [("3:14: optim.lr", "did you mean `log_uniform`?")],
    ),
    "range with a scalar": (P + "optim: {lr: {uniform: 3}}", [("3:23: optim.lr", "[low, high]")]),
    "three bounds": (
        P + "optim: {lr: {uniform: [1, 2, 3]}}",
        [("3:23: optim.lr", "takes [low, high], got 3 values")],
    ),
    "text bound": (
        P + "optim: {lr: {uniform: [a, 2]}}",
        [("3:23: optim.lr", 'takes numbers, got "a"')],
    ),
    "reversed": (P + "optim: {lr: {uniform: [3, 1]}}", [("3:23: optim.lr", "got [3, 1]")]),
    "equal ends": (P + "optim: {lr: {uniform: [1, 1]}}", [("3:23: optim.lr", "write 1 without")]),
    "log of zero": (
        P + "optim: {lr: {log_uniform: [0, 1]}}",
        [("3:27: optim.lr", "above 0, got 0")],
    ),
    "empty choice": (P + "optim: {name: {choice: []}}", [("3:24: optim.name", "an empty list")]),
    "same option": (
        P + "train: {batch_size: {choice: [16, 16]}}",
        [("3:30: train.batch_size", "lists 16 twice")],
    ),
    "quantum zero": (
        P + "optim: {lr: {quantized: [0.1, 1, 0]}}",
        [("3:25: optim.lr", "step above 0, got 0")],
    ),
    "step past the end": (
        P + "optim: {lr: {quantized: [0.1, 1, 0.4]}}",
        [("3:25: optim.lr", "do not reach 1 (both ends belong to a range)")],
    ),
    "two kinds": (
        P + "optim: {lr: {uniform: [0.1, 1], choice: [1]}}",
        [("3:14: optim.lr", "one key, or a `default` beside it; remove choice")],
    ),
    "list as an option": (
        N + "model: {choice: [[cnn], {name: cnn}]}",
        [("2:18: model", "not a list")],
    ),
    "range in search": (
        P + "search: {trials: {integer: [1, 3]}}",
        [("3:19: search.trials", "a range is not allowed here, only in features")],
    ),
    "range in the split": (
        P + "data: {split: {choice: [{train: 0.8}]}}",
        [("3:16: data.split", "a range is not allowed here")],
    ),
    "range as a name": ("name: {choice: [a]}\n" + M, [("1:8: name", "is not allowed here")]),
    "range of everything": (P + "choice: [{name: x}]\n", [("3:1: choice", "no such setting")]),
    "fractions for whole numbers": (
        P + "train: {epochs: {uniform: [5, 9]}}",
        [("3:28: train.epochs", "uniform draws fractions, write integer")],
    ),
    "upper end too high": (
        N + "model: {name: cnn, blocks: {integer: [2, 9]}}",
        [
            ("2:42: model.blocks", "at most 5, got 9"),
        ],
    ),
    "lower end too low": (
        P + "optim: {lr: {uniform: [0, 1]}}",
        [("3:24: optim.lr", "above 0, got 0")],
    ),
    "even kernels between": (
        N + "model: {name: cnn, kernel_size: {integer: [3, 7]}}",
        [("2:43: model.kernel_size", "must be one of 3, 5, 7, got 4")],
    ),
    "one option of three": (
        N + "model: {name: cnn, activation: {choice: [relu, gellu, silu]}}",
        [("2:48: model.activation", "did you mean `gelu` or `relu`?")],
    ),
    "inside an alternative": (
        N
        + "model: {choice: [{name: cnn, bloks: 3}, {name: resnet18, drop_rate: 2}, {name: vgg}]}",
        [
            ("2:30: model.cnn.bloks", "did you mean `model.blocks`?"),
            ("2:69: model.resnet18.drop_rate", "at most 0.9, got 2"),
            ("2:80: model.vgg.name", "unknown 'vgg'"),
        ],
    ),
    "endless feature sets": (
        P + "features: {f_max: {uniform: [8000, 9000]}}",
        [("3:29: features.f_max", "each feature set is built as a whole")],
    ),
    "too many feature sets": (
        P + "features: {n_mels: {integer: [20, 60]}}",
        [("3:30: features", "41 feature sets; at most 32")],
    ),
    "grid of a continuous range": (
        P + "search: {algorithm: grid}\noptim: {lr: {uniform: [0.1, 0.2]}}",
        [("4:23: optim.lr", "the grid needs a list")],
    ),
    "grid of a billion points": (
        P + "search: {algorithm: grid}\ntrain: {epochs: {integer: [2, 100000]}}\n"
        "augment: {time_mask: {integer: [0, 99]}, freq_mask: {integer: [0, 60]}}",
        [("3:21: search.algorithm", "609,993,900 points; at most 10,000")],
    ),
    # --- relations
    "shares": (
        P + "data: {split: {train: 0.5, val: 0.2, test: 0.2}}",
        [("3:15: data.split", "train, val and test must add up to 1, got 0.9")],
    ),
    "one fold missing": (
        P + "data: {split: {column: fold, val: [4]}}",
        [("3:15: data.split", "`test` has no values")],
    ),
    "fold on both sides": (
        P + "data: {split: {column: fold, val: [4], test: [4]}}",
        [("3:15: data.split", "values 4 mean both validation and test")],
    ),
    "hop and count": (
        P + "data: {hop_seconds: 1, clips_per_track: 3}",
        [("3:21: data.hop_seconds", "are both set; keep one")],
    ),
    "neither hop nor count": (
        P + "data: {clips_per_track: null}",
        [("3:25: data.clips_per_track", "are both null; set one")],
    ),
    "f_max": (
        P + "features: {f_max: 12000}",
        [
            (
                "3:19: features.f_max",
                "f_max is 12000 Hz, above half the sample rate; write at most 11025",
            )
        ],
    ),
    "f_max for one rate of two": (
        P + "features: {f_max: 10000, sample_rate: {choice: [22050, 16000]}}",
        [
            (
                "3:56: features.sample_rate",
                "f_max is 10000 Hz, above half the sample rate; write at most 8000",
            )
        ],
    ),
    "f_min": (
        P + "features: {f_min: 900, f_max: 800}",
        [("3:19: features.f_min", "from 0 to below f_max (800 Hz), got 900")],
    ),
    "window": (
        P + "features: {win_length: 2048}",
        [("3:24: features.win_length", "from 1 to n_fft (1024), got 2048")],
    ),
    "hop": (
        P + "features: {hop_length: {choice: [256, 2048]}}",
        [("3:39: features.hop_length", "from 1 to n_fft (1024), got 2048")],
    ),
    "empty mel bands": (
        P + "features: {n_mels: {choice: [64, 256]}, n_fft: 512}",
        [("3:34: features.n_mels", "36 of 256 mel bands are empty")],
    ),
    "clip shorter than a frame": (
        P + "data: {clip_seconds: 0.01}",
        [
            (
                "3:22: data.clip_seconds",
                "0.01 s are 220 samples at 22050 Hz, too few for n_fft 1024",
            )
        ],
    ),
    "crop": (
        P + "train: {crop_seconds: 5}",
        [("3:23: train.crop_seconds", "crop_seconds 5 is longer than a clip, 3 s")],
    ),
    "odd mixup": (
        P + "train: {batch_size: {choice: [16, 15]}}\naugment: {mixup: 0.2}",
        [("3:35: train.batch_size", "15 is odd, but mixup pairs clips")],
    ),
    "odd between even ends": (
        P + "train: {batch_size: {integer: [16, 20]}}\naugment: {mixup: 0.2}",
        [("3:31: train.batch_size", "17 is odd, but mixup pairs clips")],
    ),
    "time mask": (  # by hand: 1 + 66150 // 512 = 130 frames
        P + "augment: {time_mask: {integer: [0, 130]}}",
        [("3:36: augment.time_mask", "130 must be below the 130 frames")],
    ),
    "frequency mask": (
        P + "augment: {freq_mask: {integer: [0, 64]}}",
        [("3:36: augment.freq_mask", "64 must be below n_mels, 64")],
    ),
    "frequency mask over coefficients": (
        P + "features: {kind: mfcc}\naugment: {freq_mask: 20}",
        [("4:22: augment.freq_mask", "20 must be below n_mfcc, 20")],
    ),
    "frequency mask for one kind of two": (  # by hand: a frame of 16 samples has 9 bins
        P + "features: {choice: [{kind: logmel}, {kind: stft, n_fft: 16, hop_length: 16}]}\n"
        "augment: {freq_mask: 12}",
        [("4:22: augment.freq_mask", "12 must be below n_fft / 2 + 1, 9")],
    ),
    "more coefficients than bands": (
        P + "features: {kind: {choice: [logmel, mfcc]}, n_mels: 16, n_mfcc: {integer: [16, 17]}}",
        [("3:79: features.n_mfcc", "n_mfcc 17 must be at most n_mels, 16")],
    ),
    "empty mel bands of one kind of two": (
        P + "features: {choice: [{kind: stft, n_mels: 256}, {kind: mfcc, n_mels: 256}]}",
        [("3:69: features.mfcc.n_mels", "of 256 mel bands are empty")],
    ),
    "lags": (P + "features: {kind: tempogram, n_lags: 1}", [("3:37: features.n_lags", "least 2")]),
    "group of a tag": (
        P + "data: {group: tag:title}",
        [("3:15: data.group", "tags are tag:artist and tag:album, got 'tag:title'")],
    ),
    "group without parentheses": (
        P + "data: {group: 'path:^[^/]+'}",
        [("3:15: data.group", "has no (...) around the part of the path")],
    ),
    "group that is no expression": (
        P + "data: {group: 'path:('}",
        [("3:15: data.group", "is not a regular expression")],
    ),
    "split in a word": (
        P + "data: {split: clips}",
        [("3:15: data.split", "expected shares such as {train: 0.7")],
    ),
    "split by track": (
        P + "data: {split: {by: track}}",
        [("3:20: data.split.by", "one of group, clip")],
    ),
    "shares of clips": (
        P + "data: {split: {by: clip, train: 0.9}}",
        [("3:15: data.split", "must add up to 1, got 1.2")],
    ),
    "column by clip": (
        P + "data: {split: {column: fold, by: clip}}",
        [("3:30: data.split.by", "no such setting")],
    ),
    "grace": (
        P + "train: {epochs: 5}\nscheduler: {grace_epochs: 6}",
        [("4:27: scheduler.grace_epochs", "6 is above train.epochs, 5")],
    ),
    "freeze": (
        P + "train: {epochs: 5, freeze_epochs: 5}",
        [("3:35: train.freeze_epochs", "must be below epochs, 5")],
    ),
    "workers": (
        P + "train: {batch_size: 30}\nresources: {workers: 4}",
        [("3:21: train.batch_size", "30 must be a multiple of resources.workers, 4")],
    ),
    "two rules at one setting": (
        P + "train: {batch_size: 15}\nresources: {workers: 2}\naugment: {mixup: 0.1}",
        [("3:21: train.batch_size", "15 is odd"), ("3:21: train.batch_size", "a multiple of")],
    ),
    "share of a GPU": (
        P + "resources: {workers: 2, gpus_per_worker: 0.5}",
        [("3:42: resources.gpus_per_worker", "with workers: 1 only")],
    ),
    "the fewest workers last": (
        P + "resources: {elastic: [4, 1]}",
        [("3:22: resources.elastic", "write the fewest workers first")],
    ),
    "elastic and fixed": (
        P + "resources: {elastic: [1, 2], workers: 2}",
        [("3:22: resources.elastic", "remove one of them")],
    ),
    "elastic and a share of a GPU": (
        P + "resources: {elastic: [1, 2], gpus_per_worker: 0.5}",
        [("3:47: resources.gpus_per_worker", "with workers: 1 only")],
    ),
    "a batch for the most workers": (
        P + "train: {batch_size: 32}\nresources: {elastic: [1, 3]}",
        [("3:21: train.batch_size", "a multiple of the most workers of resources.elastic, 3")],
    ),
    "a label": (
        P + "resources: {labels: {pool: in(a}}",
        [("3:21: resources.labels", "cannot read the label pool=in(a; write a value such as")],
    ),
    "resources of one alternative": (
        "name: x\nmodel:\n  choice:\n    - {name: forest}\n"
        "    - {name: cnn, resources: {gpus_per_worker: 1.5}}\n",
        [("5:48: model.cnn.resources.gpus_per_worker", "a fraction")],
    ),
    "a range of resources": (
        "name: x\nmodel: {name: cnn, resources: {workers: {choice: [1, 2]}}}\n",
        [("2:42: model.resources.workers", "a range is not allowed here")],
    ),
    "mode": (
        P + "search: {metric: val_loss}",
        [("3:18: search.metric", "smaller is better for val_loss; write mode: min")],
    ),
    # --- all at once
    "everything": (
        "name: a/b\nmodel: {name: cnn, blocks: 9}\ntrain: {epochs: 0, batch: 3}\n"
        "optim: {lr: {uniform: [2, 1]}}\naugment: {freq_mask: 80}\nsearch: {seed: 07}",
        [
            ("1:7: name", "must be 1 to 64"),
            ("2:28: model.blocks", "at most 5"),
            ("3:17: train.epochs", "at least 1"),
            ("3:20: train.batch", "did you mean `train.batch_size`?"),
            ("4:23: optim.lr", "low below high"),
            ("5:22: augment.freq_mask", "below n_mels, 64"),
            ("6:16: search.seed", "07 is ambiguous"),
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_has_its_place_and_says_what_was_meant(text, expected):
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        loads(text, "f.yaml")
    seconds = time.process_time() - started
    lines = str(caught.value).splitlines()
    assert len(lines) == len(expected), lines
    for line, (place, words) in zip(lines, expected, strict=True):
        assert line.startswith(f"f.yaml:{place}: "), line
        assert words in line
    assert (caught.value.exit_code, len(caught.value.problems)) == (2, len(expected))
    assert seconds < 0.5


OVERRIDES: dict[str, tuple[list[str], list[tuple[str, str]]]] = {
    "no equals sign": (["train.epochs"], [("train.epochs", "missing `=`")]),
    "no path": (["=3"], [("=3", "invalid path of a setting")]),
    "empty piece": (["train..epochs=3"], [("train..epochs", "invalid path of a setting")]),
    "no value": (
        ["train.epochs="],
        [("train.epochs", "missing value after `=`")],
    ),
    "unknown path": (
        ["train.epohcs=3"],
        [("train.epohcs", "did you mean `train.epochs`?")],
    ),
    "unknown block": (["trian.epochs=3"], [("trian.epochs: trian", "did you mean `train`?")]),
    "wrong type": (["train.epochs=ten"], [("train.epochs", "an integer")]),
    "bad YAML": (["train={epochs: 3"], [("train", "invalid YAML")]),
    "octal": (["data.seed=010"], [("data.seed", "010 is ambiguous")]),
    "inside a block": (
        ["train={epochs: 3, batch_size: 0}"],
        [("train: train.batch_size", "at least 1, got 0")],
    ),
    "leaf of a choice": (
        ["model.drop_rate=0.1"],
        [
            (
                "model.drop_rate",
                "model is a choice range; override it as a whole",
            )
        ],
    ),
    "below a value": (["name.x=3"], [("name.x", "name is a single value")]),
    "a range where none can be": (
        ["search.trials={integer: [1, 2]}"],
        [("search.trials", "a range is not allowed here")],
    ),
    "two faults": (
        ["optim.lr=0", "train.epochs=0"],
        [("optim.lr", "above 0"), ("train.epochs", "at least 1")],
    ),
}


@pytest.mark.parametrize(("overrides", "expected"), OVERRIDES.values(), ids=OVERRIDES)
def test_faults_of_overrides_are_placed_in_the_override(overrides, expected):
    text = N + "model: {choice: [{name: cnn}, {name: resnet18}]}\n"
    with pytest.raises(ConfigError) as caught:
        loads(text, "f.yaml", overrides)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(expected), lines
    for line, (place, words) in zip(lines, expected, strict=True):
        assert line.startswith(f"--set {place}: "), line
        assert words in line


def test_problems_of_the_file_come_before_those_of_overrides():
    with pytest.raises(ConfigError) as caught:
        loads(P + "train: {epochs: 0}", "f.yaml", ["optim.lr=0"])
    files = [problem.file for problem in caught.value.problems]
    assert files == ["f.yaml", "--set optim.lr"]


# --- hostile documents ----------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{key}: &{key} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)


# Each line is nested 20 deep and contains the line before.
DEEP_ALIASES = "a0: &a0 x\n" + "".join(
    f"a{i}: &a{i} {'[' * 20}*a{i - 1}{']' * 20}\n" for i in range(1, 20)
)

HOSTILE: dict[str, tuple[str, str]] = {
    "deep aliases": (DEEP_ALIASES, "nested deeper than 24"),
    "bomb": (BOMB, "more than 5000 values"),
    "brackets": ("[" * 100_000, "nested deeper than 24"),
    "braces": ("{a: " * 50_000, "nested deeper than 24"),
    "dashes": ("- " * 400_000, "nested deeper than 24"),
    "lines": ("a: 1\n" * 150_000, "more than 5000 values"),
    "scalar": (f"name: {'a' * 900_000}\n{M}", "must be 1 to 64"),
    "key": (f"{'k' * 900_000}: 1\n", "invalid YAML"),
    "long key": (f'? "{"k" * 900_000}"\n: 1\n', "a key of 900000 characters"),
    "unknown keys": (P + "".join(f"k{i}: 1\n" for i in range(2000)), "more than 100 problems"),
    "options": (P + f"train: {{epochs: {{choice: {list(range(1, 1500))}}}}}", "at most 1000"),
}


@pytest.mark.parametrize(("text", "words"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_documents_are_refused_at_once(text, words):
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        loads(text, "f.yaml")
    seconds = time.process_time() - started
    assert words in str(caught.value)
    assert len(str(caught.value)) < 30_000
    assert seconds < 2  # a quarter of that on an idle machine; without the limits it takes minutes


def test_files_that_cannot_be_read_say_why(tmp_path):
    (tmp_path / "quickstart.yaml").write_text(P)
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "latin.yaml").write_bytes(b"name: x\nmodel: \xe9\n")
    (tmp_path / "half.yaml").write_bytes("name: é".encode("utf-16")[:-1])
    os.mkfifo(tmp_path / "fifo.yaml")
    cases = {
        "quikstart.yaml": (
            "1:1",
            f"No such file or directory; did you mean {tmp_path}/quickstart",
        ),
        ".": ("1:1", "Is a directory"),
        "fifo.yaml": ("1:1", "got a pipe or a device"),
        "big.yaml": ("1:1", "too large: 1000001 bytes"),
        "latin.yaml": ("2:8", "not valid UTF-8 (byte 0xe9 at line 2)"),
        "half.yaml": ("1:7", "not valid UTF-16"),
        "a" * 5000: ("1:1", "File name too long"),
        "a\0b": ("1:1", "null byte"),
        "quickstart.yaml/x": ("1:1", "Not a directory"),
    }
    for name, (place, words) in cases.items():
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / name)
        line = str(caught.value)
        assert line.startswith(f"{tmp_path / name}:{place}: ")
        assert words in line


# --- random documents -----------------------------------------------------------------------

VOCABULARY = """name model data features optim train search augment split choice grid uniform
integer quantized lr epochs n_mels cnn resnet18 x 1 0 1e-3 -5 0.5 010 .nan null true '' *a &a !!str
~ column val val_loss metric blocks clip_seconds hop_seconds scheduler"""
WORDS = st.sampled_from(VOCABULARY.split())
MARKS = st.sampled_from([": ", ", ", *"[]{}|\t'", "\n", "\n  ", "- ", "# ", "? "])


def outcome(text: str, overrides: Sequence[str] = ()) -> Space | UserError:
    """Return the space or the error; anything else escapes."""
    try:
        return loads(text, overrides=overrides)
    except UserError as error:
        return error


def check_outcome(found: Space | UserError) -> None:
    if isinstance(found, ConfigError):
        assert found.problems
        assert all(problem.line >= 1 and problem.column >= 1 for problem in found.problems)
    elif isinstance(found, Space):  # other errors come from a look at the data, for `auto`
        assert loads(found.to_yaml()) == found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(WORDS, MARKS), max_size=40).map("".join))
def test_random_token_soup_raises_nothing_but_config_errors(text):
    check_outcome(outcome(text))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_random_text_raises_nothing_but_config_errors(text):
    check_outcome(outcome(text))
    check_outcome(outcome(P + f"data: {{root: {text}}}"))


SPACES = Path(__file__).parents[2] / "search_spaces"
SHIPPED = [file.read_text() for file in SPACES.glob("*.yaml")]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHIPPED), st.one_of(WORDS, MARKS, st.text(max_size=2)), st.data())
def test_mutated_space_files_raise_nothing_but_config_errors(text, piece, data):
    pieces = re.findall(r"[\w.]+|\s+|[^\w\s]", text)
    pieces[data.draw(st.integers(0, len(pieces) - 1))] = piece
    check_outcome(outcome("".join(pieces)))


VALUES = st.recursive(
    WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["data", "features", "model", "optim", "train", "search"]), VALUES
    )
)
def test_random_trees_raise_nothing_but_config_errors(document):
    text = str({"name": "x", "model": {"name": "cnn"}, **document}).replace("'", "")
    check_outcome(outcome(text))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_random_overrides_raise_nothing_but_config_errors(path, value):
    for override in (f"{path}={value}", path, f"train.{path}={value}", f"train.epochs={value}"):
        check_outcome(outcome(P, [override]))


# --- numbers that contradict each other ------------------------------------------------------

GRID = "optim: {lr: {grid: [0.1, 0.2]}}\nsearch: {algorithm: grid, trials: 9}\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("search: {budget: 0s}", "the budget must be above 0"),
        ("search: {budget: 0.00m}", "the budget must be above 0"),
        ("search: {budget: -5s}", "search.budget"),
        ("search: {budget: 1e-9s}", "search.budget"),
        ("search: {trials: 3}\nconfirm: {top: 5}",
         "f.yaml:4:16: confirm.top: 5 is above the number of trials, 3; write at most 3"),
        ("search: {trials: 1}\nconfirm: {top: 2}", "confirm.top: 2 is above"),
        (GRID + "confirm: {top: 3}", "confirm.top: 3 is above the number of trials, 2"),
    ],
)  # fmt: skip
def test_numbers_that_contradict_each_other_are_refused(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loads(f"name: x\nmodel: {{name: cnn}}\n{text}", "f.yaml")
    assert fault in str(refused.value)


@pytest.mark.parametrize(("text", "top"), [("search: {trials: 1}", 1), (GRID, 2), ("", 2)])
def test_what_is_not_written_fits_and_can_be_loaded_again(text: str, top: int) -> None:
    space = loads(f"name: x\nmodel: {{name: cnn}}\n{text}")
    assert space.template.confirm.top == top
    assert loads(space.to_yaml()).settings() == space.settings()
