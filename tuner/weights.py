"""The command line of published weights: ``python -m tuner.weights [fetch NAME...]``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from pipelines.command import Group, ending
from pipelines.plain_text import echo

if TYPE_CHECKING:
    from tuner.models.published import Published


class _Commands(Group):
    """Commands, with a hint for a name of weights in the place of one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            raise click.UsageError(
                f"No such command {args[0]!r}; to fetch weights, write: fetch {args[0]}", ctx
            ) from None


@click.group(cls=_Commands, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per row.")
@click.pass_context
def main(context: click.Context, as_json: bool) -> None:
    """List the published weights that a space file can name."""
    if context.invoked_subcommand:
        return
    from tuner.models.published import published

    for row in published().values():
        echo(json.dumps(_as_data(row)) if as_json else _in_words(row))


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def fetch(names: tuple[str, ...]) -> None:
    """Fetch weights into this machine's cache, and print where they are."""
    from pipelines.features.networks import unknown
    from tuner.errors import UsageError
    from tuner.models.published import published

    with ending():
        known = published()
        if absent := [name for name in names if name not in known]:
            raise UsageError(unknown("weights", absent[0], known))
        for name in names:
            known[name].fetch()
            echo(f"{name}  {known[name].find()}")


def _as_data(row: Published) -> dict[str, object]:
    shown = ("name", "use", "num_bytes", "licence", "trained_on", "source")
    return {**{key: getattr(row, key) for key in shown}, "here": row.find() is not None}


def _in_words(row: Published) -> str:
    here = "here" if row.find() else f"{row.num_bytes / 1e6:.0f} MB to fetch"
    return (
        f"{row.name}  ({here}, {row.licence})\n"
        f"    trained on {row.trained_on}; from {row.source}\n"
        f"    {row.use}"
    )


if __name__ == "__main__":
    main()
