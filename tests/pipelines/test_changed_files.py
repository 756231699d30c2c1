"""A few changed files among many: only what is new is decoded, compared and written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipelines.audio.sandbox import Decoder, Limits
from pipelines.build import decode_track
from pipelines.build.building import build_sets
from pipelines.build.decode import DecodeBatch, decode_here
from pipelines.build.options import BuildOptions
from pipelines.build.reuse import stored_tracks
from pipelines.build.tasks import DecodeJob
from pipelines.duplicates import Compared, acoustic_fingerprint, near_pairs
from pipelines.features import fingerprint
from pipelines.settings import SplitSpec
from pipelines.sources.catalog import read_catalog
from pipelines.sources.content import content_digest, digests
from pipelines.sources.files.local import LocalFiles, digest_of
from pipelines.storage import Folder
from pipelines.store import DECODED, FeatureSet
from pipelines.verdicts import Verdict, load_verdicts
from tests.object_store import BUCKET, Proxy, variables
from tests.pipelines.test_building import CLIP, FEATURE, Pass, contents
from tests.pipelines.test_duplicates import COPIES, RATE, recording

SPLIT = SplitSpec(seed=3)


def built(root: Path, out: Path | str, **options: Any) -> FeatureSet:
    """Build with the default pass, which without a cluster decodes only what belongs here."""
    found = build_sets(read_catalog(root), out, [(CLIP, FEATURE)], SPLIT, BuildOptions(**options))
    return found[0].feature_set


def change(file: Path, gain: float = 0.3) -> None:
    samples, rate = soundfile.read(file)
    soundfile.write(file, gain * samples[::-1], rate)
    os.utime(file, (1e9, 1e9))  # as a file that was copied from elsewhere


def judged(found: FeatureSet) -> list[dict[str, Any]]:
    return sorted(found.tracks().to_pylist(), key=lambda row: row["path"])


def verdicts(found: FeatureSet) -> list[Verdict]:
    return load_verdicts(found.folder, DECODED)


def copies_of(found: FeatureSet) -> list[set[str]]:
    """The paths of each pair of near copies."""
    path_of = {row["track_id"]: row["path"] for row in judged(found)}
    return [{path_of[a], path_of[b]} for a, b in found.manifest.near_copies or ()]


def files_of(found: FeatureSet) -> dict[str, int]:
    """Path -> inode of each Parquet file with clips."""
    return {part.path: (found.path / part.path).stat().st_ino for part in found.manifest.parts}


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    """Twelve files, one of which is there twice: as a copy that is half as loud, too."""
    root = make_folder(per_class=6, seconds=4.0)
    samples, rate = soundfile.read(root / "hum/take 2.wav")
    soundfile.write(root / "hum/take 9.wav", 0.5 * samples, rate)
    return root


def test_one_changed_file_gives_what_a_new_build_gives(folder: Path, tmp_path: Path) -> None:
    first = built(folder, tmp_path / "out", decode=decode_here)
    change(folder / "hiss/take 4.wav")
    # Ray is not connected: the default pass would fail if it asked for workers.
    changed = built(folder, tmp_path / "out")
    fresh = built(folder, tmp_path / "fresh", decode=decode_here)
    assert contents(changed) == contents(fresh) != contents(first)
    assert judged(changed) == judged(fresh)
    assert changed.manifest.near_copies == fresh.manifest.near_copies
    assert copies_of(fresh) == [{"hum/take 2.wav", "hum/take 9.wav"}]


def test_files_of_clips_without_a_change_are_the_same_files(folder: Path, tmp_path: Path) -> None:
    first = built(folder, tmp_path / "out", decode=decode_here)
    split_of = {row["path"]: row["split"] for row in judged(first)}
    change(folder / "hiss/take 4.wav")
    changed = built(folder, tmp_path / "out")
    before, after = files_of(first), files_of(changed)
    rewritten = {path for path in after if after[path] != before[path]}
    assert rewritten == {f"clips/split={split_of['hiss/take 4.wav']}/part-00000.parquet"}
    shutil.rmtree(first.path)
    changed.verify(digests=True)


def test_a_bucket_copies_the_files_of_clips_without_a_change(
    folder: Path, object_store: Proxy, tmp_path: Path, monkeypatch
) -> None:
    for name, value in variables(object_store.address).items():
        monkeypatch.setenv(name, value)
    uploaded, saved, outs = list[int](), list[int](), ("copying", "copyless")
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    first, _ = (built(folder, f"s3://{BUCKET}/{out}", decode=decode_here) for out in outs)
    change(folder / "hiss/take 4.wav")
    for out in outs:
        monkeypatch.setenv("TUNER_CACHE", str(tmp_path / f"{out} of another node"))
        monkeypatch.setattr(object_store, "copies", out == "copying")
        object_store.uploaded.clear()
        changed = built(folder, f"s3://{BUCKET}/{out}")
        parts = {k: v for k, v in object_store.uploaded.items() if k.endswith(".parquet")}
        uploaded.append(sum(parts.values()))
        changed.verify(digests=True)
        assert len(contents(changed)) == 39
        same = {part.digest for part in first.manifest.parts}
        saved.append(sum(part.bytes for part in changed.manifest.parts if part.digest in same))
    assert saved[0] == saved[1] > 2000
    assert abs(uploaded[1] - uploaded[0] - saved[0]) < 200


def test_another_label_is_written_though_the_sound_is_the_same(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(per_class=6)
    built(root, tmp_path / "out", decode=decode_here)
    (root / "hum").rename(root / "hymn")
    renamed = built(root, tmp_path / "out")
    assert {label for _, label, _ in contents(renamed).values()} == {"hymn", "hiss"}
    assert {path.partition("/")[0] for path, _ in contents(renamed)} == {"hymn", "hiss"}


def test_a_new_copy_of_a_known_recording_is_found(folder: Path, tmp_path: Path) -> None:
    built(folder, tmp_path / "out", decode=decode_here)
    samples, rate = soundfile.read(folder / "hiss/take 1.wav")
    soundfile.write(folder / "hiss/take 7.wav", 0.25 * samples, rate)
    found = built(folder, tmp_path / "out")
    flagged = {row["path"] for row in judged(found) if "W_NEAR_DUP" in row["reason"]}
    assert flagged == {*("hum/take 2.wav", "hum/take 9.wav", "hiss/take 1.wav", "hiss/take 7.wav")}


def test_two_sets_whose_tracks_were_never_compared_are_compared(
    folder: Path, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """The copies lie in one data set each; a third one holds both."""
    make_folder(("", ".", "hum", "hiss"), per_class=5, name="other", seconds=4.0)
    other = tmp_path / "other"
    for file in other.glob("*.wav"):
        file.unlink()
    samples, rate = soundfile.read(folder / "hiss/take 1.wav")
    soundfile.write(other / "hiss/take 8.wav", 0.25 * samples, rate)
    for root in (folder, other):
        built(root, tmp_path / "out", decode=decode_here)
    both = tmp_path / "both"
    shutil.copytree(folder, both)
    for file in other.rglob("*.wav"):
        shutil.copy(file, both / file.relative_to(other).with_stem(f"other {file.stem}"))
    found = built(both, tmp_path / "out", decode=decode_here)
    assert {"hiss/take 1.wav", "hiss/other take 8.wav"} in copies_of(found)
    assert len(copies_of(found)) == 2


@pytest.mark.parametrize("seed", range(4))
def test_a_search_that_goes_on_finds_what_a_whole_one_finds(seed: int) -> None:
    sounds = [recording(kind, n) for kind in ("hiss", "melody", "knocks") for n in range(4)]
    sounds += [COPIES[copy](sounds[n]) for n, copy in enumerate(("mp3", "louder", "resampled"))]
    words = {f"{n:02d}": acoustic_fingerprint(sound, RATE) for n, sound in enumerate(sounds)}
    whole = near_pairs(words)
    assert len(whole) == 3
    names = np.random.default_rng(seed).permutation([*words])
    known = frozenset(names[: 3 + 3 * seed].tolist())
    pairs = near_pairs({name: words[name] for name in known})
    assert near_pairs(words, Compared(known, tuple(pairs))) == whole
    # What is known is not searched again.
    assert near_pairs(words, Compared(frozenset(words), ())) == []


def settled(root: Path) -> Path:
    for file in root.rglob("*.wav"):
        os.utime(file, (1e9, 1e9))
    return root


def test_a_first_build_reads_each_file_once(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is hashed where it is decoded; what later builds need is known all the same."""
    root = settled(make_folder(per_class=6))

    def never(files: LocalFiles, path: str) -> str:
        raise AssertionError(f"{path} was read for its digest alone")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "digest", never)
        first = built(root, tmp_path / "out", decode=decode_here)
        again = build_sets(read_catalog(root), tmp_path / "out", [(CLIP, FEATURE)], SPLIT)[0]
    assert again.reused
    # The name is that of a build that hashed all files first.
    assert again.feature_set.manifest.fingerprint == first.manifest.fingerprint
    known = digests(read_catalog(root))
    assert fingerprint(content_digest(read_catalog(root), known), CLIP, FEATURE, SPLIT) == (
        first.manifest.fingerprint
    )


