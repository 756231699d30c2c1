from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.leakage import Leakage, audit, judge_copies
from pipelines.spec import Split
from pipelines.splits import TrackInfo
from pipelines.tracks import Track

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
