"""Space files to typed spaces: values, ranges, defaults, overrides, samples."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.errors import SpecError
from pipelines.features import KINDS, FeatureSpec
from pipelines.features.rules import check_front_end
from pipelines.settings import ClipSpec, SplitSpec
from tuner.config import Experiment, Resources, Space, as_override, load, loads
from tuner.config.data import ColumnSplit
from tuner.config.ranges import Choice, Integer, LogUniform, Range, Uniform
from tuner.config.yaml_text import Scalar
from tuner.errors import ConfigError, SpaceError
from tuner.models.convnets import Cnn

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
    return range_.arguments[0]


def with_values(space: Space, params: dict[str, Scalar]) -> Experiment:
    return space.sample(lambda name, _: params[name]).experiment


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


def test_an_alias_repeats_its_anchor():
    space = loads(f"{PLAIN}optim: {{lr: &r {{uniform: [0.1, 0.2]}}, momentum: *r}}")
    assert space.ranges == {"optim.lr": Uniform(0.1, 0.2), "optim.momentum": Uniform(0.1, 0.2)}


def test_a_file_without_ranges_is_one_experiment():
    space = loads(PLAIN)
    assert space.ranges == {}
    assert space.sample(first).experiment == Experiment(name="x", model=Cnn(name="cnn"))
    assert (space.tree.count_draws(), len(list(space.enumerate_grid()))) == (1, 1)


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
    made = with_values(space, {"model": "cnn#2", "train": "1", "train.1.epochs": 7})
    assert (made.model, made.train.epochs) == (Cnn(name="cnn", blocks=3), 7)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_sample_is_rebuilt_from_its_parameters(seed):
    space = loads(NESTED)
    sample = space.sample(drawn_with(np.random.default_rng(seed)))
    assert with_values(space, sample.params) == sample.experiment


def test_samplers_floats_become_whole_steps():
    space = loads(f"{PLAIN}features: {{n_fft: {{quantized: [1024, 2048, 512]}}}}")
    assert space.sample(lambda *_: 1536.0).experiment.features.n_fft == 1536


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"features.n_mels": 48}, "features.n_mels: 48 is not in choice [32, 64]"),
        (
            {"features.n_mels": 32, "model": "cnn", "model.cnn.blocks": 9},
            "9 is not in integer",
        ),
        ({"features.n_mels": 32, "model": "vgg"}, 'model: "vgg" is not in choice'),
    ],
)
def test_values_outside_their_range_are_refused(params, words):
    with pytest.raises(SpaceError) as caught:
        with_values(loads(NESTED), params)
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
    assert space.tree.count_draws() == len(params) == len(set(params)) == 10
    assert params[0] == (("model", "cnn"), ("model.cnn.blocks", 2), ("train.batch_size", 16))
    assert params[1][-1] == ("train.batch_size", 32)


def test_feature_variants_are_the_distinct_feature_sets():
    text = f"{PLAIN}data: {{clip_seconds: {{choice: [3.0, 5.0]}}}}\n"
    text += "features: {n_mels: {choice: [32, 64]}}\ntrain: {batch_size: {choice: [16, 32]}}\n"
    found = [(clip.clip_seconds, f.n_mels) for clip, f in loads(text).feature_variants()]
    assert found == [(3.0, 32), (3.0, 64), (5.0, 32), (5.0, 64)]


def test_front_ends_on_the_device_share_a_set_of_samples():
    text = f"{PLAIN}features: {{compute: device, n_mels: {{choice: [32, 64]}}}}\n"
    space = loads(text)
    ((_, stored),) = space.feature_variants()
    assert stored.kind == "waveform"
    drawn = [with_values(space, {"features.n_mels": n}) for n in (32, 64)]
    assert drawn[0].feature_set_key == drawn[1].feature_set_key
    assert [(e.front_end.kind, e.front_end.n_mels) for e in drawn] == [
        ("logmel", 32),
        ("logmel", 64),
    ]
    assert drawn[0].effective_settings() != drawn[1].effective_settings()
    (warning,) = loads("name: x\nmodel: {name: conv1d}\nfeatures: {compute: device}").warnings
    assert "features.compute: has no effect with waveform" in str(warning)


def test_a_hop_that_may_be_null_leaves_the_clips_to_their_default():
    space = loads(f"{PLAIN}data: {{hop_seconds: {{choice: [null, 1.5]}}}}")
    found = [(c.hop_seconds, c.clips_per_track) for c, _ in space.feature_variants()]
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


def test_a_resolved_file_with_folds_has_no_shares_that_are_not_used():
    space = loads(PLAIN + "data: {split: {folds: 5, test: 0.2}}")
    assert "  split: {folds: 5, test: 0.2, by: group}\n" in space.to_yaml()
    assert loads(space.to_yaml()) == space


@settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
)
def test_any_text_survives_the_resolved_file_and_an_override(text):
    assume(not UNSAFE.search(text))
    space = loads(PLAIN, overrides=[as_override("data.root", text)])
    assert space.template.data.root == text
    assert loads(space.to_yaml()).template.data.root == text


@pytest.mark.parametrize(
    ("train", "largest"),
    [
        ("{epochs: 7}", 7),
        ("{epochs: {choice: [20, 5, 10]}}", 20),
        ("{epochs: {choice: [5, 30, 10]}, batch_size: {choice: [8, 16]}}", 30),
        ("{epochs: {integer: [5, 12]}}", 12),
        ("{choice: [{epochs: 4}, {epochs: {quantized: [6, 24, 6]}}, {epochs: 9}]}", 24),
    ],
)
def test_the_longest_trials_are_those_of_the_largest_number_of_epochs(train, largest):
    assert loads(f"name: x\nmodel: {{name: cnn}}\ntrain: {train}").max_epochs == largest


def test_a_start_survives_the_resolved_file():
    text = (
        "name: x\nmodel: {choice: [{name: linear}, {name: linear, l2: {uniform: [0.1, 0.2]}}]}\n"
        "features: {network: {choice: [speech, [speech, vgg_mtt]]}}\nsearch:\n  start:\n"
        "    - {model: 'linear#2', 'model.linear#2.l2': 0.125,\n"
        "       features.network: [speech, vgg_mtt]}"
    )
    space = loads(text)
    assert loads(space.to_yaml()) == space
    given = {
        "model": "linear#2",
        "model.linear#2.l2": 0.125,
        "features.network": "speech + vgg_mtt",
    }
    assert space.start == loads(space.to_yaml()).start == (given,)


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
        ("search: {trials: 1}", []),
        ("data: {split: {folds: 5, test: 0.15, val: 0.5, train: 0.1}}",
         ["f.yaml:3:55: data.split.train: has no effect with folds",
          "f.yaml:3:43: data.split.val: has no effect with folds"]),
        ("data: {split: {column: fold, folds: 5, val: [1], test: [2]}}", []),
        ("scheduler: {name: none, reduction_factor: 5}", ["f.yaml:3:43: scheduler.reduction_f"]),
        ("features: {kind: stft, n_mels: 32}",
         ["f.yaml:3:32: features.n_mels: has no effect with stft; it is read by logmel, mfcc, t"]),
        ("features: {kind: stft, n_mels: 64, n_mfcc: 20}", []),  # as a resolved file has it
        ("features: {kind: stft, n_mels: {choice: [64, 32]}}", ["f.yaml:3:42: features.n_mels"]),
        ("features: {kind: {choice: [stft, logmel]}, n_mels: 32}", []),
        ("features: {choice: [{kind: mfcc}, {kind: stft, n_mfcc: 8}]}",
         ["f.yaml:3:56: features.stft.n_mfcc: has no effect with stft; it is read by mfcc"]),
        ("optim: {choice: [{name: sgd, momentum: 0.5}, {name: adam, momentum: 0.5}]}",
         ["f.yaml:3:69: optim.adam.momentum: has no effect with adam"]),
    ],
)  # fmt: skip
def test_settings_without_effect_are_warned_about(text, warned):
    warnings = [str(warning) for warning in loads(PLAIN + text, "f.yaml").warnings]
    assert len(warnings) == len(warned)
    for line, start in zip(warnings, warned, strict=True):
        assert line.startswith(start)


# --- feature kinds --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logmel", "stft", "mfcc", "tempogram"])
def test_every_kind_with_rows_and_columns_can_be_asked_for(kind):
    text = f"features: {{kind: {kind}, n_fft: 512, hop_length: 256, n_mels: 32, n_mfcc: 8}}"
    made = loads(PLAIN + text).template.front_end
    assert (made.kind, made.n_fft, made.hop_length) == (kind, 512, 256)
    # By hand, from what each kind is: only these have a mel bank, only one has coefficients.
    assert made.n_mels == (64 if kind == "stft" else 32)
    assert made.n_mfcc == (8 if kind == "mfcc" else 20)


@pytest.mark.parametrize(
    "features",
    [
        "{kind: stft, n_mels: 1000, f_max: 1e6, n_mfcc: 1000}",
        "{kind: logmel, n_mfcc: 65}",
        "{kind: mfcc, n_mels: 40, n_mfcc: 40, n_lags: 2}",
    ],
)
def test_settings_that_a_kind_does_not_read_are_not_judged(features):
    loads(f"{PLAIN}features: {features}")


TWO_KINDS = """
name: x
model: {name: cnn}
features:
  choice:
    - {kind: logmel, n_mels: {choice: [32, 64]}}
    - {kind: mfcc, n_mels: 40, n_mfcc: {choice: [13, 20]}}
