from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.settings import Split
from pipelines.sources.tracks import Track
from pipelines.splits.assign import TrackInfo
from pipelines.splits.leakage import Leak, Leakage, audit, judge_copies, leaking

SIDES: dict[str, Split] = {"p": "train", "q": "test", "r": "train", "s": "train"}


def infos(groups: str = "1234", labels: str = "aaaa") -> list[TrackInfo]:
    return [
        TrackInfo(name, label, group, path=f"{name}.wav")
        for name, label, group in zip("pqrs", labels, groups, strict=True)
    ]


class TestAudit:
    def test_nothing_is_shared(self) -> None:
        assert audit(infos(), SIDES) == Leakage(0, 0, passed=True)

    @pytest.mark.parametrize(
        ("groups", "exact", "near", "counts", "examples"),
        [
            ("1122", [], [], (1, 0, 0), [("group", "1: test, train")]),
            ("1234", [("p", "q")], [], (0, 1, 0), [("exact", "p.wav (train) = q.wav (test)")]),
            ("1234", [], [("q", "s")], (0, 0, 1), [("near", "q.wav (test) = s.wav (train)")]),
        ],
    )
    def test_each_kind_of_leak_alone_fails(
        self, groups: str, exact: list, near: list, counts: tuple, examples: list
    ) -> None:
        report = audit(infos(groups), SIDES, exact, near)
        found = (
            report.groups_shared,
            report.exact_duplicates_shared,
            report.near_duplicates_shared,
        )
        assert (found, report.passed) == (counts, False)
        assert list(report.examples) == examples

    def test_copies_on_one_side_and_unknown_ones_are_no_leak(self) -> None:
        report = audit(infos(), SIDES, [("p", "r"), ("q", "gone")], [("p", "s"), ("gone", "q")])
        assert report == Leakage(0, 0, passed=True)

    def test_a_copy_that_is_not_used_speaks_for_the_one_that_is(self) -> None:
        report = audit(infos(), SIDES, exact=[("gone", "p")], near=[("gone", "q")])
        assert (report.near_duplicates_shared, report.passed) == (1, False)
        assert report.examples == (("near", "p.wav (train) = q.wav (test)"),)
        assert audit(infos(), SIDES, [("gone", "p")], [("gone", "r"), ("gone", "p")]).passed

    def test_copies_with_two_classes_are_told_and_fail_only_over_a_border(self) -> None:
        report = audit(infos(labels="aaba"), SIDES, near=[("p", "r")])
        assert (report.label_conflicts, report.passed) == (1, True)
        assert report.examples == (("label", "p.wav (a) = r.wav (b)"),)
        report = audit(infos(labels="abaa"), SIDES, near=[("p", "q")])
        assert (report.label_conflicts, report.near_duplicates_shared) == (1, 1)
        assert not report.passed

    def test_clips_on_sides_of_their_own_never_pass(self) -> None:
        clips: dict[str, tuple[Split, ...]] = {"p": ("train", "test"), "q": ("train", "train")}
        report = audit(infos()[:2], clips, near=[("p", "q")])
        assert report.clip_split
        assert (report.groups_shared, report.near_duplicates_shared) == (1, 1)
        assert not report.passed
        one_side = audit(infos()[1:2], clips)
        assert (one_side.groups_shared, one_side.passed) == (0, False)

    def test_examples_are_few_of_every_kind_and_survive_json(self) -> None:
        names = [f"\udce9{n:03}" for n in range(100)]  # a name that is not UTF-8
        tracks = [TrackInfo(n, "a", "g", path=n) for n in names]
        sides: dict[str, Split] = {n: "train" if n[-1] in "02468" else "test" for n in names}
        pairs = list(itertools.pairwise(names))
        report = audit(tracks, sides, exact=pairs, near=pairs)
        assert (report.exact_duplicates_shared, report.near_duplicates_shared) == (99, 99)
        kinds = Counter(kind for kind, _ in report.examples)
        assert kinds == {"group": 1, "exact": 10, "near": 9}
        text = json.dumps(asdict(report), ensure_ascii=False)
        assert Leakage(**json.loads(text.encode())) == report


def track(name: str, label: str = "a", start_s: float = 0.0) -> Track:
    return Track(name, f"{name}.wav", label, start_s=start_s)


