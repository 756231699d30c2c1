from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torchaudio

from pipelines.errors import SpecError
from pipelines.settings import (
    KINDS,
    PARAMETERS,
    ClipSpec,
    FeatureSpec,
    Kind,
    SplitSpec,
    empty_mel_bands,
    feature_shape,
    fingerprint,
    num_frames,
    num_samples,
    problems,
    rendering,
)


def test_frames_of_a_clip_counted_by_hand() -> None:
    # 3 s at 22050 Hz are 66150 samples; 129 whole hops of 512 fit, and a frame stands at 0 too
    assert num_samples(ClipSpec(), FeatureSpec()) == 66150
    assert num_frames(ClipSpec(), FeatureSpec()) == 130


def test_a_last_frame_that_does_not_fit_is_not_counted() -> None:
    # 5 hops of 100 and 2 * 200 reflected samples: frames of 401 begin at 0, 100, ..., 400
    clip = ClipSpec(clip_seconds=500 / 8000)
    odd = FeatureSpec(sample_rate=8000, n_fft=401, hop_length=100, n_mels=20)
    assert num_frames(clip, odd) == 5
    assert num_frames(clip, replace(odd, n_fft=400)) == 6


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("logmel", (64, 130)),
        ("stft", (513, 130)),
        ("mfcc", (20, 130)),
        ("tempogram", (128, 130)),
        ("waveform", (1, 66150)),
        ("song", (16, 1)),
    ],
)
def test_each_kind_has_its_shape(kind: Kind, shape: tuple[int, int]) -> None:
    assert feature_shape(ClipSpec(), FeatureSpec(kind=kind)) == shape