"""


def test_a_front_end_can_be_a_conditional_block_named_by_its_kind():
    space = loads(TWO_KINDS)
    assert space.ranges == {
        "features": Choice(("logmel", "mfcc")),
        "features.logmel.n_mels": Choice((32, 64)),
        "features.mfcc.n_mfcc": Choice((13, 20)),
    }
    made = with_values(space, {"features": "mfcc", "features.mfcc.n_mfcc": 13}).features
    assert (made.kind, made.n_mels, made.n_mfcc) == ("mfcc", 40, 13)
    assert loads(space.to_yaml()) == space
    assert (space.warnings, loads(space.to_yaml()).warnings) == ((), ())
    found = [feature for _, feature in space.feature_variants()]
    assert [(f.kind, f.n_mels, f.n_mfcc) for f in found] == [
        ("logmel", 32, 20), ("logmel", 64, 20), ("mfcc", 40, 13), ("mfcc", 40, 20),
    ]  # fmt: skip


def test_a_setting_that_one_kind_does_not_read_makes_no_second_feature_set_of_it():
    text = "features: {kind: {choice: [stft, logmel]}, n_mels: {choice: [32, 64]}}"
    found = [feature for _, feature in loads(PLAIN + text).feature_variants()]
    # By hand: stft once (n_mels is the default, 64), logmel with 32 and with 64 bands.
    assert [(f.kind, f.n_mels) for f in found] == [("stft", 64), ("logmel", 32), ("logmel", 64)]


FRONT_ENDS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["logmel", "stft", "mfcc", "tempogram"])},
    optional={
        "sample_rate": st.sampled_from([4000, 8000, 22050, 44100]),
        "n_fft": st.integers(16, 2048),
        "win_length": st.integers(1, 2048),
        "hop_length": st.integers(1, 2048),
        "f_min": st.floats(0, 3000, width=16),
        "f_max": st.floats(100, 30_000, width=16),
        "n_mels": st.integers(1, 200),
        "n_mfcc": st.integers(1, 100),
        "n_lags": st.integers(2, 2048),
    },
)


@settings(max_examples=300, deadline=None)
@given(FRONT_ENDS, st.floats(0.01, 1.0))
def test_the_pipeline_takes_exactly_the_front_ends_that_a_space_file_may_hold(values, seconds):
    """The pipeline's own specs are the oracle, made from what their table says a kind reads."""
    read = {"kind", "sample_rate", *KINDS[values["kind"]].reads}
    wanted: FeatureSpec | None
    try:
        wanted = FeatureSpec(**{k: v for k, v in values.items() if k in read})
        check_front_end(ClipSpec(clip_seconds=seconds), wanted)
    except SpecError:
        wanted = None
    text = f"{PLAIN}data: {{clip_seconds: {seconds!r}}}\nfeatures: {json.dumps(values)}"
    found: FeatureSpec | None
    try:
        found = loads(text).template.front_end
    except ConfigError:
        found = None
    assert found == wanted


