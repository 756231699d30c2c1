from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pipelines.settings import Split
from pipelines.sources.tracks import Track
from pipelines.splits.leakage import Leakage, audit, judge_copies, leaking

SPLITS: dict[str, Split] = {"p": "train", "q": "test", "r": "train", "s": "train"}


Tracks = tuple[list[Track], dict[str, str]]


def tracks_of(groups: str = "1234", labels: str = "aaaa") -> Tracks:
    """Tracks and their groups."""
    tracks = [track(name, label) for name, label in zip("pqrs", labels, strict=True)]
    return tracks, dict(zip("pqrs", groups, strict=True))


def track(name: str, label: str = "a", start_s: float = 0.0) -> Track:
    return Track(name, f"{name}.wav", label, start_s=start_s)


class TestAudit:
    def test_nothing_is_shared(self) -> None:
        assert audit(*tracks_of(), SPLITS) == Leakage(0, 0, passed=True)

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
        report = audit(*tracks_of(groups), SPLITS, exact, near)
        found = (
            report.groups_shared,
            report.exact_duplicates_shared,
            report.near_duplicates_shared,
        )
        assert (found, report.passed) == (counts, False)
        assert list(report.examples) == examples

    def test_copies_on_one_split_and_unknown_ones_are_no_leak(self) -> None:
        report = audit(
            *tracks_of(), SPLITS, [("p", "r"), ("q", "gone")], [("p", "s"), ("gone", "q")]
        )
        assert report == Leakage(0, 0, passed=True)

    def test_a_copy_that_is_not_used_speaks_for_the_one_that_is(self) -> None:
        report = audit(*tracks_of(), SPLITS, exact=[("gone", "p")], near=[("gone", "q")])
        assert (report.near_duplicates_shared, report.passed) == (1, False)
        assert report.examples == (("near", "p.wav (train) = q.wav (test)"),)
        assert audit(*tracks_of(), SPLITS, [("gone", "p")], [("gone", "r"), ("gone", "p")]).passed

    def test_copies_with_two_classes_are_told_and_fail_only_across_splits(self) -> None:
        report = audit(*tracks_of(labels="aaba"), SPLITS, near=[("p", "r")])
        assert (report.label_conflicts, report.passed) == (1, True)
        assert report.examples == (("label", "p.wav (a) = r.wav (b)"),)
        report = audit(*tracks_of(labels="abaa"), SPLITS, near=[("p", "q")])
        assert (report.label_conflicts, report.near_duplicates_shared) == (1, 1)
        assert not report.passed

    def test_clips_in_splits_of_their_own_never_pass(self) -> None:
        clips: dict[str, tuple[Split, ...]] = {"p": ("train", "test"), "q": ("train", "train")}
        tracks, groups = tracks_of()
        report = audit(tracks[:2], groups, clips, near=[("p", "q")])
        assert report.clip_split
        assert (report.groups_shared, report.near_duplicates_shared) == (1, 1)
        assert not report.passed
        one_split = audit(tracks[1:2], groups, clips)
        assert (one_split.groups_shared, one_split.passed) == (0, False)

    def test_examples_are_few_of_every_kind_and_survive_json(self) -> None:
        names = [f"\udce9{n:03}" for n in range(100)]  # a name that is not UTF-8
        tracks = [Track(n, n, "a") for n in names]
        splits: dict[str, Split] = {n: "train" if n[-1] in "02468" else "test" for n in names}
        pairs = list(itertools.pairwise(names))
        report = audit(tracks, dict.fromkeys(names, "g"), splits, exact=pairs, near=pairs)
        assert (report.exact_duplicates_shared, report.near_duplicates_shared) == (99, 99)
        kinds = Counter(kind for kind, _ in report.examples)
        assert kinds == {"group": 1, "exact": 10, "near": 9}
        text = json.dumps(asdict(report), ensure_ascii=False)
        assert TypeAdapter(Leakage).validate_json(text.encode()) == report


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

    def test_with_given_splits_the_test_is_never_changed_by_the_training_data(self) -> None:
        tracks = [track(name) for name in "abcd"]
        pairs = [("a", "b"), ("a", "c"), ("a", "d")]
        splits: dict[str, Split] = {"a": "train", "b": "val", "c": "test", "d": "test"}
        assert judge_copies(tracks, pairs, splits).keys() == {"a", "b", "d"}
        del splits["c"], splits["d"]
        assert judge_copies(tracks[:2], pairs, splits).keys() == {"a"}

    def test_segments_are_named_with_their_start(self) -> None:
        tracks = [Track("1", "a.wav", "x"), Track("2", "a.wav", "x", start_s=1.5)]
        tracks += [Track("3", "a.wav", "x", start_s=3.0)]
        verdicts = judge_copies(tracks[1:], [("2", "3")])
        assert verdicts == {"3": ("E_DUP", "same samples as a.wav [1.5 s to end]")}

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


