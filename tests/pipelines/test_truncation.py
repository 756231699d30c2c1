from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio import decode
from pipelines.errors import AudioRejected

RATE = 44100
KINDS = {
    "wav": {"format": "WAV"},
    "wavex": {"format": "WAVEX"},
    "aiff": {"format": "AIFF"},
    "au": {"format": "AU"},
    "rf64": {"format": "RF64"},
    "w64": {"format": "W64"},
    "caf": {"format": "CAF"},
    "flac": {"format": "FLAC"},
    "vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Five seconds of stereo noise in every container."""
    folder = tmp_path_factory.mktemp("whole")
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (5 * RATE, 2))
    content = {}
    for kind, options in KINDS.items():
        path = folder / kind
        soundfile.write(path, noise, 48000 if kind == "opus" else RATE, **options)
        content[kind] = path.read_bytes()
    return content


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_whole(kind: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(whole[kind])
    assert decode(tmp_path / "a", 22050).flags == ()


@pytest.mark.parametrize("share", [0.99, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_found(
    kind: str, share: float, whole: dict[str, bytes], tmp_path: Path
) -> None:
    content = whole[kind]
    (tmp_path / "a").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(AudioRejected) as caught:
        decode(tmp_path / "a", 22050)
    assert caught.value.code == "E_TRUNCATED"


def test_an_mp3_without_a_length_tag_is_not_accused(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    # Its length is a guess from bit rate and size, wrong for nearly every such file.
    content = whole["mp3"]
    tag = max(content.find(b"Xing"), content.find(b"Info"))
    assert tag > 0
    (tmp_path / "a").write_bytes(content[:tag] + bytes(4) + content[tag + 4 :])
    assert decode(tmp_path / "a", 22050).flags == ()


def test_a_cut_chunk_behind_the_sound_is_a_remark(whole: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(whole["wav"] + b"LIST" + (100).to_bytes(4, "little") + bytes(50))
    content[4:8] = (len(content) + 50 - 8).to_bytes(4, "little")
    (tmp_path / "a").write_bytes(content)
    assert decode(tmp_path / "a", 22050).flags == ("W_HEADER",)


def test_more_than_a_hundredfold_is_a_lie(whole: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(whole["wav"])
    at = content.index(b"data") + 4
    content[at : at + 4] = (4_000_000_000).to_bytes(4, "little")
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(AudioRejected) as caught:
        decode(tmp_path / "a", 22050)
    assert caught.value.code == "E_CLAIM"