@pytest.mark.parametrize("kind", KINDS)
def test_only_parameters_that_a_kind_reads_change_its_name(kind: Kind) -> None:
    values: dict[str, Any] = {"n_fft": 2048, "win_length": 1000, "hop_length": 300, "f_min": 20.0}
    values |= {"f_max": 8000.0, "n_mels": 32, "n_mfcc": 13, "n_lags": 64}
    base = FeatureSpec(kind=kind)
    names = {
        parameter: rendering(ClipSpec(), replace(base, **{parameter: value}))
        for parameter, value in values.items()
    }
    same = rendering(ClipSpec(), base)
    assert {name for name, digest in names.items() if digest != same} == set(PARAMETERS[kind])


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "f_min"),
    [
        (22050, 1024, 64, 0.0),
        (8000, 256, 100, 0.0),
        (16000, 512, 80, 20.0),
        (44100, 512, 128, 0.0),
    ],
)
def test_empty_bands_are_those_of_torchaudio(
    rate: int, n_fft: int, n_mels: int, f_min: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bank = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, f_min, rate / 2, n_mels, rate)
    empty = [band for band in range(n_mels) if bank[:, band].max() == 0]
    values: dict[str, Any] = {"sample_rate": rate, "n_fft": n_fft, "n_mels": n_mels}
    if not empty:
        assert empty_mel_bands(FeatureSpec(f_min=f_min, **values)) == []
        return
    with pytest.raises(SpecError, match=f"{len(empty)} of {n_mels} mel bands are empty"):
        FeatureSpec(f_min=f_min, **values)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: ClipSpec(clip_seconds=0), "clip_seconds"),
        (lambda: ClipSpec(clips_per_track=0), "clips_per_track"),
        (lambda: ClipSpec(clips_per_track=None), "hop_seconds"),
        (lambda: ClipSpec(hop_seconds=-1.0), "hop_seconds"),
        (lambda: ClipSpec(short="loop"), "short"),  # type: ignore[arg-type]
        (lambda: FeatureSpec(kind="cqt"), "kind"),  # type: ignore[arg-type]
        (lambda: FeatureSpec(kind="mfcc", n_mfcc=65), "n_mfcc"),
        (lambda: FeatureSpec(kind="tempogram", n_lags=1), "n_lags"),
        (lambda: FeatureSpec(sample_rate=100), "sample_rate"),
        (lambda: FeatureSpec(f_max=12_000), "f_max"),
        (lambda: FeatureSpec(f_min=9000, f_max=8000), "f_min"),
        (lambda: FeatureSpec(win_length=2048), "win_length"),
        (lambda: FeatureSpec(hop_length=0), "hop_length"),
        (lambda: FeatureSpec(n_mels=256), "mel bands are empty"),
        (lambda: SplitSpec(train=0.8), "add up to 1"),
        (lambda: SplitSpec(train=1.0, val=0.0, test=0.0), "above 0"),
        (lambda: SplitSpec(val_values=("4",)), "column"),
        (lambda: SplitSpec(leaks="keep"), "leaks must be report or drop"),  # type: ignore[arg-type]
        (lambda: SplitSpec(leaks="drop", unit="clip"), "leaks cannot be dropped when clips"),
        (lambda: SplitSpec(column="fold", val_values=("4",), test_values=("4",)), "both"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(
    make: Callable[[], object], word: str
) -> None:
    with pytest.raises(SpecError, match=word):
        make()


def test_a_clip_must_be_longer_than_half_a_frame() -> None:
    # reflect padding needs more than n_fft / 2 samples: 512 are too few, 513 are enough
    feature = FeatureSpec()
    assert problems(ClipSpec(clip_seconds=512 / 22050), feature)[0][0] == "clip_seconds"
    assert problems(ClipSpec(clip_seconds=513 / 22050), feature) == []


class TestFingerprint:
    def test_is_16_hex_digits_and_never_changes_by_itself(self) -> None:
        # Written down once for each format version: another value orphans every set on disk.
        name = fingerprint("0" * 32, ClipSpec(), FeatureSpec(), SplitSpec())
        assert len(name) == 16
        assert int(name, 16) >= 0
        assert name == "0b528ea974eeee3c"

    @pytest.mark.parametrize(
        "other",
        [
            (ClipSpec(clip_seconds=3.1), FeatureSpec(), SplitSpec()),
            (ClipSpec(hop_seconds=1.0), FeatureSpec(), SplitSpec()),
            (ClipSpec(short="repeat"), FeatureSpec(), SplitSpec()),
            (ClipSpec(), FeatureSpec(n_mels=63), SplitSpec()),
            (ClipSpec(), FeatureSpec(f_max=11_000.0), SplitSpec()),
            (ClipSpec(), FeatureSpec(kind="stft"), SplitSpec()),
            (ClipSpec(), FeatureSpec(), SplitSpec(seed=1)),
            (ClipSpec(), FeatureSpec(), SplitSpec(group="track")),
            (ClipSpec(), FeatureSpec(), SplitSpec(column="split")),
            (ClipSpec(), FeatureSpec(), SplitSpec(leaks="drop")),
        ],
    )
    def test_differs_when_numbers_would(
        self, other: tuple[ClipSpec, FeatureSpec, SplitSpec]
    ) -> None:
        assert fingerprint("a", *other) != fingerprint("a", ClipSpec(), FeatureSpec(), SplitSpec())

    def test_differs_with_the_content(self) -> None:
        specs = ClipSpec(), FeatureSpec(), SplitSpec()
        assert fingerprint("a", *specs) != fingerprint("b", *specs)

    def test_is_the_same_for_two_ways_to_say_one_thing(self) -> None:
        clip, feature, split = ClipSpec(), FeatureSpec(), SplitSpec()
        same = fingerprint("a", clip, feature, split)
        assert fingerprint("a", replace(clip, clip_seconds=3), feature, split) == same
        assert fingerprint("a", clip, replace(feature, f_max=11025.0), split) == same
        assert fingerprint("a", clip, replace(feature, win_length=1024), split) == same
        hop = replace(clip, hop_seconds=1.0)
        unused = replace(hop, clips_per_track=None)
        assert fingerprint("a", hop, feature, split) == fingerprint("a", unused, feature, split)
        fold = SplitSpec(column="fold", val_values=("4", "3"), test_values=("5",))
        shares = replace(fold, val_values=("3", "4"), train=0.5, val=0.25, test=0.25, seed=3)
        assert fingerprint("a", clip, feature, fold) == fingerprint("a", clip, feature, shares)