def placed(**splits: Split) -> tuple[list[Track], dict[str, str], dict[str, Split]]:
    """Tracks with groups of their own, and their splits."""
    return [track(name) for name in splits], {name: name for name in splits}, splits


class TestLeaking:
    def test_the_copy_that_is_learned_from_goes_and_is_told(self) -> None:
        data = placed(p="train", q="test", r="val", s="train")
        assert leaking(*data, near=[("p", "q")], exact=[("r", "s")]) == {
            "p": "in train, and the same recording as q.wav, which is in test",
            "s": "in train, and the same recording as r.wav, which is in val",
        }
        assert leaking(*data, near=[("p", "s")]) == {}

    def test_a_group_is_used_on_its_best_split_only(self) -> None:
        assert leaking(*tracks_of("1123"), SPLITS) == {
            "p": "in train, and of the same group as q.wav, which is in test"
        }
        assert leaking(*tracks_of("1213"), SPLITS) == {}, "one split"

    def test_groups_whose_names_look_the_same_are_one_as_in_the_audit(self) -> None:
        tracks, _, splits = placed(p="train", q="test")
        groups = {"p": "\udce9", "q": "\\udce9"}
        assert not audit(tracks, groups, splits).passed
        assert leaking(tracks, groups, splits).keys() == {"p"}

    def test_a_copy_of_a_copy_goes_too(self) -> None:
        data = placed(a="train", b="val", c="test", d="train")
        chain = [("a", "b"), ("b", "c")]
        assert leaking(*data, near=chain).keys() == {"a", "b"}
        assert leaking(*data, near=chain[:1]).keys() == {"a"}
        through_unused = leaking(*data, exact=[("gone", "c")], near=[("d", "gone")])
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
        tracks = [track(f"{n:02}") for n in range(len(places))]
        groups = {f"{n:02}": f"g{group}" for n, (_, group) in enumerate(places)}
        splits = {f"{n:02}": split for n, (split, _) in enumerate(places)}
        exact = [(f"{a:02}", f"{b:02}") for a, b, equal in pairs if equal and a != b]
        near = [(f"{a:02}", f"{b:02}") for a, b, equal in pairs if not equal and a != b]
        found = leaking(tracks, groups, splits, exact, near)

        left = [one for one in tracks if one.track_id not in found]
        assert audit(left, groups, splits, exact, near).passed
        assert "test" not in {splits[name] for name in found}
        # who belongs together, by walking from each track for itself
        for name in splits:
            reached = {name}
            for _ in range(len(pairs)):
                reached |= {n for pair in exact + near if reached & {*pair} for n in pair}
            with_it = {splits[other] for other in reached if other in splits}
            with_it |= {splits[other] for other in splits if groups[other] == groups[name]}
            best = next(split for split in ("test", "val", "train") if split in with_it)
            assert (name in found) == (splits[name] != best)

        mixed = list(tracks)
        shuffle.shuffle(mixed)
        turned = [(b, a) for a, b in reversed(near)]
        assert leaking(mixed, groups, splits, reversed(exact), turned) == found
