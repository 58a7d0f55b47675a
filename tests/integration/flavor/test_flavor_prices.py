"""The price catalogue over HTTP: read where it is served, and no reason to wait where it is not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flavor.prices import Price, find_price

pytestmark = pytest.mark.integration

PRICING = {"input_per_million_tokens": 3, "output_per_million_tokens": 6}


class Catalogue(BaseHTTPRequestHandler):
    """Serves one file."""

    def do_GET(self) -> None:
        found = self.path == "/prices/openai.json"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"models": {"mine": {"pricing": PRICING}}}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: pytest's output is for failures."""


@pytest.fixture
def catalogue() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Catalogue)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/prices/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_served_catalogue_is_read_and_a_missing_file_falls_back(
    catalogue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", catalogue)

    assert find_price("mine") == Price(input_usd_per_token=3e-6, output_usd_per_token=6e-6)
    assert find_price("gpt-4o-mini", "azure") is not None


def test_an_unreachable_catalogue_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        uri = f"http://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", uri)

        assert find_price("gpt-4o-mini") is not None
