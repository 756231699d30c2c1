"""Odd files of several decoders' test suites: verdicts agree with what libsndfile says of them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from pipelines.audio import MAX_CHANNELS, MIN_FRAMES, MIN_SECONDS
from pipelines.audio.sandbox import Decoder
from pipelines.errors import AudioRejected

ALLOWED = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW", "VORBIS", "OPUS", "MPEG", "ALAC")


def expected(row: dict[str, str]) -> set[str]:
    """The codes that a manifest row allows; an empty one means that the file is used."""
    if row["info_error"]:
        return {
            "E_EMPTY", "E_HEADER", "E_NOT_AUDIO", "E_UNSUPPORTED", "E_CHANNELS", "E_RATE",
            "E_SUBTYPE", "E_TRUNCATED", "E_CLAIM", "W_HEADER",
        }  # fmt: skip
    for refused, code in (
        (not row["subtype"].startswith(ALLOWED), "E_SUBTYPE"),
        (int(row["ch"]) > MAX_CHANNELS, "E_CHANNELS"),
        (not 4000 <= int(row["sr"]) <= 384_000, "E_RATE"),
    ):
        if refused:
            return {code}
    return expected_of_sound(row)


def expected_of_sound(row: dict[str, str]) -> set[str]:
    faults = {"E_TRUNCATED", "E_CLAIM", "E_DECODE"}
    if row["read_error"]:  # a declared length that the list's author did not try to read
        return {*faults, ""} if row["read_error"].startswith("skipped") else faults
    read = int(row["read"])
    if read == 0:
        return {"E_ZERO_FRAMES", *faults}
    if read < MIN_FRAMES or read < MIN_SECONDS * int(row["sr"]):
        return {"E_TOO_SHORT", "E_NONFINITE", "E_RANGE", *faults}
    if row["finite"] != "True":
        return {"E_NONFINITE", *faults}
    if float(row["peak"]) > 64:
        return {"E_RANGE", *faults}
    if float(row["peak"]) < 1e-4:
        return {"E_SILENT", *faults}
    cut = any(word in row["path"] for word in ("truncated", "early-eof"))
    return {"E_TRUNCATED", "W_HEADER", ""} if cut or read < int(row["frames"]) else {""}


# Seconds that FFmpeg 7 decodes where libsndfile stops early: at a frame of another rate or number
# of channels, at the length that the bit rate of the first frame suggests, or that the header has.
LONGER_S = {
    "l3-he_mode.bit": 3.344,
    "l3-nonstandard-he_44_48khz.bit": 14.312,
    "l3-test45.bit": 21.473,
    "05 - wrong total number of samples.flac": 4.562,
}
A_FRAME_OR_TWO_S = 0.053
# Verdicts that FFmpeg 7 confirms: it decodes 5.2 s where libsndfile ends after 0.6 without a word,
# and FLAC of 12 and 20 bits, which libsndfile refuses.
JUDGED = {
    "l3-nonstandard-compl-sideinfo-size.bit": "E_DECODE",
    "22 - 12 bit per sample.flac": "",
    "62 - predictor overflow check, 20-bit.flac": "",
}


def test_verdicts_agree_with_what_libsndfile_says(shared_data: Path) -> None:
    root = shared_data / "oddaudio"
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 100
    wrong, found = [], Counter[str]()
    with Decoder() as decoder:
        for row in rows:
            try:
                sound = decoder.decode_path(root / row["path"], 22050)
            except AudioRejected as error:
                code = error.code
                assert "crash" not in error.detail  # noqa: PT017
            else:
                code = "W_HEADER" if row["info_error"] and "W_HEADER" in sound.flags else ""
                read_s = int(row["read"]) / int(row["sr"]) if row["read"] else sound.seconds
                longer_s = LONGER_S.get(row["path"].rpartition("/")[2])
                is_right = sound.seconds == read_s
                if longer_s is not None:
                    is_right = abs(sound.seconds - longer_s) < A_FRAME_OR_TWO_S
                if not is_right:
                    wrong.append((row["path"], f"{sound.seconds} s", row["read"]))
            found[code] += 1
            judged = JUDGED.get(row["path"].rpartition("/")[2])
            if code not in (expected(row) if judged is None else {judged}):
                wrong.append((row["path"], code, str(expected(row))))
    assert wrong == []
    assert found[""] > len(rows) / 3
