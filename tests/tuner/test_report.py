"""The report page and its tables, for studies whose numbers are known."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sklearn.metrics import precision_recall_fscore_support

from pipelines.storage import Folder
from tests.hostile_names import HOSTILE
from tests.tuner.studies import CONFUSION, LABELS, Script, finished_study
from tuner.errors import decorating
from tuner.ledger.summary import summarise
from tuner.report import facts, training_figures
from tuner.report.figures import as_svg
from tuner.report.page import write_report


def report(records: list[dict], folder: Path, how_to_open: str | None = None) -> None:
    write_report(summarise(records), Folder.at(folder), how_to_open)


def untested(passed: bool = True) -> list[dict]:
    """The finished study without its test, of which less is drawn."""
    return [record for record in finished_study(passed=passed) if record["kind"] != "test"]


class Reader(HTMLParser):
    """Text and the addresses of what a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def read(folder: Path) -> Reader:
    return Reader((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The report of the finished study."""
    folder = tmp_path_factory.mktemp("finished")
    report(finished_study(), folder)
    return read(folder)


def test_page_says_who_won_by_how_much_and_the_test_score(page: Reader) -> None:
    text = page.text
    # 15 of 19 tracks are on the diagonal of `CONFUSION`, and 3 classes are guessed among.
    assert "classifies 15 of 19 test tracks correctly (79%)" in text
    assert "Random guessing among 3 classes would get 33% right" in text
    # t1 reaches 0.9 * (1 - e^-2.5) = 0.8261, t0 0.8 * (1 - e^-2.5) = 0.7343
    assert "trial t1, val_f1_macro 0.826; best other 0.734 (+0.092)" in text
    assert "0.781 Test macro F1, 95 % interval 0.610 to 0.910" in text
    assert "Leakage audit passed" in text
    assert "60 tracks, of which 57 are ok, 2 flagged but used and 1 skipped" in text
    assert "models:/quick@champion FILE" in text


def test_page_is_one_file(page: Reader) -> None:
    assert page.loads
    assert [address for address in page.loads if not address.startswith(("data:", "#"))] == []
    assert (
        page.tags.count("svg") == 7
    )  # scores, 2 x confusion, best so far, curves, losses, models
    assert "link" not in page.tags


def test_per_class_table_agrees_with_scikit_learn(page: Reader) -> None:
    truth = [i for i, row in enumerate(CONFUSION) for n in row for _ in range(n)]
    answer = [j for row in CONFUSION for j, n in enumerate(row) for _ in range(n)]
    text = page.text
    for i, scores in enumerate(zip(*precision_recall_fscore_support(truth, answer), strict=True)):
        precision, recall, f1, tracks = scores
        assert f"{LABELS[i]} {tracks} {precision:.2f} {recall:.2f} {f1:.2f}" in text
    assert "house (2)" in text  # what techno is mostly mistaken for


def test_text_from_users_is_escaped(tmp_path: Path) -> None:
    records = finished_study()
    for record in records:
        if record["kind"] == "test":
            record["labels"] = ["<img src=x onerror=alert(1)>", "$a$ & $b_$", "\x1b[31mred\x07"]
        if record["kind"] == "trial_end" and record["error"]:
            record["error"] = "<script>alert(2)</script>"
        if record["kind"] == "trial" and record["trial_id"] == "t0":
            record["config"]["model"]["name"] = "$x$<g>"
    report(records, tmp_path)
    page = read(tmp_path)
    assert page.tags.count("script") == 1  # the page's own
    assert "x" not in page.loads
    assert "<script>alert(2)</script>" in page.text
    assert "$a$ & $b_$" in page.text
    drawn = {path.stem: path.read_text() for path in (tmp_path / "figures").iterdir()}
    for svg in drawn.values():
        ElementTree.fromstring(svg)  # well-formed, whatever the names
    assert "$a$ &amp; $b_$" in drawn["confusion_matrix"]
    assert "$x$&lt;g&gt;" in drawn["families"]


def test_a_leak_is_said_first(tmp_path: Path) -> None:
    report(untested(passed=False), tmp_path)
    text = read(tmp_path).text
    assert "Read this score with care" in text
    assert "Leakage audit LEAKY 2 shared groups, 0 exact duplicates, 1 near-duplicate" in text
    words = "LEAKY: 2 groups, 1 pair of near-duplicates in more than one split"
    assert f"The data is {words};" in text
    assert "near: a (test) = b<i> (train)" in text


def test_clips_split_one_by_one_are_called_leaky(tmp_path: Path) -> None:
    records = untested(passed=False)
    for record in records:
        if record["kind"] == "features":
            record["features"][0]["leakage"]["clip_split"] = True
    report(records, tmp_path)
    text = read(tmp_path).text
    assert "Leakage audit LEAKY split by clip, not by track" in text
    assert "clips of one recording are in several splits (data.split is clip)" in text


def test_leaderboard_is_ranked_and_safe_for_spreadsheets(tmp_path: Path) -> None:
    records = untested()
    for record in records:
        if record["kind"] == "trial":
            record["params"] = {"=cmd": "@SUM(1)", "optim.lr": -0.5}
    report(records, tmp_path)
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["stage"], row["trial_id"], row["repeats"]) for row in rows] == [
        ("1", "search", "t1", ""), ("2", "search", "t0", ""), ("3", "search", "t2", ""),
        ("", "search", "t3", ""), ("", "confirm", "t1-s1", "t1"), ("", "confirm", "t1-s2", "t1"),
        ("", "final", "final-t1-s2", "t1-s2"),
    ]  # fmt: skip
    # 0.88 * (1 - e^-2.5)
    assert [row["val_f1_macro"][:6] for row in rows[4:]] == ["0.7802", "0.8077", "0.8077"]
    assert rows[0]["'=cmd"] == "'@SUM(1)"
    assert rows[0]["optim.lr"] == "-0.5"  # a number, not a text that starts with a minus
    assert rows[3]["error"] == "loss is nan"


def test_votes_are_shown_beside_the_winner(page: Reader) -> None:
    text = page.text
    assert "These rows are for comparison only" in text
    head = "val macro F1 test macro F1 95 % interval test accuracy 95 % interval models"
    assert head in text
    assert (
        "winner, hard vote over clips 0.800 0.733 0.633 to 0.833 0.743 0.500 to 0.950 "
        "t1-s2 (resnet18) soft vote of the confirmed models 0.830 0.801 0.701 to 0.901 0.811 "
        "0.500 to 0.950 t1-s2 (resnet18), t0-s1 (cnn) fusion, weights chosen on validation "
        "0.850 0.822"
    ) in text
    assert (
        "t1-s2 (resnet18) x 0.62, t2 (cnn) x 0.38 on the 17 validation and 17 test tracks that "
        "all models have; 4 left out"
    ) in text


def test_baselines_are_shown_beside_the_winner(page: Reader) -> None:
    text = page.text
    # The winner in the search: 0.9 * (1 - e^-2.5); its accuracy in this table is 0.01 higher.
    assert "confirmed winner 0.826 0.836 0.781 0.610 to 0.910 0.789 0.620 to 0.930" in text
    assert (
        "the most common class 0.170 0.180 0.160 0.060 to 0.260 0.170 0.200 to 0.700 "
        "ridge on log-mel statistics 0.610 0.620 0.580 0.480 to 0.680 0.590 0.200 to 0.700 "
        "ridge on a frozen embedding left out: the weights are not here guessing 0.333"
    ) in text


def test_a_vote_that_could_not_be_taken_is_said(tmp_path: Path) -> None:
    records = finished_study()
    for record in records:
        if record["kind"] == "ensemble":
            record |= {"rows": record["rows"][:2], "problems": ["fusion: t2 has <no> checkpoint"]}
    report(records, tmp_path)
    assert "fusion: t2 has <no> checkpoint" in read(tmp_path).text


def test_scores_are_shown_per_track_and_per_clip(page: Reader) -> None:
    text = page.text
    accuracy = sum(CONFUSION[i][i] for i in range(3)) / sum(map(sum, CONFUSION))
    assert f"tracks, soft vote {accuracy:.3f} 0.782 0.781 0.555" in text
    assert "tracks, hard vote 0.744 0.733" in text
    assert "clips 0.700 0.666" in text
    assert "95 % interval 0.620 to 0.930; 19 tracks, evaluated once" in text


def test_a_study_of_an_older_version_has_a_report(tmp_path: Path) -> None:
    records = [record for record in finished_study() if record["kind"] != "ensemble"]
    for record in records:
        if record["kind"] == "test":
            old = ("f1_macro", "accuracy", "clip_f1_macro", "ci95", "tracks")
            record["metrics"] = {name: record["metrics"][name] for name in old}
            del record["clip_confusion"], record["classes"]
    report(records, tmp_path)
    text = read(tmp_path).text
    assert "clips 0.700" in text
    assert "Votes and ensembles" not in text


RATES: list[float] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
LOSSES: list[float | None] = [2.3, 2.2, 1.5, 9.0, None]


@pytest.mark.parametrize("trial_id", ["t1-s2", "t1"])  # the run whose weights were taken, or first
def test_the_learning_rate_finder_of_the_winner_is_drawn(tmp_path: Path, trial_id: str) -> None:
    report(untested(), tmp_path)
    assert "Learning-rate finder" not in read(tmp_path).text
    assert not (tmp_path / "figures" / "lr_finder.svg").exists()
    path = tmp_path / "trials" / trial_id / "lr_finder.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"rates": RATES, "losses": LOSSES, "suggestion": 1e-3}))
    report(untested(), tmp_path)
    assert "Learning-rate finder of the winner" in read(tmp_path).text
    drawn = (tmp_path / "figures" / "lr_finder.svg").read_text()
    assert "suggested: 0.001" in drawn
    bare = training_figures.learning_rates(RATES, LOSSES, None)
    assert "suggested" not in as_svg(bare, "lr_finder")


@pytest.mark.parametrize("content", ["{", '{"rates": [1]}', '{"rates": 1, "losses": 2}'])
def test_a_finder_that_is_not_whole_is_left_out(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trials" / "t1-s2" / "lr_finder.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    report(untested(), tmp_path)
    assert "Learning-rate finder" not in read(tmp_path).text


def test_one_seed_reads_well(tmp_path: Path) -> None:
    records = untested()
    for record in records:
        if record["kind"] == "confirmed":
            record["seeds"] = 1
    report(records, tmp_path)
    text = read(tmp_path).text
    assert "Trained again with one new seed: val_f1_macro 0.790" in text
    assert "The winner was trained again with a single new seed" in text


KINDS = ["study", "features", "baselines", "trial", "epoch", "trial_end", "confirmed", "test"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_has_a_report_after_every_step(tmp_path: Path, kind: str) -> None:
    records = finished_study()
    first = next(i for i, record in enumerate(records) if record["kind"] == kind)
    report(records[: first + 1], tmp_path)
    assert "quick" in read(tmp_path).text


def test_a_report_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        report(untested(), tmp_path / name / "study")
    first, second = (
        {path.name: path.read_text() for path in (tmp_path / name).rglob("*.*")}
        for name in ("a", "b")
    )
    assert {"best_so_far.svg", "history.svg", "losses.svg", "families.svg"} <= first.keys()
    page = first.pop("report.html"), second.pop("report.html")
    assert first == second
    assert page[0].replace(str(tmp_path / "a"), "") == page[1].replace(str(tmp_path / "b"), "")


def test_study_without_a_successful_trial(tmp_path: Path) -> None:
    script = Script()
    script.study()
    script.features()
    for number in range(2):
        script.trial(f"t{number}", number)
        script.end(f"t{number}", "failed", 0.0, 0)
    script.add("study_end", status="failed", seconds={"total": 1.0})
    report(script.records, tmp_path)
    page = read(tmp_path)
    assert "no trial has succeeded" in page.text
    assert "failed: loss is nan" in page.text
    assert "svg" not in page.tags  # no figure without a value


def test_a_search_that_runs_reads_as_one(tmp_path: Path) -> None:
    script = Script()
    script.study()
    report(script.records, tmp_path)
    text = read(tmp_path).text
    assert "No trial has started." in text
    assert "Can this be trusted?" not in text  # nothing is known yet
    script.features()
    script.trial("t0", 0)
    script.epochs("t0", 0.8, range(1, 3))
    report(script.records, tmp_path)
    text = read(tmp_path).text
    assert "Not tested yet. No trial has ended yet." in text
    assert "0 completed, 0 stopped early, 0 failed, 1 running" in text
    assert "no trial has succeeded" not in text


def test_names_break_after_separators_and_numbers_never() -> None:
    broken = facts.breakable("val_f1_macro of optim.lr: 0.50 <b>")
    assert broken == "val_<wbr>f1_<wbr>macro of optim.<wbr>lr: 0.50 &lt;b&gt;"


def test_one_of_a_thing_is_singular(tmp_path: Path) -> None:
    records = untested()
    # The study has seven rows with its other stages; two more are one more than the page shows.
    for number in (8, 9):
        script = Script(start_ms=records[-1]["time_ms"])
        script.whole_trial(f"t{number}", number, 0.1)
        records += script.records
    report(records, tmp_path)
    assert "1 more trial #" in read(tmp_path).text


def test_the_line_that_opens_the_trials_is_on_the_page(tmp_path: Path) -> None:
    line = "mlflow ui --backend-store-uri sqlite:////a&b/m.db  # then open http://x/#/y?z=1"
    report(untested(), tmp_path, line)
    assert " ".join(line.split()) in read(tmp_path).text
    report(untested(), tmp_path)
    assert "mlflow ui" not in read(tmp_path).text


# -- what the stage ``explain`` recorded


def explained(**fields: Any) -> list[dict[str, Any]]:
    """The finished study with a record of why; versions as a stage writes them."""
    records = finished_study()
    record = {"kind": "explained", "seq": 0, "time_ms": records[-1]["time_ms"], "problems": []}
    return [*records, {**record, "versions": {"torch": "9.9"}, "machine": "2 CPUs", **fields}]


def mistake(**fields: Any) -> dict[str, Any]:
    return {
        "path": "techno/a.wav", "truth": "techno", "predicted": "house", "probability": 0.7,
        "true_probability": 0.2, "start_seconds": 3.0, "seconds": 2.0, "highest_hz": 11025.0,
        "sound": "mistakes/0.mp3", "picture": "mistakes/0.png", "problem": "", **fields,
    }  # fmt: skip


def test_mistakes_are_heard_as_long_as_their_files_exist_and_fit(tmp_path: Path) -> None:
    (tmp_path / "mistakes").mkdir()
    for number, size in enumerate((100, facts.MAX_EMBEDDED_BYTES)):
        (tmp_path / "mistakes" / f"{number}.mp3").write_bytes(bytes(size))
        (tmp_path / "mistakes" / f"{number}.png").write_bytes(b"picture")
    found = [
        mistake(),
        mistake(path="large.wav", sound="mistakes/1.mp3", picture="mistakes/1.png"),
        mistake(path="gone.wav", sound="mistakes/2.mp3"),
        mistake(path="moved.wav", sound="", picture="", problem="no such <file>"),
    ]
    report(explained(num_mistakes=4, mistakes=found), tmp_path)
    page = read(tmp_path)
    assert page.tags.count("audio") == 1
    assert [a[:15] for a in page.loads if a.startswith("data:audio")] == ["data:audio/mpeg"]
    assert "4 of 19 test tracks were misclassified" in page.text
    assert "techno/a.wav: 70 % house, 20 % techno over the whole track" in page.text
    assert re.search(
        r"left out to keep this page small; see .*mistakes/1.mp3 large.wav", page.text
    )
    assert re.search(r"the audio cannot be read: .*2.mp3.* gone.wav", page.text)
    assert "No audio: no such <file> moved.wav" in page.text


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [((0.02, 0.11), "more than noise"), ((-0.02, 0.15), "within noise")],
)
def test_what_tuning_bought_is_told_with_its_noise(
    tmp_path: Path, ends: tuple[float, float], verdict: str
) -> None:
    comparison = {
        "first": "t0", "split": "test", "before": 0.70, "after": 0.7807, "ci95": ends,
        "tracks": 19,
    }  # fmt: skip
    report(explained(comparison=comparison), tmp_path)
    text = read(tmp_path).text
    low, high = (f"{end:+.3f}" for end in ends)
    assert (
        "Gain from tuning +0.081 from 0.700 with the first configuration (t0) to 0.781: macro "
        "F1 on the same 19 test tracks; "
        f"95 % interval of the difference {low} to {high}: {verdict}"
    ) in text


def test_without_a_comparison_the_noise_of_the_scores_is_told(page: Reader) -> None:
    # t0 of the search and the mean over new seeds
    assert "+0.056 from 0.734 with the first configuration (t0) to 0.790" in page.text
    found = re.search(r"one standard error of a score on 60 tracks is (\S+)", page.text)
    assert found
    # the exact interval is somewhat wider than the normal one
    assert float(found[1]) == pytest.approx((0.79 * 0.21 / 60) ** 0.5, rel=0.15)


def test_classes_have_their_tracks_and_scores_by_split(tmp_path: Path) -> None:
    tracks = {"train": 20, "val": 5, "test": 6}
    records = explained(
        classes=dict.fromkeys(LABELS, tracks),
        val_confusion=[[4, 1, 0], [0, 5, 0], [0, 0, 5]],
        reasons={"E_DECODE": {"count": 2, "examples": ["<bad>.mp3"]}},
        problems=["mistakes: the disk is full"],
    )
    report(records, tmp_path)
    text = read(tmp_path).text
    assert "bass 20 5 6 0.89 0.83 0.83 0.83" in text  # F1 of 4 right, 1 missed: 8 / 9
    assert "E_DECODE rejected 2 <bad>.mp3" in text
    assert "torch 9.9" in text
    assert "Missing: mistakes: the disk is full" in text


def test_weak_classes_are_among_the_caveats(page: Reader) -> None:
    # Of techno 4 of 7 tracks are right; scipy.stats.binomtest(4, 7).proportion_ci() is 18 to 90 %.
    assert (
        "The weakest classes: techno (4 of 7 tracks, 95 % interval 18% to 90%), bass (5 of 6"
    ) in page.text


def test_reliability_is_drawn_before_and_after_calibration(tmp_path: Path) -> None:
    def measured(ece: float, confidence: float) -> dict[str, Any]:
        bins = [{"confidence": confidence, "accuracy": 0.8, "tracks": 19}]
        return {"ece": ece, "bins": bins}

    records = finished_study()
    for record in records:
        if record["kind"] == "test":
            record["reliability"] = {"before": measured(0.12, 0.92), "after": measured(0.03, 0.83)}
    report(records, tmp_path)
    told = "expected calibration error is 0.03, 0.12 before calibration"
    assert told in read(tmp_path).text
    assert "after calibration" in (tmp_path / "figures" / "reliability.svg").read_text()


def test_a_figure_that_fails_is_a_line_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:  # no data is known that makes one fail
        raise ValueError("no <room>")

    monkeypatch.setattr("tuner.report.training_figures.losses", fail)
    report(untested(), tmp_path)
    assert "Missing: figure losses: no <room>" in read(tmp_path).text
    assert (tmp_path / "figures" / "history.svg").exists()


def test_no_name_of_a_class_or_an_error_costs_the_report(tmp_path: Path, capsys) -> None:
    records = finished_study()
    for record in records:
        if record["kind"] == "test":
            k = len(HOSTILE)
            record |= {"labels": list(HOSTILE), "clip_confusion": None}
            record["confusion"] = [[int(i == j) for i in range(k)] for j in range(k)]
        if record["kind"] == "trial":
            record["params"] = {f"key {name}": name for name in HOSTILE}
        if record["kind"] == "trial_end" and record["error"]:
            record["error"] = "".join(HOSTILE)
    report(records, tmp_path)
    assert capsys.readouterr().err == ""
    page = read(tmp_path)
    assert page.tags.count("script") == 1  # the page's own
    assert "{{ 7*7 }}" in page.text
    assert "Missing" not in page.text
    for path in (tmp_path / "figures").iterdir():
        ElementTree.parse(path)  # well-formed, whatever the names
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 8  # the head, and seven trials


def test_a_part_of_the_report_that_fails_is_one_line(tmp_path: Path, capsys) -> None:
    records = finished_study()
    for record in records:
        if record["kind"] == "test":
            record["labels"] = ["bass", "house"]  # the figure has three classes
    (tmp_path / "leaderboard.csv").mkdir()
    with decorating("the report"):  # as a study calls it
        report(records, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("warning: ") and "the result stands" in line for line in lines)
    assert (tmp_path / "figures" / "history.svg").exists()


def test_a_report_waits_for_neither_torch_nor_ray_nor_mlflow() -> None:
    code = "import sys; sys.modules |= dict.fromkeys(['torch', 'ray', 'mlflow']); "
    code += "import tuner.ledger.summary, tuner.report.page, tuner.tracking.mlflow_tracker"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
