"""Reports: what stands on the page and in the tables, for studies whose numbers are known."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sklearn.metrics import precision_recall_fscore_support

from tests.tuner.studies import CONFUSION, LABELS, Script, finished_study
from tuner.report import write_report


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
        self.loads += [value for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def read(folder: Path) -> Reader:
    return Reader((folder / "report.html").read_text())


def test_page_says_who_won_by_how_much_and_the_test_score(tmp_path: Path) -> None:
    assert write_report(finished_study(), tmp_path) == tmp_path / "report.html"
    text = read(tmp_path).text
    # t1 reaches 0.9 * (1 - e^-2.5) = 0.8261, t0 0.8 * (1 - e^-2.5) = 0.7343
    assert "trial t1, val_f1_macro 0.826; best other 0.734 (+0.092)" in text
    assert "0.781 95 % interval 0.610 to 0.910" in text
    assert "Leakage audit passed" in text
    assert "57 tracks ok, 2 used with a remark, 1 not used, of 60 listed" in text
    assert "models:/quick@champion FILE" in text


def test_page_is_one_file(tmp_path: Path) -> None:
    write_report(finished_study(), tmp_path)
    page = read(tmp_path)
    assert page.loads
    assert all(address.startswith("data:image/png;base64,") for address in page.loads)
    assert "script" not in page.tags


def test_per_class_table_agrees_with_scikit_learn(tmp_path: Path) -> None:
    write_report(finished_study(), tmp_path)
    truth = [i for i, row in enumerate(CONFUSION) for n in row for _ in range(n)]
    answer = [j for row in CONFUSION for j, n in enumerate(row) for _ in range(n)]
    text = read(tmp_path).text
    for i, scores in enumerate(zip(*precision_recall_fscore_support(truth, answer), strict=True)):
        precision, recall, f1, tracks = scores
        assert f"{LABELS[i]} {tracks} {precision:.2f} {recall:.2f} {f1:.2f}" in text
    assert "house (2)" in text  # what techno is mostly taken for


def test_text_from_users_is_escaped(tmp_path: Path) -> None:
    records = finished_study()
    for record in records:
        if record["kind"] == "test":
            record["labels"] = ["<img src=x onerror=alert(1)>", "house & co", "techno"]
        if record["kind"] == "trial_end" and record["error"]:
            record["error"] = "<script>alert(2)</script>"
    write_report(records, tmp_path)
    page = read(tmp_path)
    assert "script" not in page.tags
    assert "x" not in page.loads
    assert "<script>alert(2)</script>" in page.text
    assert "house & co" in page.text


def test_a_leak_is_said_first(tmp_path: Path) -> None:
    write_report(finished_study(passed=False), tmp_path)
    text = read(tmp_path).text
    assert "Reasons for doubt" in text
    assert "Leakage audit LEAKY 2 shared groups, 0 equal tracks, 1 near-duplicates" in text
    words = "LEAKY: 2 groups, 1 pair of near-duplicates on two sides of the split"
    assert f"The data is {words}." in text
    assert "near: a (test) = b<i> (train)" in text


def test_clips_split_one_by_one_are_called_leaky(tmp_path: Path) -> None:
    records = finished_study(passed=False)
    for record in records:
        if record["kind"] == "features":
            record["features"][0]["leakage"]["clip_split"] = True
    write_report(records, tmp_path)
    text = read(tmp_path).text
    assert "Leakage audit LEAKY clips were split one by one" in text
    assert "clips of one recording are on several sides (data.split is clip)" in text


def test_leaderboard_is_ranked_and_safe_for_spreadsheets(tmp_path: Path) -> None:
    records = finished_study()
    for record in records:
        if record["kind"] == "trial":
            record["params"] = {"=cmd": "@SUM(1)", "optim.lr": -0.5}
    write_report(records, tmp_path)
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["trial_id"]) for row in rows] == [
        ("1", "t1"), ("2", "t0"), ("3", "t2"), ("", "t3"),
    ]  # fmt: skip
    assert rows[0]["'=cmd"] == "'@SUM(1)"
    assert rows[0]["optim.lr"] == "-0.5"  # a number, not a text that starts with a minus
    assert rows[3]["error"] == "loss is nan"


KINDS = ["study", "features", "trial", "epoch", "trial_end", "confirmed", "test", "registered"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_has_a_report_after_every_step(tmp_path: Path, kind: str) -> None:
    records = finished_study()
    first = next(i for i, record in enumerate(records) if record["kind"] == kind)
    write_report(records[: first + 1], tmp_path)
    assert "quick" in read(tmp_path).text


def test_figures_are_png_and_the_same_each_time(tmp_path: Path) -> None:
    write_report(finished_study(), tmp_path / "a")
    write_report(finished_study(), tmp_path / "b")
    for name in ("history.png", "confusion_matrix.png"):
        first = (tmp_path / "a" / "figures" / name).read_bytes()
        assert first.startswith(b"\x89PNG")
        assert first == (tmp_path / "b" / "figures" / name).read_bytes()


def test_study_without_a_successful_trial(tmp_path: Path) -> None:
    script = Script()
    script.study()
    script.features()
    script.trial("t0", 0)
    script.end("t0", "failed", 0.0, 0)
    script.add("study_end", status="failed", seconds={"total": 1.0})
    write_report(script.records, tmp_path)
    assert "no trial has succeeded" in read(tmp_path).text


def test_the_line_that_opens_the_trials_is_on_the_page(tmp_path: Path) -> None:
    line = "mlflow ui --backend-store-uri sqlite:////a&b/m.db  # then open http://x/#/y?z=1"
    write_report(finished_study(), tmp_path, line)
    assert " ".join(line.split()) in read(tmp_path).text
    write_report(finished_study(), tmp_path)
    assert "mlflow ui" not in read(tmp_path).text
