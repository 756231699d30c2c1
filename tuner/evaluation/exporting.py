"""Export a model as a folder for other programs: weights, card, programs and an example."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.permissions import open_to_umask
from pipelines.storage import Folder
from tuner.errors import UsageError
from tuner.evaluation.model_card import card, public_source
from tuner.evaluation.programs import ONNX, PT2, save_programs
from tuner.models.settings import PRETRAINED
from tuner.training.bundle import BUNDLE, EMBEDDING, MODEL, save_bundle
from tuner.training.exported import member_folder, save_fusion
from tuner.training.profile import PROFILE, save_profile

if TYPE_CHECKING:
    from tuner.evaluation.waveform_models import Program
    from tuner.training.predictor import Predictor, TrainedModel

EXAMPLE = "example.py"
ABOUT = "model.json"


def check_target(target: Path) -> None:
    """Check that a folder can be made, before the model is loaded.

    Raises:
        UsageError: Something is there that is not an empty folder.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(
            f"{target} is a {'link' if target.is_symlink() else 'file'}; name a folder"
        )
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty; name a new folder, nothing is overwritten")


def export(model: TrainedModel, target: Path) -> dict[str, str]:
    """Export a model; the folder appears with all its files, or not at all.

    Args:
        model: The model.
        target: A new or empty folder.

    Returns:
        What each file is, or why it is missing.

    Raises:
        UsageError: The folder is not empty.
        OSError: It cannot be written.
    """
    target = target.absolute()
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)  # for everybody, as a user's own folders are
    try:
        with Folder(target.parent).building(target.name, replaces=False) as scratch:
            files = _fill(model, scratch)
    except OSError:
        check_target(target)  # somebody may have filled it meanwhile
        raise
    for path in (target, *target.rglob("*")):
        open_to_umask(path)
    return files


def _fill(model: TrainedModel, folder: Path) -> dict[str, str]:
    members, weights = model.members, model.weights
    members = tuple(map(_without_paths, members))
    is_fusion = len(members) > 1
    for number, one in enumerate(members):
        _save(one, member_folder(folder, number) if is_fusion else folder)
    if is_fusion:
        save_fusion(folder, weights, dict(model.origin))
    program, reason = save_programs(model, folder)
    rate = max(model.sample_rates)
    about = {
        "labels": list(model.labels), "sample_rate": rate, "takes": program.takes,
        "clip_samples": program.length, "least_samples": program.least,
    }  # fmt: skip
    Folder(folder).write_json(ABOUT, about)
    (folder / EXAMPLE).write_text(_example(program, members[0]), encoding="utf-8")
    where = f"member0/{MODEL}, ..." if is_fusion else MODEL
    files = {
        where: "weights, in safetensors",
        BUNDLE: "settings of the model, which `python -m tuner.predict` reads with its weights",
        PT2: "program for torch.export.load, with its front end; needs torch alone",
        ONNX: f"left out: {reason}" if reason else "the same program as ONNX",
        ABOUT: "class names, sample rate and lengths",
        EXAMPLE: "classifies a file with model.pt2",
    }
    if members[0].profile:
        files[f"member0/{PROFILE}, ..." if is_fusion else PROFILE] = (
            "description of the training tracks, for python -m tuner.evaluate"
        )
    shown = replace(model, members=members) if is_fusion else members[0]  # type: ignore[arg-type]
    (folder / "README.md").write_text(card(shown, program.takes, files), encoding="utf-8")
    return files


def _without_paths(one: Predictor) -> Predictor:
    """Return a model whose description names no folder of this machine."""
    bundle, profile, path = one.bundle, one.profile, one.bundle.model.initial_weights
    if path and path != PRETRAINED and path not in bundle.model.published:
        named = bundle.model.model_copy(update={"weights": Path(path).name})
        bundle = replace(bundle, model=named)
    if profile:
        profile = replace(profile, source=public_source(profile.source))
    return replace(one, bundle=bundle, profile=profile)


def _save(one: Predictor, folder: Path) -> None:
    state = one.classifier.state_dict()
    if one.embedding is not None:
        state |= {EMBEDDING + name: value for name, value in one.embedding.state_dict().items()}
    save_bundle(folder, one.bundle, state)
    if one.profile:
        save_profile(Folder(folder), one.profile)


def _example(program: Program, one: Predictor) -> str:
    """Return a short program that cuts a file as `pipelines.features.extract.cut` does."""
    clip, rate = one.bundle.clip, one.bundle.feature.sample_rate
    least = program.length or program.least
    filled = f"sound.repeat(-(-{least} // len(sound)))[: max({least}, len(sound))]"
    if program.length is None or clip.short != "repeat":
        filled = f"torch.nn.functional.pad(sound, (0, max(0, {least} - len(sound))))"
    last = f"len(sound) - {least}"
    if clip.hop_seconds is not None:
        starts = f"range(0, {last} + 1, {round(clip.hop_seconds * rate)})"
    elif clip.clips_per_track and clip.clips_per_track > 1:
        number = clip.clips_per_track
        starts = (
            f"torch.linspace(0, {last}, {number}, dtype=torch.float64).round().long().unique()"
        )
    else:
        starts = f"[({last}) // 2]"
    clips = f"torch.stack([sound[i : i + {least}] for i in {starts}])"
    if program.length is None:
        clips = "sound[None]"
    return f'''"""Classify an audio file with torch, soundfile and soxr: python {EXAMPLE} FILE."""
import json, pathlib, sys, warnings, soundfile, soxr, torch

if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_file():
    sys.exit("usage: python {EXAMPLE} FILE")
warnings.filterwarnings("ignore", "The given buffer is not writable")  # how torch reads files
folder = pathlib.Path(__file__).parent
about = json.loads((folder / "{ABOUT}").read_text())
model = torch.export.load(folder / "{PT2}").module()
try:
    sound, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
except soundfile.SoundFileError as error:
    sys.exit(str(error))
sound = torch.from_numpy(soxr.resample(sound.mean(1), rate, about["sample_rate"]))
sound = {filled}
clips = {clips}
print(dict(zip(about["labels"], model(clips).mean(0).tolist())))
'''
