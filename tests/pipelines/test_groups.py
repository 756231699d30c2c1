from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import SplitError
from pipelines.settings import SplitSpec
from pipelines.sources.tracks import Track, track_id
from pipelines.splits.groups import assign_groups, count_groups, require_groups


def tracks(**columns: str) -> list[Track]:
    """One track for each letter; each column gives one letter to each."""
    count = len(next(iter(columns.values()))) if columns else 4
    return [
        Track(f"t{n}", f"{n}.wav", "x", {name: text[n].strip() for name, text in columns.items()})
        for n in range(count)
    ]


def tagged(listed: list[Track], artists: list[str]) -> dict[str, dict[str, str]]:
    pairs = zip(listed, artists, strict=True)
    return {track.track_id: {"artist": artist} if artist else {} for track, artist in pairs}


@pytest.mark.parametrize(
    ("listed", "spec", "expected"),
    [
        (tracks(group="aabb", artist="cdcd"), "auto", ["a", "a", "b", "b"]),
        (tracks(artist="cdcd"), "auto", ["c", "d", "c", "d"]),
        (tracks(group="    ", artist="cdcd"), "auto", ["c", "d", "c", "d"]),
        (tracks(album="xyxy", artist="cdcd"), "album", ["x", "y", "x", "y"]),
        (tracks(artist="aabb"), "track", ["track:t0", "track:t1", "track:t2", "track:t3"]),
        (tracks(), "auto", ["track:t0", "track:t1", "track:t2", "track:t3"]),
        (tracks(artist="a ba"), "auto", ["a", "track:t1", "b", "a"]),
        (tracks(), r"path:^([01])\.", ["0", "1", "track:t2", "track:t3"]),
        (tracks(), r"path:(x)?\.wav", ["track:t0", "track:t1", "track:t2", "track:t3"]),
    ],
)
def test_where_groups_come_from(listed: list[Track], spec: str, expected: list[str]) -> None:
    names = assign_groups(listed, SplitSpec(group=spec)).names
    assert [names[track.track_id] for track in listed] == expected


@pytest.mark.parametrize(
    ("listed", "spec", "expected"),
    [
        (tracks(artist="cdcd"), "auto", "the column 'artist'"),
        (
            tracks(artist="a ba"),
            "auto",
            "the column 'artist' (1 of 4 files has none and is a group of its own)",
        ),
        (tracks(), "auto", "the file"),
        (
            tracks(),
            r"path:^([01])\.",
            r"the path, by '^([01])\\.' (2 of 4 files have none and are groups of their own)",
        ),
        (
            tracks(),
            "tag:album",
            "the tag album of the files (4 of 4 files have none and are groups of their own)",
        ),
    ],
)
def test_it_is_said_where_groups_come_from(listed: list[Track], spec: str, expected: str) -> None:
    assert assign_groups(listed, SplitSpec(group=spec)).source == expected


def test_auto_joins_groups_that_share_a_recording() -> None:
    listed = tracks(artist="aabbccdd")
    copies = [("t1", "t2"), ("t3", "t4"), ("t0", "gone")]
    found = assign_groups(listed, SplitSpec(), copies)
    assert list(found.names.values()) == ["a"] * 6 + ["d"] * 2
    assert found.source == (
        "the column 'artist'; 2 groups were joined to others with the same recordings"
    )
    named = assign_groups(listed, SplitSpec(group="artist"), copies)
    assert list(named.names.values()) == list("aabbccdd")


def test_a_copy_that_is_not_used_still_joins_what_is_like_it() -> None:
    listed = tracks(artist="abcd")
    copies = [("gone", "t0"), ("t1", "gone"), ("gone too", "t2")]
    found = assign_groups(listed, SplitSpec(), copies)
    assert list(found.names.values()) == list("aacd")
    assert "1 group was joined" in found.source


@pytest.mark.parametrize("spec", ["auto", "track"])
def test_segments_of_a_file_stay_together_whatever_else_is_known(spec: str) -> None:
    columns = [{"artist": name} for name in "pqrs"]
    listed = [
        Track("s1", "a.wav", "x", columns[0], 0.0, 5.0),
        Track("s2", "a.wav", "y", columns[1], 5.0, None),
        Track(track_id("a.wav"), "a.wav", "x", columns[2]),
        Track("other", "b.wav", "x", columns[3]),
    ]
    names = list(assign_groups(listed, SplitSpec(group=spec)).names.values())
    assert names[0] == names[1] == names[2] != names[3]


