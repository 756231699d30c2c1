"""Begin a study: refuse changed settings, then write its first records once nothing can fail.

Until then a study that is new has no folder and no run in MLflow, and one that exists is as it
was: its data, the tracking store and Ray are there, and its feature sets are built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.config import Experiment, loads
from tuner.config.fill_in import DEMO_ROOT
from tuner.errors import StudyExistsError, UsageError
from tuner.ledger.journal import first_record
from tuner.ledger.locate import locked
from tuner.ledger.model_name import name_of_data

if TYPE_CHECKING:
    from tuner.config import Space
    from tuner.ledger.journal import Ledger, StudyPaths
    from tuner.study.context import Context

# Settings that may change when a study resumes, because they do not affect its results.
FREE_TO_CHANGE = ("resources.", "search.budget", "search.patience", "data.root", "reference")
BLOCKS = tuple(name for name in Experiment.model_fields if name not in ("name", "model"))


def refuse_changes(space: Space, ledger: Ledger) -> None:
    """Check that a study that has begun has the same settings.

    Raises:
        StudyExistsError: The study was started with other settings; says which.
    """
    before = ledger.last("study")
    if before is None:
        return
    settings, had = space.settings(), _defaults() | before["settings"]
    differences = [
        f"{name}: it has {had.get(name, 'nothing')}, this command {settings.get(name, 'nothing')}"
        for name in sorted({*had, *settings})
        if had.get(name) != settings.get(name) and not name.startswith(FREE_TO_CHANGE)
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
        if first_record(study.paths.folder) is not None:
            raise UsageError(
                f"another process has begun the study {study.paths.name!r} meanwhile; the same "
                "command shows it, another --name starts a new one"
            )
        begin(study.space, study.paths, study.ledger)
        study.tracker.record(study.required("study"))
    else:
        study.record("resumed", started_ms=study.ledger.opened_ms)
        write_settings(study.space, study.paths)
    if study.ledger.last("features") is None:
        study.record("features", features=study.features)


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
