"""Optuna with TPE and the median pruner, two trials at a time: MANIFEST OUT SECONDS."""

import json
import sys
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch_cnn import load, network, scores, train

data, out, seconds = load(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
torch.set_num_threads(1)


def objective(trial: optuna.Trial) -> float:
    """Train one configuration and keep its weights."""
    config = {
        "channels": trial.suggest_categorical("channels", [8, 16, 24]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "lr": trial.suggest_float("lr", 1e-3, 1e-2, log=True),
        "decay": trial.suggest_float("decay", 1e-4, 1e-1, log=True),
        "time_mask": trial.suggest_int("time_mask", 10, 40),
        "band_mask": trial.suggest_int("band_mask", 4, 12),
    }
    for epoch, score, model in train(config, data):
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    trial.set_user_attr("config", config)
    torch.save(model.state_dict(), out / f"trial-{trial.number}.pt")
    return score


study = optuna.create_study(
    study_name="rival",
    storage=JournalStorage(JournalFileBackend(str(out / "journal.log"))),
    load_if_exists=True,
    direction="maximize",
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=9),
)
study.optimize(objective, timeout=seconds, n_jobs=2)
best = study.best_trial
model = network(best.user_attrs["config"], int(data["train"][1].max()) + 1)
model.load_state_dict(torch.load(out / f"trial-{best.number}.pt"))
f1, accuracy = scores(model, *data["test"])
found = {"f1": f1, "accuracy": accuracy, "val_f1": best.value, "trials": len(study.trials)}
(out / "test.json").write_text(json.dumps(found))
