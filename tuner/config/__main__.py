"""Command that prints the JSON schema, or with ``page`` the page of all settings."""

from __future__ import annotations

import json
import sys

from tuner.config.generated import settings_page, space_schema

if __name__ == "__main__":
    page = sys.argv[1:] == ["page"]
    sys.stdout.write(settings_page() if page else json.dumps(space_schema(), indent=2) + "\n")
