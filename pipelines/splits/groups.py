"""Groups of tracks that belong together and must stay in one split."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.errors import SplitError
from pipelines.plain_text import first_few
from pipelines.settings import SplitSpec
from pipelines.sources.tracks import Track, track_id

# Manifest columns that ``auto`` uses, best first.
AUTO_COLUMNS = ("group", "artist")
MIN_GROUPS = 3  # one for each split
# ``auto`` uses artist tags if at least this share of the tracks has one. Below it, most groups
# would be single tracks anyway, and the few large ones would only look like a rule.
MIN_TAGGED_SHARE = 0.8

# What programs write for an unknown name; docs/your-own-audio.md lists them.
_PLACEHOLDERS = frozenset(
    {
        *("", "-", "?", "none", "n/a", "na", "null", "unknown", "<unknown>", "[unknown]"),
        *("unknown artist", "unknown album", "unknown title", "untitled", "no artist", "no album"),
        *("various artists", "various", "va", "v.a.", "v/a", "diverse interpreten", "diverse"),
        *("artist", "album", "track", "default"),
    }
)

# Prefix for the ids of tracks outside the data; sorts last, so that it never names a group.
_LAST = "\U0010ffff"

Pair = tuple[str, str]
_Names = dict[str, str]  # track_id -> group

# Another artist, who does not make a song one of another group.
_GUEST = re.compile(r"\s(?:[(\[](?:feat|ft|featuring)\b\.?|(?:feat|featuring)\b\.?|ft\.)\s.*")
_SHOWN = 3


@dataclass(frozen=True)
class Groups:
    """The groups of the tracks of a data set.

    Attributes:
        names: track_id -> name of its group.
        source: Description of where the groups come from.
    """

    names: Mapping[str, str]
    source: str


def assign_groups(
    tracks: Sequence[Track],
    spec: SplitSpec,
    copies: Iterable[Pair] = (),
    tags: Mapping[str, Mapping[str, str]] | None = None,
) -> Groups:
    """Assign each track to a group.

    ``auto`` uses the first source that exists: the column ``group``, the column ``artist``, the
    artist in the files' tags (if at least 80 % of the tracks have one and each class has at
    least three), the file. With ``auto`` and ``track``, groups that share a recording or a file
    are joined. With an explicit rule (a column, ``tag:``, ``path:``), the rule decides, and the
    audit reports what two splits share. Names that differ in Unicode form, case, blanks or a
    guest (``feat.``) are one; placeholders such as ``Various Artists`` are none. ``exact:COLUMN``
    takes the values of a column letter by letter.

    Args:
        tracks: Tracks.
        spec: Split settings with the source of the groups.
        copies: Pairs of ids of tracks that are the same recording; ids of unused tracks join
            groups too.
        tags: track_id -> tags ``artist`` and ``album`` of the file, if it has them.

    Returns:
        The groups. A track that the rule does not cover is a group of its own.

    Raises:
        SplitError: The settings name a column that the manifest does not have.
    """
    kind, _, rule = spec.group.partition(":")
    if spec.group == "auto":
        names, source = _automatic(tracks, list(copies), tags or {})
    elif spec.group == "track":
        names, source = _joined(tracks, {}, copies, "the file")
    elif kind == "tag":
        names, joined = _from_tags(tracks, tags or {}, rule)
        source = f"the tag {rule} of the files{_alone(tracks, names)}{joined}"
    elif kind == "path":
        names = _from_paths(tracks, rule)
        source = f"the path, by {rule!r}{_alone(tracks, names)}"
    elif kind == "exact":
        _require_column(tracks, rule)
        names = _cells(tracks, rule)
        source = f"the column {rule!r}, letter by letter{_alone(tracks, names)}"
    else:
        _require_column(tracks, spec.group)
        names, joined = _from_column(tracks, spec.group)
        source = f"the column {spec.group!r}{_alone(tracks, names)}{joined}"
    return Groups({**{t.track_id: _own(t) for t in tracks}, **names}, source)


def count_groups(tracks: Sequence[Track], names: Mapping[str, str]) -> dict[str, int]:
    """Count the distinct groups of each class, classes in order."""
    found: dict[str, set[str]] = {}
    for track in tracks:
        found.setdefault(track.label, set()).add(names[track.track_id])
    return {label: len(groups) for label, groups in sorted(found.items())}


def require_groups(counts: Mapping[str, int]) -> None:
    """Check that every class has enough groups for a train, validation and test split.

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
    number = "1 class has" if len(short) == 1 else f"{len(short)} classes have"
    raise SplitError(
        f"{number} fewer than {MIN_GROUPS} groups: "
        f"{', '.join(short)}\n" + "\n".join(table) + "\n"
        "Train, validation and test each need a group of their own from every class. Add "
        "recordings of other groups to these classes, remove the classes, or name a column that "
        "distinguishes recordings as the group (`track`: one group per file)."
    )


def joined_names(names: Iterable[str], pairs: Iterable[Pair]) -> dict[str, str]:
    """Map each name to the smallest name that it is connected with (union-find)."""
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


