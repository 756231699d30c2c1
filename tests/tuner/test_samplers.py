"""The contract of every row of the samplers' table, on every form of space."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.config import Space, load, loads
from tuner.errors import ConfigError, UsageError
from tuner.ledger.states import State
from tuner.ledger.trial_rows import TrialRow
from tuner.trials.plan import Proposal
from tuner.trials.samplers import SAMPLERS, propose

ROOT = Path(__file__).parents[2]
LEARNERS = ["tpe", "gp", "nsga2"]
SPACES = {
    "flat": "model: {name: cnn, dropout: {uniform: [0.0, 0.5]}}",
    "log": "model: {name: cnn}\noptim: {lr: {log_uniform: [1e-4, 1e-2]}}\n"
    "train: {batch_size: {log_integer: [2, 64]}}",
    "integer": "model: {name: cnn, blocks: {integer: [2, 5]}}\n"
    "train: {epochs: {integer: [3, 90]}}",
    "quantised": "model: {name: cnn, dropout: {quantized: [0.0, 0.6, 0.1]}}\n"
    "augment: {mixup: {quantized: [0.0, 0.9, 0.3]}, gain_db: {uniform: [0.0, 9.0]}}",
    "conditional": "model: {choice: [{name: cnn, blocks: {integer: [2, 5]}, "
    "pool: {choice: [avg, concat]}}, {name: resnet18, drop_rate: {uniform: [0.0, 0.5]}}, "
    "{name: forest}]}\noptim: {lr: {log_uniform: [1e-4, 1e-2]}}",
}


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of samplers on Python's path."""
    folder = tmp_path / "on_path"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    write(
        folder / "mine.py",
        "return {name: leaf.sample(rng) for name, leaf in space.ranges.items()}",
    )
    return folder / "mine.py"


def write(module: Path, body: str, head: str = "") -> None:
    module.write_text(
        f"{head}\nclass Mine:\n    def __call__(self, space, trials, rng):\n        {body}\n"
    )


def space(form: str, algorithm: str, trials: int = 40) -> Space:
    plug = ", plug: 'mine:Mine'" if algorithm == "plug" else ""
    search = f"search: {{algorithm: {algorithm}, trials: {trials}, seed: 2{plug}}}"
    return loads(f"name: s\n{SPACES[form]}\n{search}\nscheduler: {{grace_epochs: 1}}\n")


def row(proposal: Proposal, value: float | None, status: str = "completed") -> TrialRow:
    best = None if value is None else {"epoch": 1, "metrics": {"val_f1_macro": value}}
    return TrialRow(
        proposal.trial_id, "search", proposal.ordinal, proposal.seed, dict(proposal.params),
        proposal.experiment.model_dump(mode="json"), None, status=State(status), best=best,
    )  # fmt: skip


def run(space: Space, count: int, score: Any = lambda params: 0.5) -> list[TrialRow]:
    """Run trials one after another; every fifth is stopped early, every seventh fails."""
    rows: list[TrialRow] = []
    for number in range(count):
        proposal = propose(space, rows)
        assert proposal is not None
        rows.append(row(proposal, float(score(proposal.params))))
        if number % 5 == 4:
            rows[-1].status, rows[-1].must_stop = State.STOPPED_EARLY, True
            rows[-1].history = [(1, {"val_f1_macro": 0.5 * score(proposal.params)})]
        if number % 7 == 6:
            rows[-1].status, rows[-1].best = State.FAILED, None
    return rows


def by_value(params: dict[str, Any]) -> float:
    """Any function of the parameters."""
    return sum(hash(value) % 97 for value in params.values() if not isinstance(value, str)) / 500


ROWS = [name for name in SAMPLERS if name != "grid"]  # which takes no continuous range


