from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torchaudio
from pydantic import ValidationError

from pipelines.errors import SpecError
from pipelines.features import KINDS, FeatureSpec, Kind, feature_key, fingerprint
from pipelines.features.rules import check_front_end, empty_mel_bands
from pipelines.settings import SPLIT_RULES, ClipSpec, Framing, SplitSpec, check, in_words

OTHER: dict[str, Any] = {
    "sample_rate": 16000, "n_fft": 512, "hop_length": 160, "win_length": 400, "n_mels": 40,
    "f_min": 20.0, "f_max": 7600.0, "n_mfcc": 13, "n_lags": 64,
}  # fmt: skip
BY_HOP = ClipSpec(clip_seconds=1.5, hop_seconds=0.7, short="repeat")
BY_CLIP = SplitSpec(group="track", unit="clip", seed=3)
BY_FOLD = SplitSpec(column="fold", val_values=("4", "3"), test_values=("5",), leaks="drop")


def test_faults_are_told_on_one_line() -> None:
    with pytest.raises(ValidationError) as caught:
        ClipSpec.model_validate({"clip_seconds": -1, "short": "x" * 999})
    assert in_words(caught.value) == (
        "clip_seconds: Input should be greater than 0, got -1; "
        "short: Input should be 'pad' or 'repeat', got 'xxxxxxxxxxxx...xxxxxxxxxxxxx'"
    )
    with pytest.raises(ValidationError) as caught:
        ClipSpec.model_validate({str(number): 0 for number in range(100)})
    assert in_words(caught.value).endswith("got 0; and 95 more")
    assert in_words(OSError("no room")) == "no room"


def test_a_last_frame_that_does_not_fit_is_not_counted() -> None:
    # 5 hops of 100 and 2 * 200 reflected samples: frames of 401 begin at 0, 100, ..., 400
    assert Framing(n_fft=401, win_length=401, hop_length=100).count(500) == 5
    assert Framing(n_fft=400, win_length=400, hop_length=100).count(500) == 6


@pytest.mark.parametrize(
    ("kind", "shape"),
    [  # 3 s at 22050 Hz are 66150 samples; 129 whole hops of 512 fit, and one frame is at 0
        ("logmel", (64, 130)),
        ("stft", (513, 130)),
        ("mfcc", (20, 130)),
        ("tempogram", (128, 130)),
        ("waveform", (1, 66150)),
        ("song", (16, 1)),
    ],
)
def test_each_kind_has_its_shape(kind: Kind, shape: tuple[int, int]) -> None:
    feature = FeatureSpec(kind=kind)
    assert feature.shape(ClipSpec()) == shape
    assert feature.columns_in(3.0) == shape[1]