class TestTags:
    def test_one_artist_in_many_spellings(self) -> None:
        listed = tracks()
        tags = tagged(listed, ["Björk", "BJO\u0308RK ", " björk", "Sigur  Rós"])
        names = assign_groups(listed, SplitSpec(group="tag:artist"), (), tags).names
        assert list(names.values()) == ["artist:björk"] * 3 + ["artist:sigur rós"]

    @pytest.mark.parametrize(
        "name", ["", "Various Artists", "unknown artist", " UNKNOWN ", "V.A.", "<unknown>"]
    )
    def test_placeholders_are_no_artist(self, name: str) -> None:
        listed = tracks()
        tags = tagged(listed, ["a", name, name, "a"])
        names = assign_groups(listed, SplitSpec(group="tag:artist"), (), tags).names
        assert list(names.values()) == ["artist:a", "track:t1", "track:t2", "artist:a"]

    def test_auto_takes_them_when_most_files_have_one(self) -> None:
        listed = tracks(x="." * 10)
        eight = ["a", "a", "b", "b", "c", "c", "d", "d", "", ""]
        found = assign_groups(listed, SplitSpec(), (), tagged(listed, eight))
        assert count_groups(listed, found.names) == {"x": 6}
        assert found.source.startswith("the tag artist of the files (2 of 10")
        seven = [*eight[:7], "", "", ""]
        found = assign_groups(listed, SplitSpec(), (), tagged(listed, seven))
        assert found.source == "the file (only 7 of 10 have a tag artist)"
        assert count_groups(listed, found.names) == {"x": 10}

    def test_auto_leaves_them_when_a_class_would_have_too_few(self) -> None:
        listed = tracks(x="." * 6)
        found = assign_groups(listed, SplitSpec(), (), tagged(listed, list("aabbab")))
        assert found.source == ("the file (by the tag artist, 'x' would have too few groups)")
        assert count_groups(listed, found.names) == {"x": 6}

    def test_auto_prefers_a_column(self) -> None:
        listed = tracks(artist="pqrs")
        found = assign_groups(listed, SplitSpec(), (), tagged(listed, ["a"] * 4))
        assert found.source == "the column 'artist'"


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(SplitError, match="no column 'album'; it has artist"):
        assign_groups(tracks(artist="ab"), SplitSpec(group="album"))


def test_too_few_groups_are_shown_in_a_table() -> None:
    listed = tracks(artist="abcc")
    assert count_groups(listed, assign_groups(listed, SplitSpec()).names) == {"x": 3}
    require_groups({"x": 3})
    with pytest.raises(SplitError) as caught:
        require_groups({"jazz": 1, "rock": 12})
    assert "  jazz        1   too few\n  rock       12\n" in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(
    artists=st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=2, max_size=20),
    pairs=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=10),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_order_of_tracks_and_copies_does_not_matter(
    artists: list[str], pairs: list[tuple[int, int]], shuffle: random.Random
) -> None:
    listed = [
        Track(f"t{n:02}", f"{n}.wav", "x", {"artist": artist}) for n, artist in enumerate(artists)
    ]
    listed += [replace(track, track_id=f"s{track.track_id}", start_s=1.0) for track in listed[:3]]
    copies = [(f"t{a:02}", f"t{b:02}") for a, b in pairs]
    found = assign_groups(listed, SplitSpec(), copies)
    known = {track.track_id for track in listed}
    assert all(found.names[a] == found.names[b] for a, b in copies if {a, b} <= known)
    mixed, turned = list(listed), [(b, a) for a, b in copies]
    shuffle.shuffle(mixed)
    shuffle.shuffle(turned)
    assert assign_groups(mixed, SplitSpec(), turned) == found


SPELLINGS = (
    ["Amber Quay", "amber  quay", "AMBER QUAY feat. Ada", "Amber Quay (ft. Ada)"],
    ["Beyonce\u0301", "Beyonc\u00e9"],
)
UNKNOWN = ["Various Artists", "unknown artist", "[Unknown]", "N/A"]


@pytest.mark.parametrize("source", ["auto", "artist", "tag:artist"])
def test_an_artist_is_one_however_it_is_spelled_and_wherever_it_comes_from(source: str) -> None:
    first, second = SPELLINGS
    artists = [*first, *second, *UNKNOWN]
    listed = [Track(f"t{n}", f"{n}.wav", "x", {}) for n in range(len(artists))]
    tags: dict[str, dict[str, str]] = {}
    if source == "tag:artist":
        tags = tagged(listed, artists)
    else:
        pairs = zip(listed, artists, strict=True)
        listed = [replace(track, columns={"artist": artist}) for track, artist in pairs]
    found = assign_groups(listed, SplitSpec(group=source), tags=tags)
    names = [found.names[track.track_id] for track in listed]
    assert len(set(names[: len(first)])) == 1
    assert len({*names[len(first) : -len(UNKNOWN)]}) == 1
    assert names[-len(UNKNOWN) :] == [f"track:t{n}" for n in range(6, 10)]
    assert "; 2 names have several spellings: 'AMBER QUAY feat. Ada' = " in found.source


def test_letter_by_letter_on_request() -> None:
    listed = [
        Track(f"t{n}", f"{n}.wav", "x", {"artist": name})
        for n, name in enumerate(["Amber Quay", "amber quay", "Various Artists"])
    ]
    found = assign_groups(listed, SplitSpec(group="exact:artist"))
    assert found.names == {"t0": "Amber Quay", "t1": "amber quay", "t2": "Various Artists"}
    assert found.source == "the column 'artist', letter by letter"
