"""The command line ``python -m tuner.report STUDY``: the report again, or MLflow's record."""

from __future__ import annotations

import functools
from contextlib import ExitStack

import click

from pipelines.command import Command, ending
from pipelines.permissions import private_umask
from pipelines.plain_text import echo


@click.command(cls=Command)
@click.argument("study")
@click.option(
    "--storage", default="results", show_default=True, metavar="DIR", help="Folder of results."
)
@click.option(
    "--replay", "is_replay", is_flag=True, help="Rebuild the record in MLflow from the folder."
)
@click.option(
    "--tracking-uri", metavar="URI", help="MLflow store; default: MLFLOW_TRACKING_URI, else DIR."
)
def main(study: str, storage: str, is_replay: bool, tracking_uri: str | None) -> None:
    """Write the report of STUDY again, from its ledger; STUDY is its name or its folder.

    \b
    python -m tuner.report first-try
    python -m tuner.report results/studies/first-try --replay --tracking-uri http://host:5000
    """  # noqa: D301 - click reads the control character
    with ending():
        write(study, storage, is_replay, tracking_uri)


def write(study: str, storage: str, is_replay: bool, uri: str | None = None) -> None:
    """Write the report of a study again, and its record in MLflow if asked.

    Raises:
        UsageError: There is no such study, or a process runs it.
        TrackingError: The store cannot be used.
    """
    from tuner.ledger.journal import recorded
    from tuner.ledger.locate import locked, study_folder
    from tuner.ledger.summary import summarise
    from tuner.report.page import write_report
    from tuner.tracking.mlflow_tracker import find_study
    from tuner.tracking.store import address_of

    folder = study_folder(study, storage)
    records = recorded(folder)
    address = address_of(folder.parent.parent.here(), uri)
    write = functools.partial(write_report, summarise(records), folder)
    with ExitStack() as stack:
        if is_replay:
            stack.enter_context(locked(folder))
            folder.remove_scratch()
            stack.enter_context(private_umask(folder.here()))
            from tuner.tracking.replay import replay

            said = replay(records, folder, address, write)
        else:
            line = find_study(address, records[0])
            write(line)
            said = [f"mlflow: {line}"] if line else []
    for sentence in (*said, f"report: {folder / 'report.html'}"):
        echo(sentence)


if __name__ == "__main__":
    main()
