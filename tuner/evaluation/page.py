"""An evaluation as a page of Markdown, for the terminal and for a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.plain_text import code, for_markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tuner.evaluation.result import Result

MAX_CLASSES = 20  # of a confusion matrix; a larger one lists the pairs that are confused
MAX_PAIRS = 20


def page(result: Result, model: str, data: str) -> str:
    """Return the page of an evaluation.

    Args:
        result: The evaluation.
        model: Reference of the model, as the user wrote it.
        data: Address of the data, without secrets.
    """
    return "\n".join(_lines(result, model, data)) + "\n"


def _lines(result: Result, model: str, data: str) -> Iterator[str]:
    yield f"# {code(model)} on {code(data)}"
    yield from ("", _sentence(result.headline()), "")
    yield from (f"- **Note:** {_sentence(one)}" for one in result.warnings())
    yield from ("", "## How far this audio is from the training data", "")
    yield from (f"- {_sentence(one)}" for one in result.findings())
    yield from ("", "## Classes", "", *_classes(result))
    yield from ("", "## Confusion", "", *_confusion(result))
    yield from ("", "## Reliability", "", *_reliability(result))


def _classes(result: Result) -> Iterator[str]:
    distances = result.distance.classes if result.distance else {}
    rows = []
    for row in result.evaluation.classes:
        scores = [f"{value:.3f}" for value in (row.precision, row.recall, row.f1)]
        far = f"{distances[row.label]:.1f}" if row.label in distances else ""
        rows.append([code(row.label), row.tracks, *scores, for_markdown(row.mistaken_for), far])
    heads = ("class", "tracks", "precision", "recall", "F1", "mistaken for", "distance")
    yield from table(heads, rows)
    if distances:
        yield ""
        yield (
            "Distance: from the mean of the tracks to the mean of the class in training, "
            "in standard deviations of a training track."
        )


def _confusion(result: Result) -> Iterator[str]:
    labels, counts = result.evaluation.labels, result.evaluation.confusion
    if len(labels) <= MAX_CLASSES:
        rows = [[code(name), *map(int, row)] for name, row in zip(labels, counts, strict=True)]
        yield "Tracks by true class (rows) and predicted class (columns)."
        yield ""
        yield from table(["", *map(code, labels)], rows)
        return
    pairs = [
        (int(counts[i, j]), i, j)
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j and counts[i, j]
    ]
    rows = [[code(labels[i]), code(labels[j]), n] for n, i, j in sorted(pairs, reverse=True)]
    yield from table(("true class", "predicted", "tracks"), rows[:MAX_PAIRS])


def _reliability(result: Result) -> Iterator[str]:
    found = result.reliability
    yield (
        f"Log loss {found.log_loss:.3f} nats, expected calibration error {found.ece:.3f}. In a "
        "calibrated model, confidence and accuracy are equal in every row."
    )
    yield ""
    rows = [
        [f"{one['from']:.1f} to {one['to']:.1f}", one["tracks"],
         f"{one['confidence']:.2f}", f"{one['accuracy']:.2f}"]
        for one in found.bins
    ]  # fmt: skip
    yield from table(("confidence", "tracks", "mean confidence", "accuracy"), rows)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield the lines of a table, padded so that it can be read as text."""
    cells = [list(map(str, row)) for row in (heads, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(heads))]
    cells.insert(1, ["-" * width for width in widths])
    for row in cells:
        yield f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))} |"


def _sentence(text: str) -> str:
    """Return a finding, which may hold names of a user, as a Markdown sentence."""
    return for_markdown(text[:1].upper() + text[1:]) + "."
