"""Begin a study: refuse changed settings, then write its first records once nothing can fail.

Until then a study that is new has no folder and no run in MLflow, and one that exists is as it
was: its data, the tracking store and Ray are there, and its feature sets are built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from tuner.config import Experiment, loads
from tuner.config.fill_in import DEMO_ROOT
from tuner.errors import StudyExistsError, UsageError
from tuner.ledger.extension import EXTENDED, changed_space, newest_of
from tuner.ledger.journal import first_record, recorded, state_of
from tuner.ledger.locate import locked
from tuner.ledger.model_name import name_of_data
from tuner.ledger.notes import extension_in_words, warm_start_in_words
from tuner.ledger.states import State
from tuner.study.extend import CHANGEABLE, extension
from tuner.study.features import refuse_other_audio
from tuner.study.warm_start import load_earlier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuner.config import Space
    from tuner.ledger.journal import Ledger, Record, StudyPaths
    from tuner.study.context import Context
    from tuner.study.extend import Request

# Settings that may change when a study resumes, because they do not affect its results.
FREE_TO_CHANGE = (
    "resources.", "search.budget", "search.max_epochs", "search.device_hours", "search.patience",
    "data.root", "data.audio_root", "reference",
)  # fmt: skip
INSTEAD = {"search.trials": " (--extend N adds N trials to those that it has)"}
BLOCKS = tuple(name for name in Experiment.model_fields if name not in ("name", "model"))


def refuse(space: Space, paths: StudyPaths, asked: Request | None = None) -> dict[str, Any] | None:
    """Check that a study can be begun, continued or extended as a command asks; write nothing.

    Args:
        space: Space to search.
        paths: Folders of the study.
        asked: What to add to it.

    Returns:
        The fields of the record that will extend it; None if it will not be extended.

    Raises:
        UserError: It cannot; says why.
    """
    if paths.storage.here().is_file():
        raise UserError(f"--storage: {paths.storage} is a file; name a folder")
    records = recorded(paths.folder)
    refuse_changes(space, records, asked is not None)
    if asked and not records:
        raise UsageError(
            f"--extend {asked.asked}: there is no study {paths.name!r} under {paths.storage}; "
            "leave the option out to begin it"
        )
    adds = extension(asked, space, records)
    if not records and space.template.search.warm_start:
        load_earlier(space, paths.storage, ())
    if asked or state_of(records) is not State.COMPLETED:
        refuse_other_audio(space, paths, records)
    return adds


def refuse_changes(space: Space, records: Sequence[Record], extends: bool = False) -> None:
    """Check that a study that has begun has the same settings.

    Args:
        space: The space that the command asks for.
        records: The ledger of the study; empty if it has not begun.
        extends: True if the command extends the study, which may change its ranges.

    Raises:
        StudyExistsError: The study has other settings; says which.
    """
    if not records:
        return
    before = changed_space(newest_of(records))
    settings, had = space.settings(), _defaults() | before["settings"]
    free = FREE_TO_CHANGE + (CHANGEABLE if extends else ())
    differences = [
        f"{name}: it has {had.get(name, 'nothing')}, this command {settings.get(name, 'nothing')}"
        + INSTEAD.get(name, "")
        for name in sorted({*had, *settings})
        if had.get(name) != settings.get(name) and not name.startswith(free)
    ]
    if differences:
        raise StudyExistsError(before["study"], differences)


def _defaults() -> dict[str, str]:
    """Return the defaults of all settings, for studies that began before some of them existed."""
    found = loads("{name: unnamed, model: {name: cnn}}").settings()
    return {name: text for name, text in found.items() if name.partition(".")[0] in BLOCKS}


def begin_study(study: Context) -> None:
    """Make a new study's folder, and write what is new of settings and features.

    Raises:
        UsageError: Another process has begun this study meanwhile.
    """
    if study.ledger.last("study") is None:
        study.held.enter_context(locked(study.paths.folder))
        study.paths.folder.remove_scratch()
        if first_record(study.paths.folder) is not None:
            raise UsageError(
                f"another process has begun the study {study.paths.name!r} meanwhile; the same "
                "command shows it, another --name starts a new one"
            )
        begin(study.space, study.paths, study.ledger)
        study.tracker.record(study.required("study"))
    else:
        study.record("resumed", started_ms=study.ledger.opened_ms)
        extended = study.ledger.last(EXTENDED)
        if study.extension is None and extended and not study.ledger.last("searched"):
            study.terminal.say(f"the extension by {extended['asked']} goes on")
        if study.extension:
            extended = study.record(EXTENDED, **study.extension)
            study.terminal.say(f"extended {extension_in_words(extended)}")
        write_settings(study.space, study.paths)
    known = (study.ledger.last("features") or {}).get("features")
    if known is None or len(known) < len(study.features):  # new alternatives need new sets
        study.record("features", features=study.features)
    if study.space.template.search.warm_start and study.ledger.last("warm_start") is None:
        sets = [one["fingerprint"] for one in study.features]
        # A study that resumes learns from the same trials, whatever becomes of the earlier one.
        earlier = load_earlier(study.space, study.paths.storage, sets)
        study.record("warm_start", studies=earlier)
        for one in earlier:
            study.terminal.say(f"warm start: {warm_start_in_words(one)}")


def begin(space: Space, paths: StudyPaths, ledger: Ledger) -> None:
    """Write the first record of a study, then its settings beside it."""
    ledger.append(
        "study", study=paths.name, started_ms=ledger.opened_ms,
        source=space.source, settings=space.settings(),
        config=space.template.model_dump(mode="json"), data=paths.data_shown,
        model=_model_name(space, paths), choices=[choice._asdict() for choice in space.choices],
        remarks=[f"{one.path}: {one.message}" for one in space.remarks],
    )  # fmt: skip
    write_settings(space, paths)


def _model_name(space: Space, paths: StudyPaths) -> str:
    """Return the name of the registered model; fixed here, because the data may move."""
    template = space.template
    data = DEMO_ROOT if template.data.root == DEMO_ROOT else paths.data_shown
    return template.registry.model or name_of_data(data)


def write_settings(space: Space, paths: StudyPaths) -> None:
    """Write the space file as it was read, and resolved."""
    paths.folder.write_text("space.yaml", space.source)
    paths.folder.write_text("resolved.yaml", space.to_yaml())
