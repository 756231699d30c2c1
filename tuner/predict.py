"""The command line of prediction: ``python -m tuner.predict MODEL FILE...``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.interruption import Interruption

if TYPE_CHECKING:
    from pipelines.audio.sandbox import Decoder
    from tuner.training.predictor import TrainedModel, VoteKind


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    Attributes:
        path: Path as it was given.
        label: The class with the most votes; None if the file could not be read.
        probabilities: Share of each class, most probable first; empty without a label.
        clips: Number of clips that voted.
        vote: Method of combining the clips' predictions.
        error: Reason for a missing label.
    """

    path: str
    label: str | None
    probabilities: dict[str, float]
    clips: int
    vote: VoteKind
    error: str | None = None


def load_model(reference: str, tracking_uri: str) -> TrainedModel:
    """Load a model by name, by run, or from an exported folder.

    Args:
        reference: ``models:/name@champion``, ``models:/name/3``, ``runs:/ID``, a run's id, or a
            folder that holds ``bundle.json``.
        tracking_uri: MLflow store that knows names and runs; not used for a folder.

    Raises:
        UsageError: There is no such model.
        TrackingError: The store cannot be used.
        CheckpointError: The model is damaged.
    """
    from tuner.errors import UsageError
    from tuner.training.exported import load_exported

    if Path(reference).is_dir():
        return load_exported(Path(reference))
    is_run = len(reference) == 32 and set(reference) <= set("0123456789abcdef")
    if not (is_run or reference.startswith(("models:/", "runs:/"))):
        raise UsageError(
            f"{reference}: no such folder; MODEL is models:/NAME@champion, models:/NAME/3, "
            "runs:/ID, a run's id, or the folder model/ of a study"
        )
    from tuner.tracking.registry import fetch_bundle

    with tempfile.TemporaryDirectory() as folder:
        return load_exported(fetch_bundle(tracking_uri, reference, Path(folder)))


def predict_file(
    path: Path, model: TrainedModel, vote: VoteKind = "soft", decoder: Decoder | None = None
) -> Prediction:
    """Decode a file and let the model vote, with the functions used in training.

    If the file cannot be read, the prediction has no label and says why.

    Args:
        path: The audio file.
        model: The model.
        vote: Method of combining the clips' predictions.
        decoder: A separate process that decodes, so that a file that crashes it costs only its
            own prediction; without one, this process decodes.
    """
    import numpy as np

    from pipelines.audio import decode
    from pipelines.errors import AudioRejected

    read = decoder.decode_path if decoder else decode
    try:
        sounds = {rate: read(path, rate).samples for rate in model.sample_rates}
    except (AudioRejected, OSError) as error:
        return Prediction(str(path), None, {}, 0, vote, str(error))
    votes = model.votes(sounds, vote)
    # Ties go to the class that is more probable on average, then to the first one.
    ranked = np.lexsort((-votes.mean, -votes.shares))
    shares = {model.labels[i]: float(votes.shares[i]) for i in ranked}
    return Prediction(str(path), next(iter(shares)), shares, votes.num_clips, vote)


def audio_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Replace each folder among the paths by the audio files below it, sorted."""
    from pipelines.sources.files import EXTENSIONS

    for path in paths:
        if path.is_dir():
            found = (p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            yield from sorted(p for p in found if p.is_file())
        else:
            yield path


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@click.option(
    "--vote", type=click.Choice(["soft", "hard"]), default="soft", show_default=True,
    help="Average the clips' probabilities, or count the clips each class wins.",
)  # fmt: skip
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, metavar="K",
    help="Number of classes to show for each file.",
)  # fmt: skip
@click.option(
    "--tracking-uri", metavar="U", help="MLflow; default: MLFLOW_TRACKING_URI, else DIR."
)
@click.option(
    "--storage", type=click.Path(path_type=Path), default=Path("results"), show_default=True,
    metavar="DIR", help="Folder of the studies.",
)  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per file, each on a line."
)
@Interruption(lambda: "interrupted")
def main(
    model: str,
    files: tuple[Path, ...],
    tracking_uri: str | None,
    storage: Path,
    **shown: Any,
) -> None:
    """Classify each FILE; for a folder, all audio files in it.

    \b
    MODEL is one of
      models:/NAME@champion   the champion of a study
      models:/NAME/3          a version of a registered model
      runs:/ID or ID          an MLflow run
      DIR                     the folder model/ of a study
    """  # noqa: D301 - click reads the backspace as a paragraph that keeps its lines
    from pipelines.audio.sandbox import Decoder
    from pipelines.errors import UserError
    from pipelines.plain_text import echo
    from tuner.errors import UsageError

    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    uri = uri or f"sqlite:///{storage.resolve() / 'mlflow.db'}"
    try:
        paths = list(audio_files(files))
        if not paths:
            raise UsageError(f"no audio files under {', '.join(map(str, files))}")
        trained = load_model(model, uri)
        failed = False
        with Decoder() as decoder:
            for path in paths:
                prediction = predict_file(path, trained, shown["vote"], decoder)
                failed = failed or prediction.error is not None
                _show(prediction, shown["top"], shown["as_json"])
    except UserError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(3 if failed else 0)


def _show(prediction: Prediction, top: int, as_json: bool) -> None:
    from pipelines.plain_text import echo, printable

    path = printable(prediction.path)
    if as_json:
        echo(json.dumps(asdict(prediction)))
    elif prediction.label is None:
        echo(f"{path}  error: {printable(prediction.error)}", err=True)
    else:
        shares = list(prediction.probabilities.items())[:top]
        words = "  ".join(f"{label} {share:.3f}" for label, share in shares)
        echo(f"{path}  {printable(words)}")


if __name__ == "__main__":
    main()
