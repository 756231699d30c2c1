"""Prints the JSON schema of space files; with ``page``, the documentation page of all settings."""

from __future__ import annotations

import json
import sys

from tuner.config.json_schema import space_schema
from tuner.config.settings_page import settings_page

if __name__ == "__main__":
    page = sys.argv[1:] == ["page"]
    sys.stdout.write(settings_page() if page else json.dumps(space_schema(), indent=2) + "\n")