@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("algorithm", ROWS)
def test_a_sampler_is_a_pure_function_of_the_trials_and_proposes_two_that_differ(
    algorithm: str, form: str
) -> None:
    made, rows = space(form, algorithm), run(space(form, "random"), 15, by_value)
    first = propose(made, rows)
    assert first is not None
    assert made.sample(lambda name, _: first.params[name]).params == first.params
    second = propose(made, [*rows, row(first, None, "running")])
    assert second is not None
    assert second.ordinal == first.ordinal + 1
    assert second.params != first.params
    # Another process, after a kill, with rows that were read again.
    again = space(form, algorithm)
    resumed = [*copy.deepcopy(rows), row(first, None, "interrupted")]
    assert propose(again, resumed[:-1]) == first
    assert propose(again, resumed) == second


@pytest.mark.parametrize("file", ["all", "auto"])
@pytest.mark.parametrize("algorithm", ROWS)
def test_every_row_works_on_the_shipped_spaces_of_many_families(algorithm: str, file: str) -> None:
    plug = ["search.plug=mine:Mine"] if algorithm == "plug" else []
    made = load(ROOT / f"search_spaces/{file}.yaml", [f"search.algorithm={algorithm}", *plug])
    rows = run(made, 13, by_value)
    assert len({one.model for one in rows}) > 3


TWICE = """
import sys
from tests.tuner.test_samplers import propose, run, space
for algorithm in sys.argv[1:]:
    rows = run(space("conditional", "random"), 14)
    print(propose(space("conditional", algorithm), rows).params)
"""


def test_another_process_proposes_the_same() -> None:
    names = [name for name in ROWS if name != "plug"]
    environment = {**os.environ, "PYTHONHASHSEED": "5", "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", TWICE, *names], capture_output=True, text=True, check=True,
        timeout=60, env=environment, cwd=ROOT,
    ).stdout  # fmt: skip
    rows = run(space("conditional", "random"), 14)
    found = [propose(space("conditional", name), rows) for name in names]
    assert out.splitlines() == [str(one.params) for one in found if one]


def near(params: dict[str, Any]) -> float:
    """Best at three blocks and a rate of 1e-3."""
    off = abs(float(np.log10(params["optim.lr"])) + 3) + 0.3 * abs(params["model.blocks"] - 3)
    return 1 - off + 0.1 * (params["model.pool"] == "concat")


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_a_sampler_that_learns_is_better_than_random_draws(algorithm: str) -> None:
    text = "model: {name: cnn, blocks: {integer: [2, 5]}, pool: {choice: [avg, concat]}}"
    text += "\noptim: {lr: {log_uniform: [1e-4, 1e-2]}}"

    def learn(name: str) -> float:
        made = loads(f"name: s\n{text}\nsearch: {{algorithm: {name}, trials: 40}}")
        return float(np.mean([near(one.params) for one in run(made, 26, near)[-10:]]))

    assert learn(algorithm) > learn("random") + 0.25


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_a_configuration_is_hardly_tried_twice(algorithm: str) -> None:
    text = "model: {name: cnn, blocks: {integer: [2, 5]}, channels: {choice: [16, 24, 32]}}"
    made = loads(f"name: s\n{text}\nsearch: {{algorithm: {algorithm}, trials: 12}}")
    rows = run(made, 12, lambda params: params["model.blocks"] / 10)
    assert len({tuple(one.params.values()) for one in rows}) >= 11


def test_quasi_random_points_leave_smaller_gaps_than_random_draws() -> None:
    def gap(algorithm: str) -> float:
        values = sorted(one.params["model.dropout"] for one in run(space("flat", algorithm), 32))
        return max(np.diff([0.0, *values, 0.5]))

    assert gap("qmc") < 2 * 0.5 / 32 < gap("random")
    integers = [one.params["model.blocks"] for one in run(space("integer", "qmc"), 32)]
    assert [integers.count(blocks) for blocks in (2, 3, 4, 5)] == [8] * 4


def test_quasi_random_points_begin_after_the_given_configurations() -> None:
    made = space("flat", "qmc")
    given = loads(made.source.replace("seed: 2", "seed: 2, start: [{model.dropout: 0.1}]"))
    expected = [one.params for one in run(made, 4)]
    assert [one.params for one in run(given, 5)] == [{"model.dropout": 0.1}, *expected]