def test_a_file_that_changed_during_a_first_build_is_used_by_the_next(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = settled(make_folder(per_class=6))

    def growing(job: DecodeJob, batches: Sequence[DecodeBatch]) -> Pass:
        change(root / "hum/take 0.wav")
        os.utime(root / "hum/take 0.wav", (1.1e9, 1.1e9))
        yield from decode_here(job, batches)

    first = built(root, tmp_path / "out", decode=growing)
    reasons = {row["path"]: row["reason"] for row in judged(first) if row["reason"]}
    assert reasons == {"hum/take 0.wav": "E_CHANGED"}
    second = built(root, tmp_path / "out")
    assert second.manifest.fingerprint != first.manifest.fingerprint
    assert second.manifest.tracks.quarantined == 0


def test_segments_of_a_file_hash_it_once(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = settled(make_folder(per_class=4, seconds=4.0))
    lines = [
        f"{file.relative_to(root)},{file.parent.name},{start},{start + 1}"
        for file in sorted(root.rglob("*.wav"))
        for start in range(4)
    ]
    (root / "manifest.csv").write_text("\n".join(["path,label,start_s,end_s", *lines]))
    hashed: list[int] = []

    def counted(fd: int) -> str | None:
        hashed.append(fd)
        return digest_of(fd)

    monkeypatch.setattr(decode_track, "digest_of", counted)
    found = built(root, tmp_path / "out", decode=decode_here)
    assert found.manifest.tracks.listed == 32
    assert len(hashed) == 8


def test_files_that_arrive_during_a_first_build_are_in_the_next(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """A manifest whose audio is still being copied: one file comes after its turn."""
    root = settled(make_folder(per_class=6))
    paths = sorted(str(file.relative_to(root)) for file in root.rglob("*.wav"))
    (root / "manifest.csv").write_text(
        "\n".join(["path,label", *(f"{path},{path.partition('/')[0]}" for path in paths)])
    )
    late, aside = root / paths[0], tmp_path / "late.wav"
    late.rename(aside)

    def copying(job: DecodeJob, batches: Sequence[DecodeBatch]) -> Pass:
        yield from decode_here(job, batches)
        aside.rename(late)

    first = built(root, tmp_path / "out", decode=copying)
    assert first.manifest.reasons["E_MISSING"].count == 1
    second = built(root, tmp_path / "out")
    assert second.manifest.tracks.quarantined == 0
    assert second.manifest.fingerprint != first.manifest.fingerprint


def test_a_block_that_cannot_be_hashed_costs_no_build(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = settled(make_folder(per_class=6))

    def broken(fd: int) -> str:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(decode_track, "digest_of", broken)
        assert built(root, tmp_path / "out", decode=decode_here).manifest.tracks.ok == 12


def test_a_damaged_table_of_an_earlier_set_is_passed_over(folder: Path, tmp_path: Path) -> None:
    first = built(folder, tmp_path / "out", decode=decode_here)
    table = first.path / "decoded.parquet"
    content, keys = table.read_bytes(), [verdict.key for verdict in verdicts(first)]
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[-int(rng.integers(1, 1500))] ^= int(rng.integers(1, 256))
        table.write_bytes(damaged)
        found, compared = stored_tracks(Folder(tmp_path / "out"), first.manifest.key, keys)
        assert (found, compared) == ({}, [])


def test_three_rates_outlive_the_change_of_the_decoder(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of one rate are still in use when the decoder is replaced before the next."""
    root = make_folder(per_class=6)
    monkeypatch.setattr(decode_track, "_decoder", cache(lambda: Decoder(Limits(num_files=10))))
    rates = (8000, 6000, 4000)
    specs = [(CLIP, FEATURE.model_copy(update={"sample_rate": rate})) for rate in rates]
    options = BuildOptions(decode=decode_here)
    sets = build_sets(read_catalog(root), tmp_path / "out", specs, SPLIT, options)
    assert [one.feature_set.manifest.tracks.ok for one in sets] == [12, 12, 12]
