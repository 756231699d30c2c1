"""Space files to typed spaces: values, ranges, defaults, overrides, samples."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tuner.config import Cnn, ColumnSplit, Experiment, Features, as_override, load, loads
from tuner.config.mel import empty_mel_bands
from tuner.errors import SpaceError
from tuner.space import Choice, Grid, Integer, LogUniform, Range, Scalar, Uniform

PLAIN = "name: x\nmodel: {name: cnn}\n"
NESTED = """
name: nested
features: {n_mels: {choice: [32, 64]}}
model:
  choice:
    - {name: cnn, blocks: {integer: [2, 3]}}
    - {name: resnet18, drop_rate: {uniform: [0, 0.5]}}
optim:
  lr: {choice: [0.001, {log_uniform: [1e-4, 1e-2]}]}
"""


UNSAFE = re.compile("[\ufeff\ufffe\uffff]")  # no text that a person writes


def first(_: str, range_: Range) -> Scalar:
    return range_.options[0] if isinstance(range_, Choice | Grid) else range_.low


def drawn_with(rng: np.random.Generator) -> Callable[[str, Range], Scalar]:
    return lambda _, range_: range_.sample(rng)


# --- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [  # Expected: the core schema of the YAML 1.2.2 specification, section 10.3.2.
        ("1e-4", 1e-4),
        ("1.5e1", 15.0),
        (".5", 0.5),
        ("+3", 3.0),
        ("0o10", 8.0),
        ("0x1F", 31.0),
        ("5.", 5.0),
    ],
)
def test_numbers_follow_yaml_1_2(text, value):
    assert loads(f"{PLAIN}optim: {{lr: {text}}}").template.optim.lr == value


@pytest.mark.parametrize("text", ["no", "on", "yes", "2024-01-01", "0x", "v1.2"])
def test_what_yaml_1_1_would_convert_stays_text(text):
    assert loads(f"name: {text}\nmodel: {{name: cnn}}").name == text


def test_times_stay_text():
    space = loads(f"{PLAIN}data: {{root: 12:30:45, group: no}}")
    assert (space.template.data.root, space.template.data.group) == ("12:30:45", "no")


def test_folds_are_kept_as_text():
    space = loads(f"{PLAIN}data: {{split: {{column: fold, val: [4], test: ['5', x]}}}}")
    assert space.template.data.split == ColumnSplit(column="fold", val=("4",), test=("5", "x"))


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("1d", 86400)],
)
def test_budgets_are_durations(budget, seconds):
    assert loads(f"{PLAIN}search: {{budget: {budget}}}").template.search.budget_seconds == seconds


def test_no_budget_is_none():
    assert loads(PLAIN).template.search.budget_seconds is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path, encoding, newline):
    text = f"{PLAIN}data: {{root: Müsik}}\n".replace("\n", newline)
    (tmp_path / "a.yaml").write_bytes(text.encode(encoding))
    assert load(tmp_path / "a.yaml").template.data.root == "Müsik"


def test_json_is_accepted_and_the_schema_key_ignored():
    text = '{"$schema": "./space.schema.json", "name": "x", "model": {"name": "cnn"}}'
    assert loads(text) == loads(PLAIN)


def test_aliases_stand_for_their_anchor():
    space = loads(f"{PLAIN}optim: {{lr: &r {{uniform: [0.1, 0.2]}}, momentum: *r}}")
    assert space.ranges == {"optim.lr": Uniform(0.1, 0.2), "optim.momentum": Uniform(0.1, 0.2)}


def test_a_file_without_ranges_is_one_experiment():
    space = loads(PLAIN)
    assert space.ranges == {}
    assert space.sample(first).experiment == Experiment(name="x", model=Cnn(name="cnn"))
    assert (space.grid_size(), len(list(space.enumerate_grid()))) == (1, 1)


def test_clips_are_counted_unless_a_hop_is_given():
    assert loads(PLAIN).template.data.clips_per_track == 10
    with_hop = loads(f"{PLAIN}data: {{hop_seconds: 1.5}}").template.data
    assert (with_hop.clips_per_track, with_hop.hop_seconds) == (None, 1.5)


def test_an_experiment_survives_json():
    text = f"{PLAIN}data: {{split: {{column: fold, val: [4], test: [5]}}, hop_seconds: 2}}"
    experiment = loads(text).template
    assert Experiment.model_validate(experiment.model_dump(mode="json")) == experiment
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


# --- ranges ---------------------------------------------------------------------------------


def test_ranges_are_named_by_their_path_and_alternative():
    assert loads(NESTED).ranges == {
        "features.n_mels": Choice((32, 64)),
        "model": Choice(("cnn", "resnet18")),
        "model.cnn.blocks": Integer(2, 3),
        "model.resnet18.drop_rate": Uniform(0.0, 0.5),
        "optim.lr": Choice((0.001, "1")),
        "optim.lr.1": LogUniform(1e-4, 1e-2),
    }


def test_only_ranges_of_the_chosen_alternative_are_asked_in_file_order():
    asked = []

    def choose(name, range_):
        asked.append(name)
        return {"model": "resnet18", "optim.lr": "1"}.get(name, first(name, range_))

    sample = loads(NESTED).sample(choose)
    assert asked == [
        "features.n_mels",
        "model",
        "model.resnet18.drop_rate",
        "optim.lr",
        "optim.lr.1",
    ]
    assert sample.params == {
        "features.n_mels": 32,
        "model": "resnet18",
        "model.resnet18.drop_rate": 0.0,
        "optim.lr": "1",
        "optim.lr.1": 1e-4,
    }
    assert sample.experiment.model.name == "resnet18"
    assert sample.experiment.optim.lr == 1e-4


def test_alternatives_without_a_name_are_numbered_and_repeated_names_told_apart():
    text = """