class TestCopies:
    def test_the_first_by_path_is_used(self) -> None:
        tracks = [track(name) for name in "cabd"]
        verdicts = judge_copies(tracks, [("c", "a"), ("b", "c")])
        assert verdicts == {
            "b": ("E_DUP", "same samples as a.wav"),
            "c": ("E_DUP", "same samples as a.wav"),
        }

    def test_with_several_classes_none_is_used(self) -> None:
        tracks = [track("a", "x"), track("b", "y"), track("c", "x"), track("d", "x")]
        verdicts = judge_copies(tracks, [("a", "b"), ("b", "c")])
        assert verdicts == {
            "a": ("E_LABEL_CONFLICT", "same samples as b.wav, which is listed as 'y'"),
            "b": ("E_LABEL_CONFLICT", "same samples as a.wav, which is listed as 'x'"),
            "c": ("E_LABEL_CONFLICT", "same samples as b.wav, which is listed as 'y'"),
        }

    def test_with_given_sides_the_test_is_never_changed_by_the_training_data(self) -> None:
        tracks = [track(name) for name in "abcd"]
        pairs = [("a", "b"), ("a", "c"), ("a", "d")]
        sides: dict[str, Split] = {"a": "train", "b": "val", "c": "test", "d": "test"}
        assert judge_copies(tracks, pairs, sides).keys() == {"a", "b", "d"}
        del sides["c"], sides["d"]
        assert judge_copies(tracks[:2], pairs, sides).keys() == {"a"}

    def test_segments_are_named_with_their_start(self) -> None:
        tracks = [Track("1", "a.wav", "x"), Track("2", "a.wav", "x", start_s=1.5)]
        tracks += [Track("3", "a.wav", "x", start_s=3.0)]
        verdicts = judge_copies(tracks[1:], [("2", "3")])
        assert verdicts == {"3": ("E_DUP", "same samples as a.wav from 1.5 s")}

    @settings(max_examples=100, deadline=None)
    @given(
        labels=st.text("xy", min_size=2, max_size=12),
        pairs=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=12),
        shuffle=st.randoms(use_true_random=False),
    )
    def test_one_of_each_set_is_used_or_none_and_the_order_does_not_matter(
        self, labels: str, pairs: list[tuple[int, int]], shuffle: random.Random
    ) -> None:
        tracks = [track(f"{n:02}", label) for n, label in enumerate(labels)]
        known = {t.track_id: t for t in tracks}
        named = [(f"{a:02}", f"{b:02}") for a, b in pairs if a != b]
        verdicts = judge_copies(tracks, named)
        for a, b in named:
            if a in known and b in known:
                assert a in verdicts or b in verdicts
                if known[a].label != known[b].label:
                    assert verdicts[a][0] == verdicts[b][0] == "E_LABEL_CONFLICT"
        mixed, turned = list(tracks), [(b, a) for a, b in named]
        shuffle.shuffle(mixed)
        shuffle.shuffle(turned)
        assert judge_copies(mixed, turned) == verdicts


def placed(**sides: Split) -> tuple[list[TrackInfo], dict[str, Split]]:
    """Tracks with groups of their own, on sides."""
    return [TrackInfo(name, "a", name, path=f"{name}.wav") for name in sides], sides


class TestLeaking:
    def test_the_copy_that_is_learned_from_goes_and_is_told(self) -> None:
        tracks, sides = placed(p="train", q="test", r="val", s="train")
        assert leaking(tracks, sides, near=[("p", "q")], exact=[("r", "s")]) == {
            "p": Leak("train", "in train, and the same recording as q.wav, which is in test"),
            "s": Leak("train", "in train, and the same recording as r.wav, which is in val"),
        }
        assert leaking(tracks, sides, near=[("p", "s")]) == {}

    def test_a_group_is_used_on_its_best_side_only(self) -> None:
        tracks, sides = infos("1123"), dict(SIDES)
        assert leaking(tracks, sides) == {
            "p": Leak("train", "in train, and of the same group as q.wav, which is in test")
        }
        assert leaking(infos("1213"), sides) == {}, "one side"

    def test_groups_whose_names_look_the_same_are_one_as_in_the_audit(self) -> None:
        tracks, sides = placed(p="train", q="test")
        tracks = [replace(tracks[0], group="\udce9"), replace(tracks[1], group="\\udce9")]
        assert not audit(tracks, sides).passed
        assert leaking(tracks, sides).keys() == {"p"}

    def test_a_copy_of_a_copy_goes_too(self) -> None:
        tracks, sides = placed(a="train", b="val", c="test", d="train")
        chain = [("a", "b"), ("b", "c")]
        found = leaking(tracks, sides, near=chain)
        assert {name: leak.side for name, leak in found.items()} == {"a": "train", "b": "val"}
        assert leaking(tracks, sides, near=chain[:1]).keys() == {"a"}
        through_unused = leaking(tracks, sides, exact=[("gone", "c")], near=[("d", "gone")])
        assert through_unused.keys() == {"d"}

    @settings(max_examples=200, deadline=None)
    @given(
        places=st.lists(
            st.tuples(st.sampled_from(["train", "val", "test"]), st.integers(0, 8)),
            min_size=1,
            max_size=14,
        ),
        pairs=st.lists(
            st.tuples(st.integers(0, 15), st.integers(0, 15), st.booleans()), max_size=10
        ),
        shuffle=st.randoms(use_true_random=False),
    )
    def test_what_is_left_passes_no_test_track_goes_and_none_goes_for_nothing(
        self,
        places: list[tuple[Split, int]],
        pairs: list[tuple[int, int, bool]],
        shuffle: random.Random,
    ) -> None:
        tracks = [TrackInfo(f"{n:02}", "a", f"g{group}") for n, (_, group) in enumerate(places)]
        sides = {track.track_id: side for track, (side, _) in zip(tracks, places, strict=True)}
        exact = [(f"{a:02}", f"{b:02}") for a, b, equal in pairs if equal and a != b]
        near = [(f"{a:02}", f"{b:02}") for a, b, equal in pairs if not equal and a != b]
        found = leaking(tracks, sides, exact, near)

        left = [track for track in tracks if track.track_id not in found]
        assert audit(left, sides, exact, near).passed
        assert "test" not in {sides[name] for name in found}
        # who belongs together, by walking from each track for itself
        for track in tracks:
            reached = {track.track_id}
            for _ in range(len(pairs)):
                reached |= {n for pair in exact + near if reached & {*pair} for n in pair}
            with_it = {sides[name] for name in reached if name in sides}
            with_it |= {sides[one.track_id] for one in tracks if one.group == track.group}
            best = next(side for side in ("test", "val", "train") if side in with_it)
            assert (track.track_id in found) == (sides[track.track_id] != best)

        mixed = list(tracks)
        shuffle.shuffle(mixed)
        turned = [(b, a) for a, b in reversed(near)]
        assert leaking(mixed, sides, reversed(exact), turned) == found
