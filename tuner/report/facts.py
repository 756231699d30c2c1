"""The facts of the report as words and rows, so that its template computes nothing."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape

from tuner.ledger.course import gain
from tuner.ledger.trial_rows import REFIT
from tuner.report.score_figures import ScoreLine
from tuner.training.metrics import SCORES, per_class
from tuner.training.uncertainty import exact_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipelines.storage import Folder
    from tuner.ledger.explanation import Mistake
    from tuner.ledger.summary import Summary
    from tuner.ledger.trust import ClassRow

MAX_EMBEDDED_BYTES = 3_000_000  # of sounds and spectrograms, as the page holds them
TOP_ROWS, MAX_ROWS = 8, 100  # trials at once, and with those behind a click; the CSV has all
MAX_CLASSES = 16  # in the table at once
MAX_WEAK = 3  # weak classes that the caveats name


# -- the score


def headline(study: Summary) -> str:
    """Return the result of a tested study in a sentence or two."""
    assert study.test is not None
    scores, k = study.test.metrics, len(study.test.labels)
    right = round(scores["accuracy"] * scores["tracks"])
    majority = next((one.test for one in study.baselines if one.name == "majority"), None)
    always = majority["accuracy"] if majority else study.test.commonest_share
    model = "" if study.is_fused or study.winner is None else f", {study.winner.model},"
    return (
        f"The {study.tested}{model} classifies {right} of {scores['tracks']} test tracks "
        f"correctly ({scores['accuracy']:.0%}). Random guessing among {k} classes would get "
        f"{1 / k:.0%} right, always predicting the most common one {always:.0%}."
    )


def score_lines(study: Summary) -> list[ScoreLine]:
    """Return the tested model, the first configuration, the baselines and guessing, best first."""
    if (test := study.test) is None:
        return []
    chance = 1 / len(test.labels)
    others = [
        ScoreLine(one.title, one.test["f1_macro"], one.test.get("ci95"))
        for one in study.baselines
        if one.test
    ]
    found = gain(study)
    if found and found.split == "test":
        others.append(ScoreLine(found.title, found.before))
    others.append(ScoreLine("random guessing", chance))
    others.sort(key=lambda one: -one.score)
    scores = test.metrics
    tested = ScoreLine(f"the {study.tested}", scores["f1_macro"], scores["ci95"], is_tested=True)
    return [tested, *others]


def score_rows(study: Summary) -> list[tuple[str, list[float | None]]]:
    """Return all test scores: counted in tracks by soft and hard vote, and in clips."""
    if study.test is None:
        return []
    found = study.test.metrics
    ways = (("tracks, soft vote", "", "log_loss"), ("tracks, hard vote", "hard_", ""),
            ("clips", "clip_", "loss"))  # fmt: skip
    # Studies of early versions lack some scores, and fusions all that count clips.
    return [
        (words, [*(found.get(prefix + name) for name in SCORES), found.get(loss)])
        for words, prefix, loss in ways
        if prefix + "f1_macro" in found
    ]


# -- the classes


class ClassFacts(NamedTuple):
    """One class: its tracks by split, and its scores on validation and test."""

    tracks: Mapping[str, int]
    val_f1: float | None
    test: ClassRow


def class_rows(study: Summary) -> list[ClassFacts]:
    """Return the classes of a tested study; many are sorted, the weakest first."""
    if study.test is None:
        return []
    told = study.explanation
    val: list[float] = []
    if told.val_confusion is not None:
        val = per_class(np.array(told.val_confusion))[2].tolist()
    found = [
        ClassFacts(told.classes.get(row.label, {}), val[i] if val else None, row)
        for i, row in enumerate(study.test.classes)
    ]
    return found if len(found) <= MAX_CLASSES else sorted(found, key=lambda one: one.test.f1)


def weak_classes(study: Summary) -> str:
    """Name the classes that the test recognises least, if some are missed; empty if none."""
    if study.test is None:
        return ""
    missed = [row for row in study.test.classes if row.tracks and row.recall < 1]
    worst = sorted(missed, key=lambda row: row.recall)[:MAX_WEAK]
    if not worst or worst[0].recall >= study.test.metrics["accuracy"]:
        return ""
    named = []
    for row in worst:
        low, high = exact_interval(row.recall, row.tracks)
        hits = round(row.recall * row.tracks)
        named.append(
            f"{row.label} ({hits} of {row.tracks} tracks, 95 % interval {low:.0%} to {high:.0%})"
        )
    return f"the weakest {'class' if len(named) == 1 else 'classes'}: {', '.join(named)}"


def calibration_in_words(study: Summary) -> str:
    """Return how to read the figure of reliability, and what it says."""
    found = study.test.reliability if study.test else {}
    if not found:
        return ""
    mean = f"The expected calibration error is {found['after']['ece']:.2f}"
    if found["before"] != found["after"]:
        mean += f", {found['before']['ece']:.2f} before calibration"
    return (
        "Test tracks binned by confidence; below the line the model is overconfident, and bars "
        f"are 95 % intervals. {mean}."
    )


# -- the mistakes


class Heard(NamedTuple):
    """A mistake with its sound and spectrogram as addresses of data, or why there is none."""

    mistake: Mistake
    sound: str
    picture: str
    problem: str


def heard(study: Summary, folder: Folder) -> list[Heard]:
    """Return the mistakes that the study cut, with as many sounds as the page may hold."""
    return [*_heard(study, folder)]


def _heard(study: Summary, folder: Folder) -> Iterator[Heard]:
    left = MAX_EMBEDDED_BYTES
    for one in study.explanation.mistakes:
        if not one.sound:
            yield Heard(one, "", "", one.problem)
            continue
        try:
            sound = _inline(folder.read_bytes(one.sound), "audio/mpeg")
            picture = _inline(folder.read_bytes(one.picture), "image/png")
        except OSError as error:
            yield Heard(one, "", "", f"the audio cannot be read: {error}")
            continue
        if (left := left - len(sound) - len(picture)) < 0:
            yield Heard(one, "", "", f"left out to keep this page small; see {folder / one.sound}")
            continue
        yield Heard(one, sound, picture, "")


def _inline(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# -- how it was made


class Searched(NamedTuple):
    """A setting that was searched: its range, and the winner's value."""

    name: str
    range: str
    winner: str