def _automatic(
    tracks: Sequence[Track], copies: list[Pair], tags: Mapping[str, Mapping[str, str]]
) -> tuple[_Names, str]:
    for column in AUTO_COLUMNS:
        names, joined = _from_column(tracks, column)
        if names:
            source = f"the column {column!r}{_alone(tracks, names)}{joined}"
            return _joined(tracks, names, copies, source)
    tagged, joined = _from_tags(tracks, tags, "artist")
    if not tagged:
        return _joined(tracks, {}, copies, "the file")
    if len(tagged) < MIN_TAGGED_SHARE * len(tracks):
        share = f"only {len(tagged)} of {len(tracks)} have a tag artist"
        return _joined(tracks, {}, copies, f"the file ({share})")
    names, source = _joined(
        tracks, tagged, copies, f"the tag artist of the files{_alone(tracks, tagged)}{joined}"
    )
    counts = count_groups(tracks, names)
    if few := [label for label, count in counts.items() if count < MIN_GROUPS]:
        reason = f"by the tag artist, {', '.join(map(repr, few[:3]))} would have too few groups"
        return _joined(tracks, {}, copies, f"the file ({reason})")
    return names, source


def _joined(
    tracks: Sequence[Track], names: _Names, copies: Iterable[Pair], source: str
) -> tuple[_Names, str]:
    """Join groups that share a recording or a file, and say so in the source."""
    full = {track.track_id: names.get(track.track_id) or _own(track) for track in tracks}
    known = set(full.values())
    # All segments of a file, and the file itself if it is listed too, join the first one.
    first: dict[str, str] = {}
    segments = [(track.track_id, first.setdefault(track.path, track.track_id)) for track in tracks]
    # A copy that is not used itself still connects the tracks that are like it.
    pairs = [
        (full.get(a, f"{_LAST}{a}"), full.get(b, f"{_LAST}{b}")) for a, b in [*copies, *segments]
    ]
    names_met = {*full.values(), *itertools.chain(*pairs)}
    ends = {name: end for name, end in joined_names(names_met, pairs).items() if name in known}
    if lost := len(ends) - len(set(ends.values())):
        were = "1 group was" if lost == 1 else f"{lost} groups were"
        source += f"; {were} joined to others with the same recordings"
    return {track: ends[name] for track, name in full.items()}, source


def _cells(tracks: Sequence[Track], column: str) -> _Names:
    return {t.track_id: value for t in tracks if (value := t.columns.get(column, ""))}


def _from_column(tracks: Sequence[Track], column: str) -> tuple[_Names, str]:
    return _by_name(_cells(tracks, column))


def _require_column(tracks: Sequence[Track], column: str) -> None:
    columns = sorted({name for track in tracks for name in track.columns})
    if column not in columns:
        raise SplitError(
            f"group: the data has no column {column!r}; it has "
            f"{', '.join(columns) or 'only path and label'}; write one of these, "
            "auto, track, tag:artist, tag:album or path: and a regular expression"
        )


def _from_tags(
    tracks: Sequence[Track], tags: Mapping[str, Mapping[str, str]], tag: str
) -> tuple[_Names, str]:
    names, joined = _by_name({t.track_id: tags.get(t.track_id, {}).get(tag, "") for t in tracks})
    return {track: f"{tag}:{_normal(name)}" for track, name in names.items()}, joined


def _by_name(spelled: Mapping[str, str]) -> tuple[_Names, str]:
    """Return one of the spellings of each name for all of them, and say which were joined."""
    spellings: dict[str, set[str]] = {}
    for text in spelled.values():
        spellings.setdefault(_normal(text), set()).add(text)
    chosen = {name: min(texts) for name, texts in spellings.items() if name}
    names = {
        track: chosen[name] for track, text in spelled.items() if (name := _normal(text)) in chosen
    }
    several = [sorted(spellings[name]) for name in chosen if len(spellings[name]) > 1]
    if not several:
        return names, ""
    shown = first_few([" = ".join(map(repr, texts[:_SHOWN])) for texts in sorted(several)])
    were = "1 name has" if len(several) == 1 else f"{len(several)} names have"
    return names, f"; {were} several spellings: {shown}"


def _normal(name: str) -> str:
    """Normalise the spelling of a name; return an empty text for placeholders."""
    name = _GUEST.sub("", " ".join(unicodedata.normalize("NFC", name).casefold().split()))
    return "" if name in _PLACEHOLDERS else name


def _from_paths(tracks: Sequence[Track], rule: str) -> _Names:
    pattern = re.compile(rule)
    found = {track.track_id: pattern.search(track.path) for track in tracks}
    return {name: match[1] for name, match in found.items() if match and match[1]}


def _own(track: Track) -> str:
    """Return the group of a track about which nothing is known: its file."""
    return f"track:{track.track_id if track.whole else track_id(track.path)}"


def _alone(tracks: Sequence[Track], names: Mapping[str, str]) -> str:
    """Describe the tracks that a rule does not cover."""
    lacking = len(tracks) - len(names)
    if not lacking:
        return ""
    own = "has none and is a group of its" if lacking == 1 else "have none and are groups of their"
    return f" ({lacking} of {len(tracks)} files {own} own)"
