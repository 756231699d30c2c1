"""Local files: opened, stamped, hashed and listed; names and URIs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from pipelines.errors import AudioRejected
from pipelines.plain_text import printable
from pipelines.sources.catalog import read_catalog
from pipelines.sources.files import (
    files_at,
    is_uri,
    printable_file,
    printable_root,
    read_all,
    split_uri,
)
from pipelines.sources.files.local import locate
from pipelines.sources.tracks import track_id


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def code(files: object, path: str) -> str:
    with pytest.raises(AudioRejected) as caught:
        os.close(files.open(path))  # type: ignore[attr-defined]
    return caught.value.code


class TestLocal:
    @pytest.mark.parametrize("path", ["../x.wav", "a/../../x.wav", "/etc/passwd", "a\0b"])
    def test_paths_that_lead_out(self, tmp_path: Path, path: str) -> None:
        assert code(files_at(str(tmp_path)), path) == "E_PATH_ESCAPE"
        assert files_at(str(tmp_path)).stamp(path) is None

    def test_links_that_lead_out_or_nowhere(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "data", "a/1.wav").resolve()
        touch(tmp_path, "secret.wav")
        (root / "out.wav").symlink_to(tmp_path / "secret.wav")
        (root / "up").symlink_to(tmp_path)
        (root / "gone.wav").symlink_to(root / "nothing")
        (root / "loop.wav").symlink_to(root / "loop.wav")
        (root / "in.wav").symlink_to(root / "a" / "1.wav")
        files = files_at(str(root))
        for path, expected in [
            ("out.wav", "E_PATH_ESCAPE"),
            ("up/secret.wav", "E_PATH_ESCAPE"),
            ("gone.wav", "E_MISSING"),
            ("loop.wav", "E_MISSING"),
            ("nothing.wav", "E_MISSING"),
        ]:
            assert code(files, path) == expected
            assert files.digest(path) is None
        assert read_all(files, "in.wav") == b"a/1.wav"
        assert locate(root, "in.wav") == root / "a" / "1.wav"

    @pytest.mark.timeout(10)
    def test_a_pipe_a_socket_a_folder_and_a_device_are_not_opened(self, tmp_path: Path) -> None:
        files = files_at(str(tmp_path))
        os.mkfifo(tmp_path / "pipe.wav")
        (tmp_path / "folder.wav").mkdir()
        (tmp_path / "zero.wav").symlink_to("/dev/zero")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket.wav"))
            kinds = {entry.path: entry.kind for entry in files.scan()}
            assert code(files, "socket.wav") == "E_NOT_AUDIO"
        assert code(files, "pipe.wav") == code(files, "folder.wav") == "E_NOT_AUDIO"
        assert code(files, "zero.wav") == "E_PATH_ESCAPE"
        assert kinds == dict.fromkeys(["pipe.wav", "zero.wav", "socket.wav"], "other")

    def test_no_permission(self) -> None:
        program = (
            "import os, sys\n"
            "from pipelines.sources.files import files_at\n"
            "from pipelines.errors import AudioRejected\n"
            "import pipelines.sources.files.local\n"  # the libraries may be closed to that user
            "if os.getuid() == 0: os.setuid(65534)  # root may read everything\n"
            "files = files_at(sys.argv[1])\n"
            "for path in ('a.wav', 'b/c.wav'):\n"
            "    try: files.open(path)\n"
            "    except AudioRejected as error: print(error.code)\n"
            "print(sorted(entry.kind for entry in files.scan()))\n"
        )
        with tempfile.TemporaryDirectory() as name:
            root = touch(Path(name), "a.wav", "b/c.wav")
            root.chmod(0o755)
            (root / "a.wav").chmod(0)
            (root / "b").chmod(0)
            done = subprocess.run(
                [sys.executable, "-c", program, name],
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            (root / "b").chmod(0o755)
        assert done.stdout.split("\n")[:3] == ["E_PERM", "E_PERM", "['closed', 'file']"], done

    def test_any_name_can_be_opened(self, tmp_path: Path) -> None:
        names = ["a\nb.wav", "-rf ;$(x).wav", "\U0001f3b5.wav", "n" * 240 + ".wav"]
        names.append(os.fsdecode(b"caf\xe9.wav"))  # not UTF-8
        for name in names:
            (tmp_path / name).write_bytes(os.fsencode(name))
        files = files_at(str(tmp_path))
        assert {entry.path for entry in files.scan()} == set(names)
        assert [read_all(files, name) for name in names] == [os.fsencode(n) for n in names]
        assert len({files.digest(name) for name in names}) == len(names)

    def test_the_digest_is_that_of_the_xxhsum_specification(self, tmp_path: Path) -> None:
        # XXH128 of nothing with seed 0, from the sanity tests of the xxHash project
        (tmp_path / "empty").write_bytes(b"")
        assert files_at(str(tmp_path)).digest("empty") == "99aa06d3014798d86001c324468d497f"

    def test_a_file_that_grows_while_it_is_hashed_has_no_digest(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        path.touch()
        os.truncate(path, 128 << 20)  # takes longer to hash than a thread to get its turn
        files, growing = files_at(str(tmp_path)), True

        def grow() -> None:
            with path.open("ab") as file:
                while growing:
                    file.write(b"x")
                    file.flush()

        writer = threading.Thread(target=grow)
        writer.start()
        try:
            assert files.digest("a.wav") is None
        finally:
            growing = False
            writer.join()

    def test_listing_is_lazy(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"{number}.wav" for number in range(50)))
        listing = files_at(str(tmp_path)).scan()
        next(listing)
        for path in tmp_path.iterdir():
            path.unlink()
        assert len(list(listing)) < 50


class TestNames:
    def test_a_track_is_named_by_its_path_and_segment(self) -> None:
        # blake2b of the UTF-8 bytes, from `b2sum -l 64`
        assert track_id("a/1.wav") == track_id("./a//1.wav") == "3046e171c16b846f"
        assert track_id("é") == track_id("e\u0301")
        names = [("a", 0.0, None), ("a", 0.0, 1.0), ("a", 0.5, None), ("a", 0.5, 1.0)]
        assert len({track_id(*name) for name in names}) == 4
        assert track_id("a", 1, 2) == track_id("a", 1.0, 2.0)

    def test_names_that_are_not_utf8_can_be_written_down(self) -> None:
        assert printable(os.fsdecode(b"caf\xe9")) == r"caf\udce9"
        assert printable("é") == "é"

    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            ("s3://key:pass@b/x", "s3://b/x"),
            ("s3://b/x?region=r&session=q", "s3://b/x?region=r"),
            ("abfs://a:k@b.host/x?sas_token=q", "abfs://b.host/x"),
            ("/data/s3", "/data/s3"),
        ],
    )
    def test_no_secret_is_shown(self, uri: str, shown: str) -> None:
        assert printable_root(uri) == shown
        assert printable_file(uri, "a.wav") == shown.partition("?")[0] + "/a.wav"

    def test_what_is_a_uri(self) -> None:
        uris = ["s3://b", "gs://b/x", "file:///x", "abfs+x://y"]
        assert [is_uri(text) for text in [*uris, "a/b", "/x://y", "C:\\x"]] == [True] * 4 + [
            False
        ] * 3
        assert split_uri("s3://k@b/x/m%20n.csv?region=r") == ("s3://k@b/x?region=r", "m n.csv")

    def test_a_file_uri_is_a_local_folder(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "my data", "a/1.wav", "b/2.wav")
        catalog = read_catalog(f"file://{tmp_path}/my%20data")
        assert catalog.root == str(root)
        assert catalog == read_catalog(root)
