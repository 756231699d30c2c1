"""Settings that are left ``auto``: values for known facts, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from pipelines.demo import demo_facts
from pipelines.errors import UserError
from pipelines.facts import DataFacts, look
from pipelines.sources.catalog import read_catalog
from pipelines.sources.tracks import Track
from pipelines.storage import Folder
from tests.conftest import write_tones
from tuner.config import Space, load, loads
from tuner.config.__main__ import space_schema
from tuner.config.fill_in import Choice
from tuner.errors import ConfigError
from tuner.ledger.journal import Ledger, StudyPaths, first_record
from tuner.run import main
from tuner.study.surroundings import AtHand

AUTO = Path("search_spaces/auto.yaml")
NETWORKS = ("musicnn_msd", "musicnn_mtt", "vgg_msd", "vgg_mtt", "speech")


class Around:
    """Surroundings whose facts are given."""

    def __init__(
        self,
        facts: DataFacts,
        missing: Sequence[str] = (),
        recorded: Sequence[Choice] | None = None,
    ) -> None:
        self._facts, self._missing, self._recorded = facts, missing, recorded

    def facts(self, place: object) -> DataFacts:
        return self._facts

    def missing_networks(self) -> Mapping[str, str]:
        return dict.fromkeys(self._missing, "no network")

    def has_bf16(self) -> bool:
        return False

    def recorded(self, study: str) -> Sequence[Choice] | None:
        return self._recorded


def facts(seconds: float, rate: int, tracks: int, band: float | None = None) -> DataFacts:
    listed = tuple(Track.listed(f"{n}.wav", "ab"[n % 2]) for n in range(tracks))
    return DataFacts(listed, (seconds,), (rate,), (band or rate / 2,))


def chosen(space: Space) -> dict[str, str]:
    return {one.setting: one.value for one in space.choices}


def families(space: Space) -> set[str]:
    return {model.name for model in space.models()}


# What somebody who knows such sounds would write; the frames follow from the rate.
@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (
            facts(0.45, 8_000, 600),  # spoken digits of a telephone
            {
                "data.clip_seconds": "0.5", "data.hop_seconds": "0.5", "data.short": "repeat",
                "features.sample_rate": "8000", "features.n_fft": "256",
                "features.hop_length": "80", "features.n_mels": "40",
                "features.network": "{choice: [speech, [musicnn_msd, speech]]}",
            },
        ),
        (
            facts(30.0, 44_100, 100, 16_000.0),  # excerpts of songs
            {
                "data.clip_seconds": "6.0", "data.hop_seconds": "6", "train.crop_seconds": "3.6",
                "features.sample_rate": "22050", "features.n_fft": "1024",
                "features.hop_length": "441", "features.n_mels": "64", "train.batch_size": "16",
            },
        ),
        (facts(8.0, 48_000, 50, 7_500.0), {"features.sample_rate": "16000"}),
        (facts(8.0, 11_025, 50), {"features.sample_rate": "11025", "data.hop_seconds": "3"}),
        (facts(240.0, 44_100, 1_000), {"data.hop_seconds": "60", "train.batch_size": "32"}),
    ],
    ids=["digits", "songs", "narrow", "odd rate", "long"],
)  # fmt: skip
def test_values_fit_the_data(of: DataFacts, expected: dict[str, str]) -> None:
    space = load(AUTO, [], Around(of))
    assert chosen(space).items() >= expected.items()
    assert all(one.reason for one in space.choices)
    assert (space.warnings, space.remarks) == ((), ())


def grouped(tracks: int, groups: int) -> DataFacts:
    listed = tuple(
        Track.listed(f"{n}.wav", "ab"[n % 2], {"group": f"{n % 2} {n // 2 % groups}"})
        for n in range(tracks)
    )
    return DataFacts(listed, (10.0,), (44_100,), (22_050.0,))


@pytest.mark.parametrize(
    ("tracks", "groups", "folds"), [(299, 20, 5), (300, 20, 0), (60, 5, 4), (60, 4, 3), (60, 3, 0)]
)
def test_few_tracks_are_cross_validated(tracks: int, groups: int, folds: int) -> None:
    space = load(AUTO, [], Around(grouped(tracks, groups)))
    assert space.template.data.num_folds == folds
    assert space.template.scheduler.name == ("asha" if folds else "none")
    assert space.template.train.keep == ("best" if folds else "last")
    assert (space.warnings, space.remarks) == ((), ())


def test_the_class_that_has_too_few_groups_for_folds_is_named() -> None:
    listed = tuple(
        Track.listed(f"{n}.wav", "ab"[n % 2], {"artist": "A" if n % 2 else str(n)})
        for n in range(40)
    )
    of = DataFacts(listed, (10.0,), (44_100,), (22_050.0,))
    (split,) = (one for one in load(AUTO, [], Around(of)).choices if one.setting == "data.split")
    assert split.reason == "the class 'b' has 1 group, too few for folds"


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.0, 1.9, 2.1, 4.9, 12.0, 600.0])
@pytest.mark.parametrize("rate", [4_000, 8_000, 22_050, 96_000])
@pytest.mark.parametrize("tracks", [6, 3_000])
def test_any_data_gives_a_space_without_faults(seconds: float, rate: int, tracks: int) -> None:
    of = facts(seconds, rate, tracks)
    for missing in ((), NETWORKS):
        space = load(AUTO, [], Around(of, missing))
        assert space.warnings == ()
        assert space.template.features.sample_rate <= rate
        assert not [one for one in space.remarks if "validation tracks" not in one.message]


def test_real_collections(shared_data: Path) -> None:
    for name, least, most, rate in (
        ("fsdd", 0.5, 1.0, 8_000), ("esc10", 5.0, 5.0, 22_050), ("pyaa3/3_class", 1.0, 1.0, 8_000),
    ):  # fmt: skip
        space = load(AUTO, [], Around(look(read_catalog(shared_data / name))))
        assert least <= space.template.data.clip_seconds <= most
        assert space.template.features.sample_rate == rate


def test_families_are_those_whose_weights_are_there_and_that_the_budget_holds() -> None:
    songs = facts(30.0, 44_100, 40)
    every = {"linear", "mlp", "musicnn", "cnn", "resnet18", "forest"}
    hour = ["search.budget=2h"]
    assert families(load(AUTO, hour, Around(songs))) == every
    without = load(AUTO, hour, Around(songs, NETWORKS))
    assert families(without) == every - {"linear", "mlp", "musicnn"}
    (reason,) = (one.reason for one in without.choices if one.setting == "model")
    assert reason.endswith("without linear, mlp, musicnn: no weights (no network)")
    assert families(load(AUTO, hour, Around(songs, ["speech"]))) == every
    assert families(load(AUTO, [], Around(facts(0.5, 8_000, 40)))) == every - {"musicnn"}
    many = facts(30.0, 44_100, 3_000)
    assert families(load(AUTO, [], Around(many))) == {"linear", "mlp", "cnn", "forest"}
    on_gpu = load(AUTO, ["resources.gpus_per_worker=1", "search.budget=30m"], Around(many))
    assert families(on_gpu) == every
    models = (
        "model={{choice: [{{name: cnn, resources: {{gpus_per_worker: {}}}}}, {{name: forest}}]}}"
    )
    slow, fast = (load(AUTO, [models.format(gpus)], Around(many)) for gpus in (0, 1))
    assert fast.template.train.epochs > slow.template.train.epochs


@pytest.mark.parametrize(
    ("resources", "batch_size"),
    [
        (["resources.elastic=[1, 3]"], 18),
        (["model={name: cnn, resources: {workers: 5}}"], 20),
        (["model={choice: [{name: cnn, resources: {elastic: [2, 4]}}, {name: mlp}]}",
          "resources.workers=3"], 24),
    ],
)  # fmt: skip
def test_a_batch_is_divided_among_the_workers_of_each_family(
    resources: list[str], batch_size: int
) -> None:
    space = load(AUTO, resources, Around(facts(10.0, 44_100, 60)))
    assert space.template.train.batch_size == batch_size
    assert any("workers get equal parts" in one.reason for one in space.choices)


@pytest.mark.parametrize("workers", ["workers=2.5", "elastic=[1, 99999999999]"])
def test_a_number_of_workers_that_cannot_be_is_refused_in_words(workers: str) -> None:
    with pytest.raises(ConfigError, match=r"resources\.(workers|elastic)") as caught:
        load(AUTO, [f"resources.{workers}"], Around(facts(10.0, 44_100, 60)))
    assert "batch_size" not in str(caught.value)


def test_a_smaller_budget_means_fewer_epochs_and_trials() -> None:
    songs = Around(facts(10.0, 44_100, 60))
    short, long = (
        load(AUTO, [f"search.budget={budget}"], songs).template for budget in ("4m", "40m")
    )
    assert short.train.epochs < long.train.epochs
    assert short.search.trials < long.search.trials


def test_what_is_written_stays_and_decides_the_rest() -> None:
    songs = Around(facts(30.0, 44_100, 100))
    space = load(AUTO, ["data.clip_seconds=3", "features.sample_rate=8000"], songs)
    assert space.template.data.clip_seconds == space.template.data.hop_seconds == 3
    assert space.template.features.n_fft == 512
    assert "data.clip_seconds" not in chosen(space)
    by_count = load(AUTO, ["data.clips_per_track=4"], songs).template.data
    assert (by_count.clips_per_track, by_count.hop_seconds) == (4, None)
    ranged = load(AUTO, ["data.clip_seconds={choice: [3.0, 4.0]}"], songs)
    assert ranged.template.data.hop_seconds == 3
    only = load(AUTO, ["model={name: cnn}"], songs)
    assert (only.warnings, chosen(only)["features.network"]) == ((), "musicnn_msd")


def test_nothing_warns_about_a_value_that_was_chosen() -> None:
    assert load(AUTO, [], Around(facts(0.05, 8_000, 600))).remarks == ()
    space = load(AUTO, ["model={name: linear}"], Around(facts(10.0, 44_100, 60)))
    assert [one.path for one in space.warnings] == ["optim.lr", "augment.mixup", "train.ema"]
    (few,) = load(AUTO, ["data.split={by: group}"], Around(facts(10.0, 44_100, 6))).remarks
    assert few.path == "data.split"
    tiny = load(AUTO, [], Around(facts(10.0, 44_100, 6)))
    assert tiny.remarks == ()
    assert "the choice among trials is mostly luck" in next(
        one.reason for one in tiny.choices if one.setting == "data.split"
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("logmel", {"musicnn", "cnn", "resnet18"}),
        ("mfcc", {"cnn", "resnet18"}),
        ("tempogram", {"cnn", "resnet18"}),
        ("stft", {"cnn", "resnet18"}),
        ("embedding", {"linear", "mlp", "forest"}),
        ("song", {"linear", "mlp", "forest"}),
        ("{choice: [embedding, song]}", {"linear", "mlp", "forest"}),
        ("{choice: [auto, mfcc]}", {"cnn", "resnet18"}),
    ],
)
def test_families_are_those_that_take_the_kind_of_features(kind: str, expected: set[str]) -> None:
    asked = [f"features.kind={kind}", "search.budget=2h"]
    space = load(AUTO, asked, Around(facts(30.0, 44_100, 40)))
    assert families(space) == expected
    assert (space.warnings, space.remarks) == ((), ())


def test_a_kind_that_no_family_takes_is_an_error_at_the_model() -> None:
    with pytest.raises(ConfigError, match=r"16:8: model: no model .* not for waveform\)"):
        load(AUTO, ["features.kind=waveform"])
    songs = Around(facts(30.0, 44_100, 40), NETWORKS)
    with pytest.raises(ConfigError, match=r"linear, mlp, forest: no weights \(no network"):
        load(AUTO, ["features.kind=embedding"], songs)


def test_a_file_written_by_hand_may_leave_its_model_and_clips_open() -> None:
    asked = ["model=auto", "data.clip_seconds=auto"]
    assert families(load(Path("search_spaces/quickstart.yaml"), asked)) >= {"cnn"}


def reason(setting: str, of: DataFacts, *asked: str) -> str:
    choices = load(AUTO, asked, Around(of)).choices
    return next(one.reason for one in choices if one.setting == setting)


def test_reasons_are_true() -> None:
    many = facts(30.0, 44_100, 5_000)
    assert "few validation tracks" not in reason("train.keep", many)
    # Five clips of 6 s in each track.
    assert "6 s would make about 25,000 clips" in reason("data.hop_seconds", many)
    hour = facts(3600.0, 44_100, 40)
    assert "last 3600 s or more" in reason("data.clip_seconds", hour)
    mixed = tuple(Track.listed(f"{n}.wav", "ab"[n % 2]) for n in range(400))
    rates = DataFacts(mixed, (10.0,), (*[8_000] * 5, *[96_000] * 15), (4_000.0, *[48_000.0] * 3))
    assert reason("features.sample_rate", rates) == (
        "the files are at mixed rates, 8,000 to 96,000 Hz; nine of ten are at 8,000 Hz or more"
    )
    low = DataFacts(mixed, (10.0,), (*[22_050] * 5, *[44_100] * 15), (5_000.0,))
    assert reason("features.sample_rate", low).endswith("or more and hold sound up to 5 kHz")
    # Five folds of 12 clips, 0.7 x 3 s of each: 126 s an epoch, of which a core takes 100 in 1 s.
    few = facts(5.0, 44_100, 12)
    assert "15 epochs would take about 19 s a trial" in reason("model", few, "search.budget=10s")
    assert "no known good configuration" in reason("search.start", many, "model={name: linear}")


@pytest.mark.parametrize("setting", ["data.clips_per_track", "train.epochs", "confirm.seeds"])
def test_any_file_may_leave_a_setting_open(setting: str) -> None:
    space = load(Path("search_spaces/cnn.yaml"), [f"{setting}=auto"], Around(demo_facts()))
    assert list(chosen(space)) == [setting]


def test_a_file_without_auto_is_read_as_before() -> None:
    class Nowhere(Around):
        def missing_networks(self) -> Mapping[str, str]:
            raise AssertionError("nothing is to be chosen")

    space = load(Path("search_spaces/pretrained.yaml"), [], Nowhere(demo_facts()))
    assert space == load(Path("search_spaces/pretrained.yaml"))
    assert space.choices == ()


def test_without_data_at_hand_it_is_the_demo() -> None:
    assert load(AUTO) == load(AUTO, [], Around(demo_facts()))


def test_nothing_is_chosen_for_files_that_cannot_be_read() -> None:
    unread = replace(facts(1.0, 8_000, 40), seconds=(), rates_hz=(), bandwidths_hz=(),
                     unreadable=("a.wav: looks like text",))  # fmt: skip
    with pytest.raises(UserError, match=r"none of the 1 .* a\.wav: looks like text") as caught:
        load(AUTO, [], Around(unread))
    assert caught.value.exit_code == 2


def test_no_bandwidth_is_made_up_for_silence() -> None:
    silent = replace(facts(1.0, 16_000, 40), bandwidths_hz=())
    (chosen,) = (
        one for one in load(AUTO, [], Around(silent)).choices
        if one.setting == "features.sample_rate"
    )  # fmt: skip
    assert (chosen.value, chosen.reason) == ("16000", "the files are at 16,000 Hz")


def test_the_resolved_file_has_the_reasons_as_comments() -> None:
    space = load(AUTO)
    text = space.to_yaml()
    assert "  clip_seconds: 6.0  # auto: half of the tracks last 12 s or more\n" in text
    assert loads(text) == space


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("train: {epochs: atuo}", "3:17: train.epochs", "must be an integer"),
        ("train:\n  accumulate: auto", "4:15: train.accumulate", "it cannot be auto"),
        ("optim: {lr: auto}", "3:13: optim.lr", "find"),
        ("train: {epoch: auto}", "3:9: train.epoch", "did you mean `train.epochs`"),
        ("data: auto", "3:7: data", "a block of settings"),
        ("data: {clip_seconds: auto}\nfeatures: {n_fft: 60000, hop_length: 60001}", "4:", "hop"),
    ],
)
def test_a_wrong_place_is_a_plain_error(text: str, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"name: x\nmodel: {{name: cnn}}\n{text}", "f.yaml")
    assert f"f.yaml:{place}" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "range_", "column"),
    [
        ("train.epochs", "{choice: [auto, 5]}", 11),
        ("model", "{choice: [{name: cnn}, auto]}", 24),
        ("features.n_mels", "{integer: [auto, 64]}", 12),
        ("features.n_mels", "{choice: [32, {quantized: [40, auto, 8]}]}", 32),
    ],
)
def test_auto_in_a_range_is_an_error_at_its_place(setting: str, range_: str, column: int) -> None:
    with pytest.raises(ConfigError) as caught:
        load(AUTO, [f"{setting}={range_}"])
    (problem,) = caught.value.problems
    assert (problem.file, problem.column) == (f"--set {setting}", column)
    assert str(problem).startswith(f"--set {setting}: auto cannot be inside a range")


def test_the_json_schema_takes_auto_where_it_is_taken() -> None:
    validator = jsonschema.Draft202012Validator(space_schema())
    base = {"name": "x", "model": "auto"}
    validator.validate(
        {**base, "data": {"split": "auto", "short": "auto"}, "train": {"epochs": "auto"}}
    )
    validator.validate({**base, "features": {"network": "auto"}, "search": {"trials": "auto"}})
    assert not validator.is_valid({**base, "train": {"accumulate": "auto"}})


# --- upkeep ---------------------------------------------------------------------------------


def begun(storage: Path, space: Space) -> StudyPaths:
    from tuner.study.begin import begin, refuse_changes

    paths = StudyPaths(Folder(storage), space.name, storage)
    ledger = Ledger(paths.folder)
    refuse_changes(space, list(ledger.records()))
    begin(space, paths, ledger)
    ledger.close()
    return paths


def test_a_study_keeps_its_choices_when_weights_are_gone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    songs = facts(30.0, 44_100, 100)
    space = load(AUTO, [], Around(songs))
    paths = begun(tmp_path, space)
    record = first_record(paths.folder)
    assert record is not None
    assert [Choice(**one) for one in record["choices"]] == list(space.choices)
    again = load(AUTO, ["data.root=/gone"], AtHand(Folder(tmp_path)))
    assert again.settings() | {"data.root": ""} == space.settings() | {"data.root": ""}
    begun(tmp_path, again)  # the same settings: no error
    other = load(AUTO, ["name=other"], AtHand(Folder(tmp_path)))
    assert "linear" not in families(other)


@pytest.mark.parametrize("name", ["../../etc", "nothing"])
def test_no_study_has_no_choices(tmp_path: Path, name: str) -> None:
    assert AtHand(Folder(tmp_path)).recorded(name) is None


def test_a_study_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    paths = StudyPaths(Folder(tmp_path), "old", tmp_path)
    ledger = Ledger(paths.folder)
    ledger.append("study", study="old")
    ledger.close()
    assert AtHand(Folder(tmp_path)).recorded("old") == []


def test_the_plan_shows_each_choice_and_what_does_not_fit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = write_tones(tmp_path / "data", per_class=4, seconds=1.0)
    storage = ["--storage", str(tmp_path / "results")]
    words = [str(AUTO), "--data", str(data), "--dry-run", "--trials", "2", *storage]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 0, found.output
    assert "auto         data.clip_seconds: 1.0 (19 of 20 tracks last 1 s" in found.stdout
    assert found.stderr == ""
    flowing = " ".join(found.stdout.split())
    asked = [f"data.root={data}", "search.trials=2"]
    for one in load(AUTO, asked, AtHand(Folder(tmp_path))).choices:
        assert f"auto {one.setting}: {one.value} ({one.reason})" in flowing
    assert "\n             the first 2 are those of search.start" in found.stdout
    words[0] = "search_spaces/quickstart.yaml"
    by_hand = CliRunner().invoke(main, words)
    assert "only about 2 validation tracks for 3 classes" in by_hand.stderr
    assert "the first has the default of each range that names one" in by_hand.stdout
    assert "quickstart.yaml:11:17: data.clip_seconds: clips of 3 s" in by_hand.stderr
    assert not (tmp_path / "results").exists()
    shown = CliRunner().invoke(main, [str(AUTO), "--data", str(data), "--print-config", *storage])
    assert loads(shown.stdout).template.data.clip_seconds == 1.0


def test_data_that_is_not_here_is_an_error_only_for_auto(tmp_path: Path) -> None:
    where = ["--data", "/not/here", "--print-config", "--storage", str(tmp_path)]
    assert CliRunner().invoke(main, ["search_spaces/quickstart.yaml", *where]).exit_code == 0
    found = CliRunner().invoke(main, [str(AUTO), *where])
    assert (found.exit_code, "nothing at /not/here" in found.stderr) == (2, True)
    assert found.stdout == ""
