from __future__ import annotations

import pytest

from pipelines.errors import SplitError
from pipelines.groups import assign_groups, count_groups, require_groups
from pipelines.spec import SplitSpec
from pipelines.tracks import Track


def tracks(**columns: str) -> list[Track]:
    """One track for each letter; each column gives one letter to each."""
    count = len(next(iter(columns.values()))) if columns else 4
    return [
        Track(f"t{n}", f"{n}.wav", "x", {name: text[n].strip() for name, text in columns.items()})
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("listed", "spec", "expected"),
    [
        (tracks(group="aabb", artist="cdcd"), "auto", ["a", "a", "b", "b"]),
        (tracks(artist="cdcd"), "auto", ["c", "d", "c", "d"]),
        (tracks(album="xyxy", artist="cdcd"), "album", ["x", "y", "x", "y"]),
        (tracks(artist="aabb"), "track", ["track:t0", "track:t1", "track:t2", "track:t3"]),
        (tracks(), "auto", ["track:t0", "track:t1", "track:t2", "track:t3"]),
        (tracks(artist="a ba"), "auto", ["a", "track:t1", "b", "a"]),
    ],
)
def test_where_groups_come_from(listed: list[Track], spec: str, expected: list[str]) -> None:
    groups = assign_groups(listed, SplitSpec(group=spec))
    assert [groups[track.track_id] for track in listed] == expected


def test_auto_joins_groups_that_share_a_recording() -> None:
    listed = tracks(artist="aabbccdd")
    copies = [("t1", "t2"), ("t3", "t4")]
    groups = assign_groups(listed, SplitSpec(), copies)
    assert list(groups.values()) == ["a"] * 6 + ["d"] * 2
    named = assign_groups(listed, SplitSpec(group="artist"), copies)
    assert list(named.values()) == list("aabbccdd")


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(SplitError, match="no column 'album'; it has artist"):
        assign_groups(tracks(artist="ab"), SplitSpec(group="album"))


def test_too_few_groups_are_shown_in_a_table() -> None:
    listed = tracks(artist="abcc")
    assert count_groups(listed, assign_groups(listed, SplitSpec())) == {"x": 3}
    require_groups({"x": 3})
    with pytest.raises(SplitError) as caught:
        require_groups({"jazz": 1, "rock": 12})
    assert "  jazz        1   too few\n  rock       12\n" in str(caught.value)
