# Searches, and tests the model of the best trial, which Ludwig itself does not name at its end.
set -e
cd "$OUT"
export RAY_ADDRESS=local # otherwise it joins any Ray that it finds on the machine
# Its audio is read by torchcodec, which needs a shared FFmpeg; without one on the system, PyAV's is taken.
libraries=$(python -c "import av; print(av.__path__[0] + '.libs')")
for file in "$libraries"/lib{av,sw}*; do
  name=$(basename "$file")
  version=${name#*.so.}
  ln -sf "$file" "./${name%%-*}.so.${version%%.*}"
done
export LD_LIBRARY_PATH="$OUT:$libraries"
python - <<'END'
import csv, os
number = {"train": 0, "val": 1, "test": 2}
rows = [row | {"split": number[row["split"]]} for row in csv.DictReader(open(os.environ["MANIFEST"]))]
with open("data.csv", "w") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
END
sed "s/\$SECONDS_LEFT/$SECONDS_LEFT/" "$HERE/ludwig.yaml" > config.yaml
ludwig hyperopt --config config.yaml --dataset data.csv --output_directory . --experiment_name hyperopt
python - <<'END'
import json
from pathlib import Path

import pandas
from ludwig.api import LudwigModel
from sklearn.metrics import accuracy_score, f1_score


def score(trial):
    lines = (trial / "result.json").read_text().splitlines()
    return max(json.loads(line).get("metric_score", 0.0) for line in lines)


kept = sorted(Path("hyperopt").glob("trial_*/checkpoint_*/model"))
best = max(kept, key=lambda model: score(model.parents[1]))
model, data, f1 = LudwigModel.load(str(best), backend="local"), pandas.read_csv("data.csv"), {}
for name, number in (("val", 1), ("test", 2)):
    part = data[data.split == number]
    found = model.predict(dataset=part)[0]["label_predictions"].astype(str)
    f1[name] = f1_score(part.label, found, average="macro")
result = {"f1": f1["test"], "accuracy": accuracy_score(part.label, found), "val_f1": f1["val"], "trials": len(kept)}
Path("test.json").write_text(json.dumps(result))
END
