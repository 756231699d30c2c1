"""Every space file that is shipped loads, samples, and says in its header how it is run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from functools import partial
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml

from tests.tuner.test_samplers import row
from tuner.config import Experiment, Space, load, loads
from tuner.config.__main__ import settings_page, space_schema
from tuner.config.ranges import Range
from tuner.ledger.trial_rows import TrialRow
from tuner.trials.samplers import propose

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "search_spaces").glob("*.yaml"))
SCHEMA = ROOT / "search_spaces" / "space.schema.json"


def test_there_is_a_file_for_each_reference_system_and_for_all_families():
    of_references = {"edm_resnet", "edm_wav2vec2", "densenet", "efficientnet", "cnn"}
    of_references |= {"edmsorta", "mel_resnet_ensemble", "conv1d"}
    assert {file.stem for file in FILES} == of_references | {
        "quickstart",
        "resnet",
        "all",
        "pretrained",
        "auto",
    }


def _value_in(params: dict[str, Any], name: str, _: Range) -> Any:
    return params[name]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_loads_and_samples_fifty_times(file):
    space = load(file)
    rng = np.random.default_rng(0)
    samples = [space.sample(lambda _, range_: range_.sample(rng)) for _ in range(50)]
    assert space.warnings == ()
    assert space.name == file.stem
    assert [space.sample(partial(_value_in, sample.params)) for sample in samples] == samples
    assert {name for sample in samples for name in sample.params} == set(space.ranges)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_its_resolved_text_loads_as_an_equal_space(file):
    space = load(file)
    again = loads(space.to_yaml())
    assert again == space
    assert list(again.ranges.items()) == list(space.ranges.items())
    assert again.template == space.template


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_its_header_names_the_command(file):
    commands = [line[1:].strip() for line in header(file) if "python -m tuner.run" in line]
    assert commands[0] == f"python -m tuner.run search_spaces/{file.name} [--data DIR]"


GIVEN = {
    "all": {"cnn", "resnet18", "densenet121", "efficientnet_b0", "forest"},
    "cnn": {"cnn"}, "edm_resnet": {"resnet18"}, "mel_resnet_ensemble": {"resnet18"},
    "pretrained": {"linear", "mlp", "musicnn", "cnn"}, "quickstart": {"cnn"},
    "resnet": {"cnn", "resnet18"},
}  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_begins_with_a_good_configuration_of_each_family_of_which_one_is_known(file):
    space = load(file)
    begun: list[TrialRow] = []
    for given in space.start:
        proposal = propose(space, begun)
        assert proposal is not None
        begun.append(row(proposal, 0.5))
        params = proposal.params
        others = {name for name in given if name not in params}
        assert {name: params[name] for name in given.keys() - others} == {
            name: given[name] for name in given.keys() - others
        }
        # What it lacks are defaults of alternatives that it did not choose.
        assert not {name for name in others if name.startswith(f"model.{params.get('model')}.")}
        assert others <= set(space.defaults)
    if file.stem != "auto":  # whose families depend on the data
        assert {one.model for one in begun} == GIVEN.get(file.stem, set())
    if file.stem in GIVEN:
        said = file.read_text()
        assert "docs/benchmarks.md" in said or "docs/decisions.md" in said, "where it comes from"


def header(file: Path) -> list[str]:
    """The comment at the top."""
    return list(takewhile(lambda line: line.startswith("#"), file.read_text().splitlines()))


def settings_in(text: str) -> list[str]:
    """The settings of the options in a comment line, split as a shell would."""
    words = shlex.split(text.partition("--")[1] + text.partition("--")[2])
    return [word for option, word in pairwise(words) if option == "--set"]


SET_IN_HEADERS: list[tuple[Path, list[str]]] = [
    (file, settings)
    for file in FILES
    for line in header(file)
    if (settings := settings_in(line.lstrip("# ")))
]


def test_headers_say_how_published_weights_and_leaky_splits_are_asked_for():
    said = {(file.stem, setting) for file, settings in SET_IN_HEADERS for setting in settings}
    for name in ("edm_resnet", "edm_wav2vec2", "densenet", "efficientnet"):
        assert (name, "model.weights=pretrained") in said
    for name in ("densenet", "efficientnet"):  # the reference split clips, not tracks
        assert (name, "data.split=clip") in said


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("edm_resnet", ("0.85", "0.71")),
        ("edm_wav2vec2", ("0.8",)),
        ("densenet", ("89.3", "91.5")),
        ("efficientnet", ("89.3", "91.5")),
        ("edmsorta", ("33 %", "42.2 %", "48.9 %")),
        ("mel_resnet_ensemble", ("62.4 %",)),
        ("conv1d", ("chance",)),
    ],
)
def test_its_header_says_what_the_reference_reported(name, figures):
    text = " ".join(header(ROOT / "search_spaces" / f"{name}.yaml"))
    assert [figure for figure in figures if figure not in text] == []


@pytest.mark.parametrize(
    ("file", "settings"), SET_IN_HEADERS, ids=lambda value: getattr(value, "stem", None)
)
def test_what_its_header_says_can_be_set(file, settings):
    changed = load(file, settings)
    assert changed.settings() != load(file).settings()
    leaky = [problem for problem in changed.warnings if "for comparison only" in problem.message]
    assert len(changed.warnings) == len(leaky) == ("data.split=clip" in settings)


# What the reference systems did, from their descriptions; every draw of a file has it. What they
# compared or searched is listed below, with the values of all draws together.
ESSENTIALS: dict[str, dict[str, Any]] = {
    "edm_resnet": {
        "data.clip_seconds": 3.0, "data.clips_per_track": 10, "features.kind": "logmel",
        "model.name": "resnet18",
    },
    "edm_wav2vec2": {
        "data.clip_seconds": 3.0, "data.clips_per_track": 10, "features.kind": "waveform",
        "features.sample_rate": 16000, "model.name": "wav2vec2",
    },
    "densenet": {
        "data.clips_per_track": 10, "features.kind": "stft", "features.sample_rate": 44100,
        "model.pool": "concat", "optim.name": "adabound", "optim.schedule": "cyclical",
        "train.epochs": 20, "train.freeze_epochs": 10,
    },
    "efficientnet": {
        "data.clips_per_track": 10, "features.kind": "stft", "features.sample_rate": 44100,
        "model.name": "efficientnet_b3", "model.pool": "concat", "optim.name": "adabound",
        "optim.schedule": "cyclical", "train.epochs": 20, "train.freeze_epochs": 10,
    },
    "edmsorta": {
        "data.split.train": 0.70, "data.split.val": 0.15, "data.split.test": 0.15,
        "search.algorithm": "grid",
    },
    "mel_resnet_ensemble": {
        "features.kind": "logmel", "model.name": "resnet18", "search.algorithm": "tpe",
        "confirm.top": 3,
    },
    "conv1d": {"features.kind": "waveform", "model.name": "conv1d", "confirm.top": 3},
}  # fmt: skip
SEARCHED: dict[str, dict[str, set[Any]]] = {
    "densenet": {
        "model.name": {"densenet121", "densenet161", "densenet201"}, "optim.lr": {"find", 1e-3},
    },
    "efficientnet": {"optim.lr": {"find", 1e-3}},
    "edmsorta": {
        "model.name": {"cnn", "forest"}, "model.blocks": {2, 3, 4},
        "features.n_mels": {32, 64, 128}, "features.kind": {"logmel", "song"},
    },
    "conv1d": {"model.depth": {5, 11}},
    "all": {
        "model.name": {
            "cnn", "resnet18", "densenet121", "mobilenetv3_small_100", "efficientnet_b0",
            "convnext_atto", "vit_tiny_patch16_224", "conv1d", "wav2vec2", "forest",
        },
        "features.kind": {"logmel", "waveform", "song"},
    },
}  # fmt: skip


def draws(space: Space, count: int = 200) -> list[dict[str, Any]]:
    """Settings of configurations, by their dotted names; the kind of features as it is settled."""
    rng = np.random.default_rng(1)
    samples = [space.sample(lambda _, range_: range_.sample(rng)) for _ in range(count)]
    return [flat(sample.experiment) for sample in samples]


def flat(experiment: Experiment) -> dict[str, Any]:
    found = {
        f"{block}.{name}": value
        for block, settings in experiment.model_dump(exclude={"name", "reference"}).items()
        for name, value in settings.items()
    }
    split = {f"data.split.{name}": value for name, value in found["data.split"].items()}
    return found | split | {"features.kind": experiment.front_end.kind}


@pytest.mark.parametrize("name", ESSENTIALS)
def test_it_has_the_essentials_of_its_reference(name):
    for drawn in draws(load(ROOT / "search_spaces" / f"{name}.yaml"), 20):
        assert {key: drawn[key] for key in ESSENTIALS[name]} == ESSENTIALS[name]


@pytest.mark.parametrize("name", SEARCHED)
def test_it_searches_what_its_reference_compared(name):
    found = draws(load(ROOT / "search_spaces" / f"{name}.yaml"))
    for key, values in SEARCHED[name].items():
        assert {drawn[key] for drawn in found if key in drawn} == values


def test_the_grid_of_edmsorta_is_the_one_its_reference_searched():
    space = load(ROOT / "search_spaces" / "edmsorta.yaml")
    searched = {"train.batch_size", "optim.lr", "model.cnn.activation", "model.cnn.kernel_size"}
    assert searched <= set(space.ranges)
    cnns = [
        drawn
        for one in space.enumerate_grid()
        if (drawn := flat(one.experiment))["model.name"] == "cnn"
    ]
    assert len(cnns) == 144
    assert space.num_trials == space.template.search.trials == space.tree.count_draws() == 144 + 12
    assert all(drawn["model.dropout"] > 0 and drawn["model.hidden"] > 0 for drawn in cnns)


def test_the_frozen_epochs_end_before_trials_are_compared():
    for name in ("densenet", "efficientnet"):
        template = load(ROOT / "search_spaces" / f"{name}.yaml").template
        assert template.optim.body_lr is not None
        assert template.train.freeze_epochs < template.scheduler.grace(template.train.epochs)


def test_waveforms_and_spectrograms_are_augmented_in_training():
    for name, wanted in (
        ("conv1d", {"polarity", "gain_db", "speed", "noise"}),
        ("mel_resnet_ensemble", {"gain_db", "speed", "noise"}),
        ("edm_wav2vec2", {"polarity", "gain_db", "noise"}),
        ("edm_resnet", {"time_mask", "freq_mask"}),
    ):
        (drawn,) = draws(load(ROOT / "search_spaces" / f"{name}.yaml"), 1)
        assert {setting for setting in wanted if drawn[f"augment.{setting}"] > 0} == wanted


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_fits_the_json_schema(file):
    # Oracle: jsonschema, on the resolved text, whose scalars YAML 1.1 and 1.2 read alike
    # but for exponents without a point.
    document = json.loads(json.dumps(yaml.safe_load(load(file).to_yaml())))
    document["optim"] = _with_numbers(document["optim"])
    jsonschema.Draft202012Validator(space_schema()).validate(document)


def _with_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_numbers(inner) for inner in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def test_the_json_schema_is_valid_and_current():
    jsonschema.Draft202012Validator.check_schema(space_schema())
    printed = subprocess.run(
        [sys.executable, "-m", "tuner.config"], cwd=ROOT, capture_output=True, check=True
    )
    hint = "run: python -m tuner.config > search_spaces/space.schema.json"
    assert printed.stdout.decode() == SCHEMA.read_text(), hint


def test_the_page_of_settings_is_current():
    hint = "run: python -m tuner.config page > docs/settings.md"
    assert settings_page() == (ROOT / "docs" / "settings.md").read_text(), hint


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"split": "clip", "group": "tag:artist"}},
        {"data": {"split": {"by": "clip", "train": 0.7, "val": 0.15, "test": 0.15}}},
        {"features": {"kind": {"choice": ["logmel", "mfcc"]}, "n_mfcc": {"integer": [8, 13]}}},
        {"features": {"choice": [{"kind": "stft"}, {"kind": "tempogram", "n_lags": 64}]}},
    ],
    ids=str,
)
def test_the_json_schema_takes_what_a_space_file_takes(change):
    document = {"name": "x", "model": {"name": "cnn"}, **change}
    jsonschema.Draft202012Validator(space_schema()).validate(document)
    loads(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"split": "clips"}},
        {"features": {"kind": "cqt"}},
        {"train": {"epochz": 3}},
        {"train": {"epochs": "ten"}},
        {"model": {"name": "vgg"}},
        {"optim": {"lr": {"lognormal": [0, 1]}}},
        {"search": {"trials": {"integer": [1, 2]}}},
    ],
    ids=str,
)
def test_the_json_schema_refuses_faults(change):
    document = {"name": "x", "model": {"name": "cnn"}, **change}
    assert not jsonschema.Draft202012Validator(space_schema()).is_valid(document)
