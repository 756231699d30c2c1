"""Prints the JSON schema: ``python -m tuner.config > search_spaces/space.schema.json``."""

from __future__ import annotations

import json
import sys

from tuner.config.json_schema import space_schema

if __name__ == "__main__":
    sys.stdout.write(json.dumps(space_schema(), indent=2) + "\n")
