"""Every kind of file that can be written is heard whole, or its verdict says what is missing."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from pipelines.audio import decode
from pipelines.errors import AudioRejected
from tests.pipelines.audio_corpus import SECONDS, Case, cases, music

ALL = list(cases())
SAMPLE = random.Random(0).sample(ALL, 80)
MOST_ADDED_S = 0.15  # a lossy coding fills its last frame, and may keep its delay


def fault(case: Case, folder: Path) -> str:
    """Return what is wrong with how a file is read; empty if nothing is."""
    path = folder / f"a.{case.kind.name.rpartition('.')[2]}"
    path.write_bytes(case.content())
    is_cut = case.change == "cut"
    try:
        sound = decode(path, case.rate_hz)
    except AudioRejected as error:
        is_told = error.code in ("E_TRUNCATED", "E_DECODE", "E_HEADER", "E_ZERO_FRAMES")
        return "" if is_cut and is_told else f"{case}: {error}"
    if is_cut:
        is_fine = not case.kind.knows_length and sound.seconds < 0.75 * SECONDS
    else:
        is_fine = SECONDS - 0.03 <= sound.seconds <= SECONDS + MOST_ADDED_S
    if not is_fine or "W_EXT" in sound.flags:
        return f"{case}: {sound.seconds} s, {sound.flags}"
    return "" if is_cut or likeness(case, sound.samples) > 0.99 else f"{case}: other sound"


def likeness(case: Case, heard: np.ndarray) -> float:
    """Return the correlation of what was heard with what was written, where both fit best."""
    expected = music(case.rate_hz, 1)[:, 0]
    lags = scipy.signal.correlate(heard, expected, "full", "fft")
    heard = heard[max(0, int(lags.argmax()) - len(expected) + 1) :]
    length = min(len(heard), len(expected))
    return float(np.corrcoef(heard[:length], expected[:length])[0, 1])


@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_a_file_is_heard_whole_or_told(case: Case, tmp_path: Path) -> None:
    assert fault(case, tmp_path) == ""


def test_the_corpus_is_large() -> None:
    assert len(ALL) >= 1500
    assert len({(case.kind.name, case.rate_hz) for case in ALL}) >= 120


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_file_is_heard_whole_or_told(tmp_path: Path) -> None:
    assert list(filter(None, (fault(case, tmp_path) for case in ALL))) == []
