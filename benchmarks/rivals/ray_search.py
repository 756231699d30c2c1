"""Ray Tune with ASHA and a checkpoint for each report: MANIFEST OUT SECONDS."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from torch_cnn import EPOCHS, Data, load, network, scores, train

data, out, seconds = load(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])


def trainable(config: dict[str, Any], data: Data) -> None:
    """Train one configuration and report each epoch with its weights."""
    torch.set_num_threads(1)
    for _, score, model in train(config, data):
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder, "model.pt"))
            tune.report({"f1": score}, checkpoint=tune.Checkpoint.from_directory(folder))


ray.init(num_cpus=2)
work = tune.with_resources(tune.with_parameters(trainable, data=data), {"cpu": 1})
if tune.Tuner.can_restore(str(out / "search")):
    tuner = tune.Tuner.restore(str(out / "search"), work, resume_errored=True)
else:
    tuner = tune.Tuner(
        work,
        param_space={
            "channels": tune.choice([8, 16, 24]),
            "dropout": tune.uniform(0.0, 0.5),
            "lr": tune.loguniform(1e-3, 1e-2),
            "decay": tune.loguniform(1e-4, 1e-1),
            "time_mask": tune.randint(10, 41),
            "band_mask": tune.randint(4, 13),
        },
        tune_config=tune.TuneConfig(
            metric="f1",
            mode="max",
            num_samples=-1,
            time_budget_s=seconds,
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=2),
        ),
        run_config=tune.RunConfig(name="search", storage_path=str(out)),
    )
results = tuner.fit()
best = results.get_best_result()
model = network(best.config, int(data["train"][1].max()) + 1)
with best.checkpoint.as_directory() as folder:
    model.load_state_dict(torch.load(Path(folder, "model.pt")))
f1, accuracy = scores(model, *data["test"])
found = {"f1": f1, "accuracy": accuracy, "val_f1": best.metrics["f1"], "trials": len(results)}
(out / "test.json").write_text(json.dumps(found))
