"""Every space file that is shipped loads, samples, and says in its header how it is run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml

from tuner.config import load, loads
from tuner.config.json_schema import space_schema

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "search_spaces").glob("*.yaml"))
SCHEMA = ROOT / "search_spaces" / "space.schema.json"


def test_there_are_space_files():
    assert {"quickstart.yaml", "resnet.yaml", "cnn.yaml"} <= {file.name for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_loads_and_samples_fifty_times(file):
    space = load(file)
    rng = np.random.default_rng(0)
    samples = [space.sample(lambda _, range_: range_.sample(rng)) for _ in range(50)]
    assert space.warnings == ()
    assert space.name == file.stem
    assert all(space.resolve(sample.params) == sample.experiment for sample in samples)
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
    comments = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any(f"python -m tuner.run search_spaces/{file.name}" in line for line in comments)


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


def test_the_json_schema_is_sound_and_current():
    jsonschema.Draft202012Validator.check_schema(space_schema())
    printed = subprocess.run(
        [sys.executable, "-m", "tuner.config"], cwd=ROOT, capture_output=True, check=True
    )
    hint = "run: python -m tuner.config > search_spaces/space.schema.json"
    assert printed.stdout.decode() == SCHEMA.read_text(), hint


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
        {"features": {"kind": "waveform"}},
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