# --- splits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        ("{train: 0.8, val: 0.1, test: 0.1}", SplitSpec(train=0.8, val=0.1, test=0.1)),
        ("clip", SplitSpec(unit="clip", train=0.70, val=0.15, test=0.15)),
        ("{by: clip}", SplitSpec(unit="clip")),
        ("{by: clip, train: 0.5, val: 0.25, test: 0.25}",
         SplitSpec(unit="clip", train=0.5, val=0.25, test=0.25)),
        ("{column: fold, val: [4], test: [5]}",
         SplitSpec(column="fold", val_values=("4",), test_values=("5",))),
    ],
)  # fmt: skip
def test_a_split_is_what_the_pipeline_calls_it(split, wanted):
    space = loads(f"{PLAIN}data: {{split: {split}}}")
    assert space.template.data.split_spec == wanted
    assert loads(space.to_yaml()) == space
    leaky = [str(w) for w in space.warnings if "clips of one recording" in w.message]
    assert len(leaky) == (wanted.unit == "clip")


@pytest.mark.parametrize("group", ["auto", "track", "tag:artist", "tag:album", "path:^(.)", "who"])
def test_a_group_is_what_the_pipeline_calls_it(group):
    data = loads(f"{PLAIN}data: {{group: '{group}'}}").template.data
    assert data.split_spec == SplitSpec(group=group)


