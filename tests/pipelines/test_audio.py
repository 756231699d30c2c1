from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio import decode
from pipelines.audio.reading import Window
from pipelines.errors import AudioRejected

RATE = 22050


def tone(
    seconds: float = 1.0, rate: int = RATE, hz: float = 440.0, level: float = 0.5
) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def written(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def code(path: Path) -> str:
    with pytest.raises(AudioRejected) as caught:
        decode(path, RATE)
    assert len(caught.value.detail) > 10, "a message that a person understands"
    return caught.value.code


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_samples_are_those_that_were_written(tmp_path: Path, subtype: str) -> None:
    sound = decode(written(tmp_path / "a.wav", tone(), subtype=subtype), RATE)
    step = 2**-7 if subtype == "PCM_U8" else 2**-15
    np.testing.assert_allclose(sound.samples, tone(), atol=step)
    assert sound.samples.dtype == np.float32
    assert sound.flags == ()
    assert sound.seconds == 1.0


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 44101, 48000, 96000, 192000])
def test_every_rate_is_brought_to_one(tmp_path: Path, rate: int) -> None:
    sound = decode(written(tmp_path / "a.wav", tone(2.0, rate), rate), RATE)
    assert abs(len(sound.samples) - 2 * RATE) <= 1
    middle = slice(RATE // 4, -RATE // 4)
    ideal = tone(2.0)[: len(sound.samples)]
    np.testing.assert_allclose(sound.samples[middle], ideal[middle], atol=2e-3)
    assert sound.flags == (("W_BAND",) if rate < RATE else ())


def test_channels_weigh_alike(tmp_path: Path) -> None:
    channels = np.stack([tone(hz=100.0 * n) for n in range(1, 7)], axis=1)
    sound = decode(written(tmp_path / "a.wav", channels, subtype="FLOAT"), RATE)
    np.testing.assert_allclose(sound.samples, channels.mean(axis=1), atol=1e-6)


def test_channels_that_cancel_give_the_stronger_one(tmp_path: Path) -> None:
    pair = np.stack([tone(), -0.999 * tone()], axis=1)
    sound = decode(written(tmp_path / "a.wav", pair, subtype="FLOAT"), RATE)
    assert sound.flags == ("W_PHASE",)
    np.testing.assert_allclose(sound.samples, tone(), atol=1e-6)


def test_exact_copies_have_one_digest_in_every_lossless_container(tmp_path: Path) -> None:
    # integers, because encoders round floats in different ways
    whole = np.rint(tone() * 32767).astype(np.int16)
    digests = {
        decode(written(tmp_path / name, whole, subtype="PCM_16"), RATE).pcm_digest
        for name in ("a.wav", "a.flac", "a.aiff", "a.caf", "a.w64")
    }
    assert len(digests) == 1
    other = decode(written(tmp_path / "b.wav", tone(hz=441.0)), RATE)
    assert other.pcm_digest not in digests


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg"])
def test_artist_album_and_title_are_kept(tmp_path: Path, name: str) -> None:
    with soundfile.SoundFile(tmp_path / name, "w", RATE, 1) as file:
        file.artist, file.album, file.title = "Bj\u00f6rk", "  ", "A\nB"
        file.write(tone())
    assert decode(tmp_path / name, RATE).tags == {"artist": "Bj\u00f6rk", "title": "A B"}


def test_only_the_first_seconds_are_read(tmp_path: Path) -> None:
    sound = decode(written(tmp_path / "a.wav", tone(3.0)), RATE, Window(max_seconds=1.0))
    assert sound.flags == ("W_LONG",)
    np.testing.assert_allclose(sound.samples, tone(1.0), atol=2**-15)
    exact = decode(written(tmp_path / "b.wav", tone(1.0)), RATE, Window(max_seconds=1.0))
    assert exact.flags == ()


class TestWindow:
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("a.wav", {}),
            ("a.flac", {}),
            ("a.aiff", {}),
            ("a.mp3", {}),
            ("a.ogg", {}),
            ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ],
    )
    @pytest.mark.parametrize("start_s", [0.5, 12.25])
    def test_is_a_cut_out_of_the_whole(
        self, tmp_path: Path, name: str, options: dict[str, str], start_s: float
    ) -> None:
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, 20 * 24000)
        path = written(tmp_path / name, noise, 24000, **options)
        whole = decode(path, 24000).samples
        part = decode(path, 24000, Window(start_s, start_s + 2.0))
        assert part.seconds == 2.0
        assert part.flags == ()
        first = round(start_s * 24000)
        np.testing.assert_allclose(part.samples, whole[first : first + 48000], atol=1e-4)

    def test_without_an_end_goes_to_the_end(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.wav", tone(3.0))
        np.testing.assert_allclose(
            decode(path, RATE, Window(2.5)).samples, tone(3.0)[round(2.5 * RATE) :], atol=2**-15
        )
        assert decode(path, RATE, Window(2.5, 99.0)).seconds == 0.5

    @pytest.mark.parametrize(
        ("start_s", "end_s", "words"),
        [
            (3.0, None, "the file ends at 3.00 s"),
            (1e300, None, "the file ends at 3.00 s"),
            (2.0, 2.0, "empty"),
            (2.0, 1.0, "empty"),
            (-1.0, 1.0, "empty"),
            (float("nan"), None, "empty"),
            (2.99, None, "at least"),
        ],
    )
    @pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
    def test_that_holds_nothing(
        self, tmp_path: Path, name: str, start_s: float, end_s: float | None, words: str
    ) -> None:
        path = written(tmp_path / name, tone(3.0))
        with pytest.raises(AudioRejected, match=words) as caught:
            decode(path, RATE, Window(start_s, end_s))
        assert caught.value.code == "E_TOO_SHORT"

    def test_of_a_cut_file_is_used_when_it_is_whole(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.wav", tone(4.0))
        os.truncate(path, path.stat().st_size // 2)
        assert decode(path, RATE, Window(0.5, 1.5)).flags == ("W_HEADER",)
        for window in (Window(1.5, 2.5), Window(2.5, 3.0), Window(1.0)):
            with pytest.raises(AudioRejected) as caught:
                decode(path, RATE, window)
            assert caught.value.code == "E_TRUNCATED"


class TestRejected:
    def test_nothing_there(self, tmp_path: Path) -> None:
        assert code(tmp_path / "a.wav") == "E_MISSING"
        (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
        assert code(tmp_path / "link.wav") == "E_MISSING"
        (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
        assert code(tmp_path / "loop.wav") == "E_MISSING"
        assert code(tmp_path / ("n" * 300)) == "E_MISSING"

    def test_not_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "folder.wav").mkdir()
        assert code(tmp_path / "folder.wav") == "E_NOT_AUDIO"
        os.mkfifo(tmp_path / "pipe.wav")
        assert code(tmp_path / "pipe.wav") == "E_NOT_AUDIO"
        assert code(Path("/dev/zero")) == "E_NOT_AUDIO"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_no_permission(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.wav", tone())
        path.chmod(0)
        assert code(path) == "E_PERM"

    @pytest.mark.parametrize(
        ("content", "expected", "word"),
        [
            (b"", "E_EMPTY", "0 bytes"),
            (b"RIFF", "E_HEADER", "header"),
            (b"<!DOCTYPE html><html>404</html>", "E_NOT_AUDIO", "HTML"),
            (b"not found\n" * 9, "E_NOT_AUDIO", "text"),
            (bytes(5000), "E_NOT_AUDIO", "zero bytes"),
            (b"PK\x03\x04" + bytes(99), "E_NOT_AUDIO", "zip"),
            (b"version https://git-lfs.github.com/spec/v1\n", "E_NOT_AUDIO", "LFS"),
            (b"MThd" + bytes(99), "E_UNSUPPORTED", "MIDI"),
        ],
    )
    def test_by_content(self, tmp_path: Path, content: bytes, expected: str, word: str) -> None:
        path = tmp_path / "a.wav"
        path.write_bytes(content)
        with pytest.raises(AudioRejected, match=word) as caught:
            decode(path, RATE)
        assert caught.value.code == expected

    def test_no_samples(self, tmp_path: Path) -> None:
        assert code(written(tmp_path / "a.wav", np.zeros(0))) == "E_ZERO_FRAMES"

    def test_too_short(self, tmp_path: Path) -> None:
        for count in (1, 100, 512):
            assert code(written(tmp_path / "a.wav", tone()[1 : 1 + count])) == "E_TOO_SHORT"
        assert decode(written(tmp_path / "a.wav", tone(0.06)), RATE).seconds > 0.05

    def test_silence_and_offset(self, tmp_path: Path) -> None:
        assert code(written(tmp_path / "a.wav", np.zeros(RATE))) == "E_SILENT"
        assert code(written(tmp_path / "a.wav", tone(level=3e-5), subtype="FLOAT")) == "E_SILENT"
        assert code(written(tmp_path / "a.wav", np.full(RATE, 0.5))) == "E_DC"
        decode(written(tmp_path / "a.wav", tone(level=1e-3), subtype="FLOAT"), RATE)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_one_sample_that_is_no_number(self, tmp_path: Path, value: float) -> None:
        samples = tone(4.0)
        samples[70_000] = value
        assert code(written(tmp_path / "a.wav", samples, subtype="FLOAT")) == "E_NONFINITE"

    def test_absurd_values(self, tmp_path: Path) -> None:
        assert code(written(tmp_path / "a.wav", 1e30 * tone(), subtype="FLOAT")) == "E_RANGE"
        assert code(written(tmp_path / "a.wav", 1e300 * tone(), subtype="DOUBLE")) in (
            "E_RANGE",
            "E_NONFINITE",
        )

    def test_channels_and_rate(self, tmp_path: Path) -> None:
        assert code(written(tmp_path / "a.wav", np.tile(tone()[:, None], 33))) == "E_CHANNELS"
        decode(written(tmp_path / "a.wav", np.tile(tone()[:, None], 32)), RATE)
        assert code(written(tmp_path / "a.wav", tone(), rate=1)) == "E_RATE"
        assert code(written(tmp_path / "a.wav", tone(), rate=2_000_000_000)) == "E_RATE"

    @pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
    def test_codings_that_are_not_read(self, tmp_path: Path, subtype: str) -> None:
        path = written(tmp_path / "a.wav", tone(), rate=8000, subtype=subtype)
        assert code(path) == "E_SUBTYPE"

    def test_flipped_bits_in_flac(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        path = written(tmp_path / "a.flac", rng.uniform(-0.5, 0.5, 8 * RATE))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)
        assert code(path) == "E_DECODE"

    def test_a_length_that_nothing_could_hold(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.flac", tone())
        content = bytearray(path.read_bytes())
        # STREAMINFO: 4 bytes magic, 4 of block header, 10 of sizes, then rate (20 bits),
        # channels (3), bits (5) and the total number of samples (36)
        content[21] |= 0x0F
        content[22:26] = b"\xff\xff\xff\xff"
        path.write_bytes(content)
        assert code(path) == "E_CLAIM"


class TestFlagged:
    @pytest.mark.parametrize("bit", [13, 14, 15])
    def test_flipped_bits_stick_out(self, tmp_path: Path, bit: int) -> None:
        rng = np.random.default_rng(bit)
        music = np.rint(20000 * (tone() + tone(hz=1760.0) + 0.02 * rng.normal(size=RATE)) / 2)
        whole = music.astype(np.int16)
        assert decode(written(tmp_path / "a.wav", whole), RATE).flags == ()
        whole.view(np.uint16)[RATE // 3] ^= 1 << bit
        assert decode(written(tmp_path / "b.wav", whole), RATE).flags == ("W_CLICK",)

    @pytest.mark.parametrize("length", [2, 4, 40])
    def test_an_attack_is_no_click(self, tmp_path: Path, length: int) -> None:
        samples = 0.2 * tone()
        samples[5000 : 5000 + length] += 0.7
        assert decode(written(tmp_path / "a.wav", samples), RATE).flags == ()

    def test_content_decides_over_the_name(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.flac", tone()).rename(tmp_path / "a.wav")
        assert decode(path, RATE).flags == ("W_EXT",)
        path = written(tmp_path / "B.WAV", tone(), format="WAV")
        assert decode(path, RATE).flags == ()

    def test_clipped_and_over_full_scale(self, tmp_path: Path) -> None:
        square = np.sign(tone())
        assert decode(written(tmp_path / "a.wav", square), RATE).flags == ("W_CLIPPED",)
        over = written(tmp_path / "b.wav", tone(level=1.05), subtype="FLOAT")
        assert "W_OVER" in decode(over, RATE).flags

    def test_mostly_silent(self, tmp_path: Path) -> None:
        samples = np.concatenate([tone(0.5), np.zeros(4 * RATE)])
        assert decode(written(tmp_path / "a.wav", samples), RATE).flags == ("W_MOSTLY_SILENT",)

    def test_a_stream_that_never_learned_its_length(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.wav", tone())
        content = bytearray(path.read_bytes())
        at = content.index(b"data") + 4
        content[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
        path.write_bytes(content)
        sound = decode(path, RATE)
        assert sound.flags == ("W_STREAMED",)
        assert len(sound.samples) == RATE


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    written(tmp_path / "a.wav", tone()).rename(path)
    assert len(decode(path, RATE).samples) == RATE