name: x
model: {choice: [{name: cnn, blocks: 2}, {name: cnn, blocks: 3}]}
train: {choice: [{epochs: 5}, {epochs: {integer: [6, 7]}}]}
"""
    space = loads(text)
    assert space.ranges["model"] == Choice(("cnn", "cnn#2"))
    assert space.ranges["train"] == Choice(("0", "1"))
    made = space.resolve({"model": "cnn#2", "train": "1", "train.1.epochs": 7})
    assert (made.model, made.train.epochs) == (Cnn(name="cnn", blocks=3), 7)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_sample_is_rebuilt_from_its_parameters(seed):
    space = loads(NESTED)
    sample = space.sample(drawn_with(np.random.default_rng(seed)))
    assert space.resolve(sample.params) == sample.experiment


def test_samplers_floats_become_whole_steps():
    space = loads(f"{PLAIN}features: {{n_fft: {{quantized: [1024, 2048, 512]}}}}")
    assert space.sample(lambda *_: 1536.0).experiment.features.n_fft == 1536


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"features.n_mels": 32, "model": "cnn", "optim.lr": 0.001},
            "model.cnn.blocks has no value",
        ),
        (
            {
                "features.n_mels": 32,
                "model": "cnn",
                "model.cnn.blocks": 2,
                "optim.lr": 0.001,
                "a": 1,
            },
            "a unknown here",
        ),
        (
            {"features.n_mels": 32, "model": "cnn", "model.cnn.blocks": 9, "optim.lr": 0.001},
            "model.cnn.blocks: 9 is not in integer [2, 3]",
        ),
        ({"features.n_mels": 32, "model": "vgg"}, 'model: "vgg" is not in choice'),
    ],
)
def test_parameters_of_another_space_are_refused(params, words):
    with pytest.raises(SpaceError) as caught:
        loads(NESTED).resolve(params)
    assert words in str(caught.value)


def test_the_template_takes_first_options_and_lower_ends():
    template = loads(NESTED).template
    assert (template.features.n_mels, template.model) == (32, Cnn(name="cnn", blocks=2))
    assert template.optim.lr == 0.001


def test_the_grid_visits_every_combination_once():
    text = """
name: x
model:
  choice:
    - {name: cnn, blocks: {integer: [2, 4]}}
    - {name: resnet18, pool: {grid: [avg, max]}}