# --- cost of the import ---------------------------------------------------------------------


def test_importing_the_config_brings_nothing_heavy():
    heavy = "torch ray mlflow timm numpy pandas optuna torchaudio sklearn"
    code = f"import sys, tuner.config; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_settings_that_a_forest_does_not_read_tell_no_two_trials_apart() -> None:
    def read(model: str, more: str = "") -> dict:
        return loads(f"name: s\nmodel: {model}\n{more}").template.effective_settings()

    forest = "{name: forest, max_depth: 5}"
    plain = read(forest)
    for more in (
        "optim: {lr: 0.5}\n", "augment: {mixup: 0.4}\n", "train: {batch_size: 8, epochs: 3}\n",
        "features: {n_mels: 32}\n", "data: {clip_seconds: 1.0}\n",
    ):  # fmt: skip
        assert read(forest, more) == plain
        assert read("{name: cnn}", more) != read("{name: cnn}")
    for other in ("train: {balance: loss}\n", "features: {hop_length: 256}\n"):
        assert read(forest, other) != plain
    assert read("{name: forest, max_depth: 6}") != plain


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--name", "a/b", "must be 1 to 64 letters"),
        ("--trials", 3_000_000, "must be at most 100000"),
        ("--budget", "soon", "must be a duration"),
        ("--data", "", "must not be empty"),
    ],
)
def test_a_message_calls_an_option_as_the_user_wrote_it(flag: str, value, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(PLAIN, overrides=[as_override(flag, value)])
    assert str(caught.value).startswith(f"{flag}: {words}")


FAMILIES = """
name: families
model:
  choice:
    - {name: forest, resources: {cpus_per_worker: 2}}
    - {name: cnn, blocks: {choice: [2, 3]}}
    - {name: cnn, blocks: 4, resources: {gpus_per_worker: 2, labels: {pool: big}}}
resources: {elastic: [1, 4], gpus_per_worker: 1}
"""


def test_each_family_has_resources_of_its_own_or_those_of_the_study() -> None:
    space = loads(FAMILIES)
    forest, cnn, big = space.resources
    assert (forest.cpus_per_worker, forest.gpus_per_worker, forest.is_alone) == (2, 0, True)
    assert (cnn.fewest, cnn.most, cnn.gpus_per_worker) == (1, 4, 1)
    assert (big.most, big.gpus_per_worker, big.labels) == (1, 2, {"pool": "big"})
    assert space.resources_of({"model": "forest"}, "forest") == forest
    assert space.resources_of({"model": "cnn", "model.cnn.blocks": 3}, "cnn") == cnn
    assert space.resources_of({"model": "cnn#2"}, "cnn") == big
    # of a trial before an extension, whose parameters are others
    assert space.resources_of({}, "cnn") == cnn
    assert space.resources_of({"model": "cnn#3"}, "cnn") == cnn
    assert space.resources_of({"model": "mlp"}, "mlp") == space.template.resources
    assert loads(space.to_yaml()) == space
    assert [model.name for model in space.models()] == ["forest", "cnn", "cnn", "cnn"]
    # Every family has its own, and the study's are for nobody: not for an old trial either.
    alone = loads(FAMILIES.replace("[2, 3]}", "[2, 3]}, resources: {cpus_per_worker: 1}"))
    assert alone.resources_of({"model": "mlp"}, "mlp") in alone.resources


def test_resources_tell_no_trials_and_no_studies_apart() -> None:
    """They may change when a study goes on."""
    dear, plain = loads(FAMILIES), loads(re.sub(r", resources: \{.*?\}+}", "}", FAMILIES))
    assert len(plain.resources) == 1
    with_forest: dict[str, Scalar] = {"model": "forest"}
    assert with_values(dear, with_forest).model_dump() == (
        with_values(plain, with_forest).model_dump()
    )
    assert dear.settings() == plain.settings()


@pytest.mark.parametrize(
    ("rule", "value", "may"),
    [
        ("A100", "A100", True),
        ("A100", "H100", False),
        ("A100", None, False),
        ("in(A100, H100)", "H100", True),
        ("in(A100,H100)", "T4", False),
        ("!T4", "A100", True),
        ("!T4", "T4", False),
        ("!in(T4, L4)", None, True),
        ("!in(T4, L4)", "L4", False),
    ],
)
def test_labels_name_the_nodes_as_ray_does(rule: str, value: str | None, may: bool) -> None:
    asked = Resources(labels={"ray.io/accelerator-type": rule})
    has = {} if value is None else {"ray.io/accelerator-type": value}
    assert asked.may_run_on(has) is may
    assert asked.odd_label is None