@pytest.mark.parametrize("kind", KINDS)
def test_only_parameters_that_a_kind_reads_change_its_name(kind: Kind) -> None:
    values: dict[str, Any] = {"n_fft": 2048, "win_length": 1000, "hop_length": 300, "f_min": 20.0}
    values |= {
        "f_max": 8000.0,
        "n_mels": 32,
        "n_mfcc": 13,
        "n_lags": 64,
        "mel_scale": "slaney",
        "network": "vgg_mtt",
    }
    keys = {
        name: feature_key(ClipSpec(), FeatureSpec(kind=kind, **{name: value}))
        for name, value in values.items()
    }
    same = feature_key(ClipSpec(), FeatureSpec(kind=kind))
    assert {name for name, key in keys.items() if key != same} == set(KINDS[kind].reads)


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
    feature = FeatureSpec(sample_rate=rate, n_fft=n_fft, n_mels=n_mels, f_min=f_min)
    assert empty_mel_bands(feature) == empty


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: ClipSpec(clip_seconds=0), "clip_seconds"),
        (lambda: ClipSpec(clips_per_track=0), "clips_per_track"),
        (lambda: ClipSpec(hop_seconds=-1.0), "hop_seconds"),
        (lambda: ClipSpec(short="loop"), "short"),  # type: ignore[arg-type]
        (lambda: FeatureSpec(kind="cqt"), "kind"),  # type: ignore[arg-type]
        (lambda: FeatureSpec(kind="tempogram", n_lags=1), "n_lags"),
        (lambda: FeatureSpec(sample_rate=100), "sample_rate"),
        (lambda: FeatureSpec(hop_length=0), "hop_length"),
        (lambda: SplitSpec(train=1.0, val=0.0, test=0.0), "train"),
        (lambda: SplitSpec(group=""), "group"),
        (lambda: SplitSpec(unit="track"), "unit"),  # type: ignore[arg-type]
        (lambda: SplitSpec(leaks="keep"), "leaks"),  # type: ignore[arg-type]
    ],
)
def test_values_out_of_bounds_are_refused_by_name(make: Callable[[], object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make()


@pytest.mark.parametrize(
    ("clip", "feature", "word"),
    [
        (ClipSpec(clips_per_track=None), FeatureSpec(), "hop_seconds and clips_per_track"),
        (ClipSpec(), FeatureSpec(kind="mfcc", n_mfcc=65), "n_mfcc"),
        (ClipSpec(), FeatureSpec(f_max=12_000), "f_max"),
        (ClipSpec(), FeatureSpec(f_min=9000, f_max=8000), "f_min"),
        (ClipSpec(), FeatureSpec(win_length=2048), "win_length"),
        (ClipSpec(), FeatureSpec(hop_length=1025), "hop_length"),
        (ClipSpec(), FeatureSpec(n_mels=256), "mel bands are empty"),
        (ClipSpec(), FeatureSpec(n_mels=60, n_fft=100), "n_mels must be from 1 to 51"),
        # reflect padding needs more than n_fft / 2 samples: 512 are too few
        (ClipSpec(clip_seconds=512 / 22050), FeatureSpec(), "clip_seconds"),
    ],
)
def test_front_ends_that_cannot_work_are_refused_by_name(
    clip: ClipSpec, feature: FeatureSpec, word: str
) -> None:
    with pytest.raises(SpecError, match=word):
        check_front_end(clip, feature)


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(SpecError, match=r"win_length: .*; hop_length: "):
        check_front_end(ClipSpec(), FeatureSpec(win_length=2048, hop_length=2048))


def test_settings_that_a_kind_does_not_read_are_not_judged() -> None:
    check_front_end(ClipSpec(clip_seconds=513 / 22050), FeatureSpec(n_mfcc=65))
    check_front_end(ClipSpec(), FeatureSpec(kind="stft", n_mels=256, f_max=12_000))
    check_front_end(ClipSpec(clip_seconds=0.001), FeatureSpec(kind="waveform"))


@pytest.mark.parametrize(
    ("split", "word"),
    [
        (SplitSpec(train=0.8), "add up to 1"),
        (SplitSpec(val_values=("4",)), "column"),
        (SplitSpec(leaks="drop", unit="clip"), "leaks cannot be dropped when clips"),
        (SplitSpec(column="fold", unit="clip"), "by the column 'fold' at once"),
        (SplitSpec(column="fold", val_values=("4",), test_values=("4",)), "both"),
        (SplitSpec(group="tag:title"), "tag:artist and tag:album"),
        (SplitSpec(group="path:("), "not a regular expression"),
        (SplitSpec(group="path:^[^/]+/"), "around the part of the path"),
    ],
)
def test_splits_that_cannot_work_are_refused_by_name(split: SplitSpec, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        check(SPLIT_RULES, split)


class TestFingerprint:
    # Written down once for each format version: another value orphans every set on disk.
    @pytest.mark.parametrize(
        ("clip", "feature", "split", "name"),
        [
            (ClipSpec(), FeatureSpec(kind="logmel", **OTHER), SplitSpec(), "41b11bf1b9cab11d"),
            (ClipSpec(), FeatureSpec(kind="stft", **OTHER), SplitSpec(), "cddcdb7cb77db4bc"),
            (ClipSpec(), FeatureSpec(kind="mfcc", **OTHER), SplitSpec(), "f8e7e8a3d5919159"),
            (ClipSpec(), FeatureSpec(kind="tempogram", **OTHER), SplitSpec(), "a4eb7a6cc9460623"),
            (ClipSpec(), FeatureSpec(kind="waveform", **OTHER), SplitSpec(), "81a9dccc40cb5191"),
            (ClipSpec(), FeatureSpec(kind="song", **OTHER), SplitSpec(), "11fc8dcc90da8b87"),
            (ClipSpec(), FeatureSpec(), SplitSpec(), "0b528ea974eeee3c"),
            (BY_HOP, FeatureSpec(), SplitSpec(), "e2d62fe74310c2ba"),
            (ClipSpec(), FeatureSpec(), BY_CLIP, "c0de4408725fafc8"),
            (ClipSpec(), FeatureSpec(), BY_FOLD, "00f7d50d0cd526f8"),
        ],
    )
    def test_never_changes_by_itself(
        self, clip: ClipSpec, feature: FeatureSpec, split: SplitSpec, name: str
    ) -> None:
        assert fingerprint("0" * 32, clip, feature, split) == name

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

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (ClipSpec(), ClipSpec(clip_seconds=3)),
            (ClipSpec(hop_seconds=1.0), ClipSpec(hop_seconds=1.0, clips_per_track=None)),
            (FeatureSpec(), FeatureSpec(f_max=11025.0)),
            (FeatureSpec(), FeatureSpec(win_length=1024)),
            (FeatureSpec(kind="stft"), FeatureSpec(kind="stft", n_mels=32)),
            (SplitSpec(), SplitSpec(train=0.1 + 0.6)),
            (
                SplitSpec(column="fold", val_values=("4", "3"), test_values=("5",)),
                SplitSpec(
                    column="fold", val_values=("3", "4"), test_values=("5",),
                    train=0.5, val=0.25, test=0.25, seed=3,
                ),
            ),
        ],
    )  # fmt: skip
    def test_is_the_same_for_two_ways_to_say_one_thing(
        self, one: ClipSpec | FeatureSpec | SplitSpec, other: ClipSpec | FeatureSpec | SplitSpec
    ) -> None:
        assert one.canonical() == other.canonical()
