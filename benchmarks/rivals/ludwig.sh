# Searches, and prints the best trial, which Ludwig itself does not name at its end. Not scored on test.
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

best = json.loads(Path("hyperopt/hyperopt_statistics.json").read_text())["hyperopt_results"][0]
print(json.dumps(best)[:2000])
END
