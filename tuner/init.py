"""The command ``audio-tuner init FOLDER``: a commented space file for a folder of audio."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import click

from pipelines.command import Command, ending
from pipelines.plain_text import echo


@click.command(cls=Command)
@click.argument("data", metavar="FOLDER")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
    help="File to write; - for the terminal; default: NAME.yaml.",
)  # fmt: skip
@click.option("--name", metavar="N", help="Name of the study; default: that of the folder.")
@click.option(
    "--storage", default="results", show_default=True, metavar="DIR", help="Folder of results."
)
@click.option("--label", metavar="COLUMN", help="Column of a manifest that holds the class.")
@click.option(
    "--audio-root", metavar="DIR", help="Folder that the paths of a manifest start from."
)
def main(
    data: str,
    output: Path | None,
    name: str | None,
    storage: str,
    label: str | None,
    audio_root: str | None,
) -> None:
    """Look at FOLDER (or a manifest, or a URI) and write a space file for it, with reasons.

    \b
    audio-tuner init my-music
    audio-tuner run my-music.yaml
    """  # noqa: D301 - click reads the control character
    with ending():
        name = name or name_of(data)
        is_shown = output == Path("-")
        file = Path(f"{name}.yaml") if output is None or is_shown else output
        text = starter_of(data, name, storage, file, label, audio_root)
        if is_shown:
            echo(text.rstrip("\n"))
            return
        _write(file, text)
    echo(f"{file} written; edit it if you like, then run:")
    echo(f"  python -m tuner.run {shlex.quote(str(file))}")


def name_of(data: str) -> str:
    """Return a name for a study of a folder, a manifest or a URI: its last part, cleaned."""
    from pipelines.sources.files import is_uri, split_uri
    from pipelines.sources.listing import SUFFIXES

    path = Path(split_uri(data)[1] if is_uri(data) else _absolute(data))
    if path.suffix.lower() in SUFFIXES:
        path = path.parent if path.stem == "manifest" else path.with_suffix("")
    return re.sub(r"[^A-Za-z0-9._-]+|^[._-]+", "-", path.name).strip("._-")[:64] or "study"


def _absolute(path: str) -> str:
    """Return the absolute path; links keep their names."""
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - pathlib keeps `..`


def starter_of(
    data: str,
    name: str,
    storage: str,
    file: Path,
    label: str | None = None,
    audio_root: str | None = None,
) -> str:
    """Look at a data set and write a space file for it.

    Args:
        data: Folder, manifest or URI.
        name: Name of the study, which has not begun.
        storage: Folder of the studies.
        file: File that the text is for.
        label: Column of a manifest that holds the class; None for ``label``.
        audio_root: Folder or URI that its paths start from; None for its own folder.

    Raises:
        UserError: There is no data that a study could use, or the name is invalid or taken.
    """
    from pipelines.sources.files import is_uri, printable_root
    from pipelines.storage import Folder
    from tuner.config import as_override, load
    from tuner.config.data import Place
    from tuner.config.starter import starter
    from tuner.errors import UsageError
    from tuner.study.features import check_source
    from tuner.study.surroundings import AtHand

    places = {"root": data} | ({} if audio_root is None else {"audio_root": audio_root})
    places = {key: one if is_uri(one) else _absolute(one) for key, one in places.items()}
    for address in places.values():
        if printable_root(address) != address:
            raise UsageError(
                f"a space file cannot hold the address {printable_root(address)!r}: it has a "
                "secret or characters that cannot be shown; rename the folder, or run "
                "search_spaces/auto.yaml with --data"
            )
    place = Place(**places, **({} if label is None else {"label": label}))
    around = AtHand(Folder.at(storage))
    if around.recorded(name) is not None:
        raise UsageError(f"there is a study {name!r} under {storage}; write --name OTHER")
    given = {key: value for key, value in place._asdict().items() if value is not None}
    asked = [as_override("name", name)]
    asked += [as_override(f"data.{key}", value) for key, value in given.items()]
    space = load(Path("auto"), asked, around)
    check_source(space, place.root)
    if unread := around.facts(place).unreadable_in_words():
        echo(f"warning: {unread}", err=True)
    return starter(space, around, shlex.quote(str(file)))


def _write(path: Path, text: str) -> None:
    """Write a new file.

    Raises:
        UsageError: It exists, or cannot be written.
    """
    from pipelines.permissions import open_to_umask
    from pipelines.storage import Folder
    from tuner.errors import UsageError

    if path.exists():
        raise UsageError(f"{path} exists; write -o OTHER, or delete it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Folder(path.parent).write_text(path.name, text)
        open_to_umask(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
