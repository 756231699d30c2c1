"""A look at data sets that are made on the spot, so that lengths, rates and edges are known."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio.opening import open_regular
from pipelines.audio.sandbox import Decoder
from pipelines.demo import demo_facts, encode, plan_tracks
from pipelines.errors import AudioRejected, CatalogError
from pipelines.facts import MAX_OPENED, bandwidth_hz, look
from pipelines.sources.catalog import read_catalog


def noise(seconds: float, rate: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)).astype(np.float32)


def write(path: Path, seconds: float, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        path, noise(seconds, rate), rate, subtype=None if path.suffix == ".ogg" else "PCM_16"
    )


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_header_is_read_in_the_child_process(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, 2.5, 22_050)
    with Decoder() as decoder, open_regular(tmp_path / name) as fd:
        seconds, rate_hz = decoder.header(fd)
        assert seconds == pytest.approx(2.5, abs=0.01)
        assert rate_hz == 22_050
        assert len(decoder.decode(fd, name, 22_050).samples) == pytest.approx(
            2.5 * 22_050, rel=0.01
        )
        assert decoder.header(fd)[1] == 22_050
    (tmp_path / "b.wav").write_bytes(b"no sound")
    with Decoder() as decoder, open_regular(tmp_path / "b.wav") as fd:
        with pytest.raises(AudioRejected):
            decoder.header(fd)
        assert decoder.pid is not None


def test_lengths_rates_and_classes_of_folders(tmp_path: Path) -> None:
    for number, seconds in enumerate((0.5, 1.0, 2.0)):
        write(tmp_path / "dog" / f"{number}.wav", seconds, 8_000)
    for number in range(5):
        write(tmp_path / "cat" / f"{number}.flac", 4.0, 44_100)
    (tmp_path / "cat" / "broken.wav").write_bytes(b"RIFFnothing")
    facts = look(read_catalog(tmp_path))
    assert facts.num_by_class == {"cat": 6, "dog": 3}
    assert facts.seconds == (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0)
    assert Counter(facts.rates_hz) == {8_000: 3, 44_100: 5}
    assert (facts.length_seconds(0.0), facts.length_seconds(0.5)) == (0.5, 4.0)
    assert (facts.rate_hz(0.1), facts.rate_hz(0.5)) == (8_000, 44_100)


def test_a_segment_is_as_long_as_the_manifest_says(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 10.0)
    rows = [
        "path,label,start_s,end_s",
        "a.wav,x,0,2",
        "a.wav,y,7,",
        "a.wav,x,9,99",
        "a.wav,y,12,13",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    assert look(read_catalog(tmp_path)).seconds == (1.0, 2.0, 3.0)


def test_nothing_readable_is_no_error(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.wav").write_bytes(b"")
    facts = look(read_catalog(tmp_path))
    assert (facts.seconds, facts.num_by_class) == ((), {"a": 1, "b": 1})
    assert facts.length_seconds(0.5) > 0
    assert (facts.num_looked_at, len(facts.unreadable)) == (2, 2)
    with pytest.raises(CatalogError, match=r"none of the 2 .* for example [ab]/x\.wav: .*0 bytes"):
        facts.require_readable()


def test_files_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "cat" / f"{number}.wav", 1.0)
        write(tmp_path / "dog" / f"{number}.wav", 1.0)
    (tmp_path / "cat" / "text.wav").write_bytes(b"no sound at all")
    cut = (tmp_path / "dog" / "0.wav").read_bytes()
    (tmp_path / "dog" / "cut.wav").write_bytes(cut[:20])
    facts = look(read_catalog(tmp_path))
    assert (facts.num_looked_at, len(facts.seconds)) == (8, 6)
    assert sorted(text.partition(":")[0] for text in facts.unreadable) == [
        "cat/text.wav", "dog/cut.wav",
    ]  # fmt: skip
    facts.require_readable()


def test_silence_is_read_but_has_no_bandwidth(tmp_path: Path) -> None:
    for name in ("a/x.wav", "b/x.wav"):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, np.zeros(8_000), 8_000)
    facts = look(read_catalog(tmp_path))
    assert (facts.seconds, facts.unreadable, facts.bandwidth_hz) == ((1.0, 1.0), (), None)


@pytest.mark.parametrize("edge", [1_850, 4_000, 8_000])
def test_bandwidth_is_that_of_the_recording_before_it_was_resampled(edge: int) -> None:
    spectrum = np.fft.rfft(noise(3.0, 44_100))
    spectrum[3 * edge :] = 0  # bins of a third of a hertz: an ideal resampler
    stored = np.round(np.fft.irfft(spectrum) * 32_768) / 32_768  # 16 bits
    assert bandwidth_hz(stored.astype(np.float32), 44_100) == pytest.approx(edge, abs=300)


def test_bandwidth_of_noise_and_of_a_tone() -> None:
    assert bandwidth_hz(noise(1.0, 44_100), 44_100) == pytest.approx(22_050, rel=0.01)
    tone = np.sin(2 * np.pi * 1_000 * np.arange(44_100) / 44_100).astype(np.float32)
    assert 1_000 < bandwidth_hz(tone, 44_100) < 2_000
    assert bandwidth_hz(noise(0.01, 8_000), 8_000) == pytest.approx(4_000, rel=0.05)


@pytest.mark.timeout(60)
def test_a_look_at_thousands_of_files_takes_a_moment(tmp_path: Path) -> None:
    write(tmp_path / "sound.wav", 0.4, 8_000)
    for label in range(10):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for number in range(300):
            (tmp_path / "data" / str(label) / f"{number}.wav").hardlink_to(tmp_path / "sound.wav")
    start = time.process_time()
    facts = look(read_catalog(tmp_path / "data"))
    assert time.process_time() - start < 2
    assert len(facts.tracks) == 3_000
    assert len(facts.seconds) == MAX_OPENED


def test_which_files_are_opened_depends_on_their_names_alone(tmp_path: Path) -> None:
    for number in range(MAX_OPENED + 20):
        write(tmp_path / "many" / f"{number}.wav", 0.1)
    for number in range(3):
        write(tmp_path / "few" / f"{number}.wav", 0.2)
    facts = look(read_catalog(tmp_path))
    assert Counter(round(one, 3) for one in facts.seconds) == {0.1: MAX_OPENED - 3, 0.2: 3}
    assert look(read_catalog(tmp_path)) == facts


def test_the_demo_is_known_without_being_written(tmp_path: Path) -> None:
    track = plan_tracks(150)[0]
    (tmp_path / track.label).mkdir()
    (tmp_path / track.path).write_bytes(encode(track, 0))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.flac").write_bytes(encode(track, 0))
    written, known = look(read_catalog(tmp_path)), demo_facts()
    assert (known.seconds[0], known.rates_hz[0]) == (written.seconds[0], written.rates_hz[0])
    assert sum(known.num_by_class.values()) == 150
    assert len({track.columns["artist"] for track in known.tracks}) == 30