train: {batch_size: {grid: [16, 32]}}
search: {algorithm: grid}
"""
    space = loads(text)
    params = [tuple(sample.params.items()) for sample in space.enumerate_grid()]
    # By hand: (3 numbers of blocks + 2 poolings) x 2 batch sizes.
    assert space.grid_size() == len(params) == len(set(params)) == 10
    assert params[0] == (("model", "cnn"), ("model.cnn.blocks", 2), ("train.batch_size", 16))
    assert params[1][-1] == ("train.batch_size", 32)


def test_feature_variants_are_the_distinct_feature_sets():
    text = f"{PLAIN}data: {{clip_seconds: {{choice: [3.0, 5.0]}}}}\n"
    text += "features: {n_mels: {choice: [32, 64]}}\ntrain: {batch_size: {choice: [16, 32]}}\n"
    found = [(v.data.clip_seconds, v.features.n_mels) for v in loads(text).feature_variants()]
    assert found == [(3.0, 32), (3.0, 64), (5.0, 32), (5.0, 64)]


def test_a_hop_that_may_be_null_leaves_the_clips_to_their_default():
    space = loads(f"{PLAIN}data: {{hop_seconds: {{choice: [null, 1.5]}}}}")
    found = [(v.data.hop_seconds, v.data.clips_per_track) for v in space.feature_variants()]
    assert found == [(None, 10), (1.5, None)]
    assert loads(space.to_yaml()) == space


def test_a_space_can_be_pickled():
    space = loads(NESTED)
    assert pickle.loads(pickle.dumps(space)) == space


# --- the resolved file ----------------------------------------------------------------------


def test_the_resolved_file_loads_as_an_equal_space():
    space = loads(NESTED)
    again = loads(space.to_yaml())
    assert again == space
    assert again.ranges == space.ranges
    rngs = np.random.default_rng(1), np.random.default_rng(1)
    samples = [s.sample(drawn_with(r)) for s, r in zip((space, again), rngs, strict=True)]
    assert samples[0] == samples[1]
    assert "momentum: 0.9" in space.to_yaml()
    assert "kernel_size: 3" in space.to_yaml()


@settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
)
def test_any_text_survives_the_resolved_file_and_an_override(text):
    assume(not UNSAFE.search(text))
    space = loads(PLAIN, overrides=[as_override("data.root", text)])
    assert space.template.data.root == text
    assert loads(space.to_yaml()).template.data.root == text


def test_spaces_that_differ_are_not_equal():
    assert loads(PLAIN) != loads(f"{PLAIN}train: {{epochs: 21}}")
    assert loads(PLAIN) == loads(f"{PLAIN}train: {{epochs: 20}}")


# --- overrides ------------------------------------------------------------------------------


def test_overrides_replace_leaves_ranges_and_blocks():
    overrides = [
        "train.epochs=3",
        "optim.lr=1e-3",
        "data.split={column: fold, val: [4], test: [5]}",
        "model={choice: [{name: resnet18}, {name: cnn, blocks: {integer: [3, 4]}}]}",
        "search.trials=5",
        "search.trials=6",
    ]
    space = loads(NESTED, overrides=overrides)
    assert space.ranges == {
        "features.n_mels": Choice((32, 64)),
        "model": Choice(("resnet18", "cnn")),
        "model.cnn.blocks": Integer(3, 4),
    }
    template = space.template
    assert (template.train.epochs, template.optim.lr, template.search.trials) == (3, 1e-3, 6)
    assert template.data.split == ColumnSplit(column="fold", val=("4",), test=("5",))


def test_overrides_do_not_change_the_source():
    assert loads(PLAIN, overrides=["name=y"]).source == PLAIN


# --- warnings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("optim: {momentum: 0.5}", ["f.yaml:3:19: optim.momentum: has no effect with adamw"]),
        ("optim: {momentum: 0.5, name: sgd}", []),
        ("optim: {momentum: {uniform: [0.5, 0.8]}, name: {choice: [adam, sgd]}}", []),
        ("scheduler: {name: none, grace_epochs: 5}", ["f.yaml:3:39: scheduler.grace_epochs"]),
        ("confirm: {top: 5}\nsearch: {trials: 3}", ["f.yaml:3:16: confirm.top: only 3 trials"]),
        ("search: {trials: 1}", []),
    ],
)
def test_settings_without_effect_are_warned_about(text, warned):
    warnings = [str(warning) for warning in loads(PLAIN + text, "f.yaml").warnings]
    assert len(warnings) == len(warned)
    for line, start in zip(warnings, warned, strict=True):
        assert line.startswith(start)


# --- empty mel bands ------------------------------------------------------------------------

FRONT_ENDS = st.builds(
    Features,
    sample_rate=st.sampled_from([8000, 11025, 16000, 22050, 44100]),
    n_fft=st.sampled_from([128, 256, 400, 512, 1024, 2048]),
    n_mels=st.integers(4, 256),
    f_min=st.floats(0.5, 500.0),
    f_max=st.one_of(st.none(), st.floats(1000.0, 4000.0)),
)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@settings(max_examples=150, deadline=None)
@given(FRONT_ENDS)
def test_empty_mel_bands_are_those_of_torchaudio(features):
    top = features.f_max or float(features.sample_rate // 2)
    bank = torchaudio.functional.melscale_fbanks(
        n_freqs=features.n_fft // 2 + 1,
        f_min=features.f_min,
        f_max=top,
        n_mels=features.n_mels,
        sample_rate=features.sample_rate,
    )
    empty = set(torch.nonzero(bank.max(dim=0).values == 0).flatten().tolist())
    # torchaudio counts in 32 bits: leave out the bands with an edge on a bin, within rounding.
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (features.f_min, top))
    edges = 700 * (10 ** (np.linspace(low, high, features.n_mels + 2) / 2595) - 1)
    bins = edges / ((features.sample_rate // 2) / (features.n_fft // 2))
    on_bin = np.abs(bins - np.round(bins)) < 1e-3
    clear = {band for band in range(features.n_mels) if not (on_bin[band] or on_bin[band + 2])}
    assert set(empty_mel_bands(features)) & clear == empty & clear


def test_the_default_front_end_has_no_empty_bands():
    # librosa and torchaudio warn from 128 bands on at n_fft 512 and 22,050 Hz, not at 64 of 1024.
    assert empty_mel_bands(Features()) == []
    assert empty_mel_bands(Features(n_fft=512, n_mels=128)) != []


# --- cost of the import ---------------------------------------------------------------------


def test_importing_the_config_brings_nothing_heavy():
    heavy = "torch ray mlflow timm numpy pandas optuna torchaudio sklearn"
    code = f"import sys, tuner.config; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