# -- plug


def asked(**trials: Any) -> Proposal:
    made = space("conditional", "plug")
    proposal = propose(made, run(made, 0, **trials))
    assert proposal is not None
    return proposal


def test_a_plug_is_asked_with_the_space_and_the_trials_and_the_rest_is_drawn(mine: Path) -> None:
    values = (
        "{'model': 'cnn', 'model.cnn.blocks': whole(3), 'optim.lr': 10.0 ** -(2 + len(trials))}"
    )
    write(mine, f"return {values}", "from numpy import int64 as whole")
    made = space("conditional", "plug")
    rows = run(made, 3)
    assert [one.params["optim.lr"] for one in rows] == [1e-2, 1e-3, 1e-4]
    assert {one.params["model.cnn.blocks"] for one in rows} == {3}
    assert all(one.params["model.cnn.pool"] in ("avg", "concat") for one in rows)


def test_the_sampler_in_the_user_guide_repeats_the_best_with_another_rate(mine: Path) -> None:
    page = (ROOT / "docs" / "user-guide.md").read_text()
    code = page[page.index("def other_rate") :]
    mine.write_text(code[: code.index("```")])
    made = loads(space("conditional", "plug").source.replace("mine:Mine", "mine:other_rate"))
    rows = run(made, 4, lambda params: params["optim.lr"])
    without = [{k: v for k, v in one.params.items() if k != "optim.lr"} for one in rows]
    assert without == [without[0]] * 4
    assert len({one.params["optim.lr"] for one in rows}) == 4


@pytest.mark.parametrize(
    ("body", "head", "message"),
    [
        ("return 3", "", "must return values by the names of their ranges.* got 3"),
        ("return {'optim.lrr': 1e-3}", "", r"'optim.lrr', no range here; did you mean `optim.lr`"),
        ("return {'optim.lr': 5.0}", "", r"cannot be: optim.lr: 5 is not in log_uniform"),
        ("return {'model': 'vgg'}", "", r'cannot be: model: "vgg" is not in choice'),
        ("return 1 / 0", "", r"failed at trial 0: ZeroDivisionError.*mine.py, line 4\)"),
        ("return {}", "import no_such", "cannot be imported: ModuleNotFoundError.*no_such"),
        ("return {}", "1 / 0", r"cannot be imported: ZeroDivisionError.*mine.py, line 1\)"),
        ("return {}", "import os; os.nothing", "cannot be imported: AttributeError.*nothing"),
        ("return {", "", "cannot be imported: SyntaxError"),
    ],
)
def test_what_is_wrong_with_a_plug_is_said_in_a_sentence(
    body: str, head: str, message: str, mine: Path
) -> None:
    write(mine, body, head)
    with pytest.raises(UsageError, match=rf"^search.plug: mine:Mine .*{message}"):
        asked()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such:Mine", r"there is no module 'no_such' for no_such:Mine; set PYTHONPATH"),
        ("no_such.inner:Mine", r"there is no module 'no_such'"),
        ("mine:Min", r"mine has no 'Min'; did you mean `mine:Mine`"),
        ("math:pi", r"math:pi: no function\(space, trials, rng\), got 3.14"),
        ("fractions:Fraction", r"instances cannot be called; write __call__\(space"),
    ],
)
def test_a_plug_that_is_not_there_is_named(name: str, message: str) -> None:
    made = loads(space("flat", "plug").source.replace("mine:Mine", name))
    with pytest.raises(UsageError, match=message):
        propose(made, [])


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("algorithm: plug", "write plug: my_module:my_sampler"),
        ("algorithm: tpe, plug: 'a:b'", "has no effect with tpe; write algorithm: plug"),
        ("algorithm: plug, plug: a.b", "must be written as module:name.*got .*'a.b'"),
        ("algorithm: plug, plug: 'a b:c'", "must be written as module:name"),
    ],
)
def test_a_space_file_names_a_plug_or_another_algorithm(search: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loads(f"name: s\n{SPACES['flat']}\nsearch: {{{search}}}")