def searched_settings(study: Summary) -> list[Searched]:
    """Return the settings that were searched."""
    names = dict.fromkeys(name for row in study.trials for name in row.params)
    chosen = study.winner.read_params if study.winner else {}
    return [
        Searched(name, study.settings.get(name, ""), shown(chosen[name]) if name in chosen else "")
        for name in names
    ]


def fixed_settings(study: Summary) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the settings that no trial varied, by block of the space file."""
    varied = {name for row in study.trials for name in row.params}
    blocks: dict[str, list[tuple[str, str]]] = {}
    for name, text in study.settings.items():
        if name not in varied and name not in ("name", "model"):
            block, _, rest = name.partition(".")
            blocks.setdefault(block, []).append((rest or name, text))
    return list(blocks.items())


def shown(value: Any) -> str:
    """Return a value of a setting in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def breakable(name: object) -> Markup:
    """Return a name that a narrow page breaks after its separators before it breaks a word."""
    return Markup(re.sub(r"(?<=\w)(_|\.(?=[^\W\d]))(?=\w)", r"\1<wbr>", str(escape(name))))


def lr_finder(study: Summary, folder: Folder) -> dict[str, Any] | None:
    """Read what the winning run's learning-rate finder measured; None if it did not run."""
    if study.confirm is None:
        return None
    run = study.confirm.run_trial_id
    for trial_id in (f"{REFIT}{run}", run, study.confirm.trial_id):
        try:
            found = (folder / "trials" / trial_id).read_json("lr_finder.json")
            if len(found["rates"]) == len(found["losses"]):
                return {key: found[key] for key in ("rates", "losses", "suggestion")}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # missing or incomplete
    return None
