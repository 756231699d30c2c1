"""Load on a served model: clients that send one audio file again and again."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import requests


def load(url: str, audio: bytes, num_requests: int = 200, num_clients: int = 8) -> dict[str, Any]:
    """Send an audio file many times and count the answers.

    Args:
        url: Address of the server.
        audio: The file.
        num_requests: Requests in all.
        num_clients: Requests at the same time.
    """
    body = json.dumps({"inputs": [{"audio": base64.b64encode(audio).decode()}]})
    headers = {"Content-Type": "application/json"}

    def ask(_: int) -> tuple[float, str]:
        started = time.perf_counter()
        try:
            text = requests.post(f"{url}/invocations", body, headers=headers, timeout=120).text
            found = json.loads(text)["predictions"][0]
        except (requests.RequestException, ValueError, LookupError) as error:
            found = {"label": None, "error": repr(error)}
        return time.perf_counter() - started, json.dumps(found) if found["label"] else ""

    started = time.perf_counter()
    with ThreadPoolExecutor(num_clients) as pool:
        seconds, answers = zip(*pool.map(ask, range(num_requests)), strict=True)
    p50, p95 = np.percentile(seconds, [50, 95])
    return {
        "requests": num_requests,
        "lost": answers.count(""),
        "different_answers": len(set(answers)),
        "p50_seconds": round(float(p50), 3),
        "p95_seconds": round(float(p95), 3),
        "per_second": round(num_requests / (time.perf_counter() - started), 1),
    }


@click.command()
@click.argument("url")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--requests", "num_requests", default=200, show_default=True)
@click.option("--clients", "num_clients", default=8, show_default=True)
def main(url: str, file: Path, num_requests: int, num_clients: int) -> None:
    """Send FILE to the server at URL; prints one JSON object.

    Start a server with the line in docs/serve.md.
    """
    print(json.dumps(load(url.rstrip("/"), file.read_bytes(), num_requests, num_clients)))


if __name__ == "__main__":
    main()
