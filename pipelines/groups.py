"""Which tracks belong together and may not be on two sides of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import SplitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipelines.spec import SplitSpec
    from pipelines.tracks import Track

# The manifest columns that `auto` takes, best first.
AUTO_COLUMNS = ("group", "artist")
MIN_GROUPS = 3  # one for each side

Pair = tuple[str, str]


def assign_groups(
    tracks: Sequence[Track], spec: SplitSpec, copies: Iterable[Pair] = ()
) -> dict[str, str]:
    """The group of each track.

    With `auto`, groups that hold copies of one recording are joined, whatever column they come
    from; with a column named in the spec, groups are as that column says and copies over a
    border are left to the audit.

    Args:
        tracks: the tracks.
        spec: where groups come from.
        copies: pairs of track_ids that are the same recording.

    Returns:
        track_id -> name of the group. A track with an empty cell is a group of its own.

    Raises:
        SplitError: The spec names a column that the manifest does not have.
    """
    column = group_column(tracks, spec)
    names = {track.track_id: _name(track, column) for track in tracks}
    if spec.group not in ("auto", "track"):
        return names
    joined = _join(names.values(), [(names[a], names[b]) for a, b in copies])
    return {track: joined[name] for track, name in names.items()}


def group_column(tracks: Sequence[Track], spec: SplitSpec) -> str | None:
    """The manifest column that groups come from; None means the track itself.

    Raises:
        SplitError: The spec names a column that the manifest does not have.
    """
    columns = sorted({name for track in tracks for name in track.columns})
    if spec.group == "track":
        return None
    if spec.group == "auto":
        return next((name for name in AUTO_COLUMNS if name in columns), None)
    if spec.group not in columns:
        raise SplitError(
            f"group: the data has no column {spec.group!r}; it has "
            f"{', '.join(columns) or 'no columns beside path and label'}; write one of these, "
            "auto or track"
        )
    return spec.group


def count_groups(tracks: Sequence[Track], groups: Mapping[str, str]) -> dict[str, int]:
    """Distinct groups of each class, classes in order."""
    found: dict[str, set[str]] = {}
    for track in tracks:
        found.setdefault(track.label, set()).add(groups[track.track_id])
    return {label: len(names) for label, names in sorted(found.items())}


def require_groups(counts: Mapping[str, int]) -> None:
    """Refuses classes that cannot be on all three sides.

    Raises:
        SplitError: A class has fewer than three groups; the text lists all classes.
    """
    short = [label for label, count in counts.items() if count < MIN_GROUPS]
    if not short:
        return
    width = max(len(label) for label in [*counts, "class"])
    table = [f"  {'class':<{width}}  groups"]
    table += [
        f"  {label:<{width}}  {count:>6}{'   too few' if count < MIN_GROUPS else ''}"
        for label, count in counts.items()
    ]
    raise SplitError(
        f"{_plural(len(short), 'class has', 'classes have')} fewer than {MIN_GROUPS} groups: "
        f"{', '.join(short)}\n" + "\n".join(table) + "\n"
        "Training, validation and test each need a group of their own from every class. Add "
        "recordings of other groups to these classes, leave the classes out, or name the column "
        "that tells recordings apart as the group (`track`: every file for itself)."
    )


def _name(track: Track, column: str | None) -> str:
    value = track.columns.get(column, "") if column else ""
    return value if value else f"track:{track.track_id}"


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _join(names: Iterable[str], pairs: Iterable[Pair]) -> dict[str, str]:
    """Union-find: each name to the smallest name that it is connected with."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for first, other in pairs:
        low, high = sorted((root(first), root(other)))
        parent[high] = low
    return {name: root(name) for name in parent}
