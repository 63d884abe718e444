"""A ledger's budgets and runs as Prometheus scrapes them, and the dashboard that shows them."""

from __future__ import annotations

import json
import re
import socket
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from greentrain.budget import Budget
from greentrain.cli.app import app
from greentrain.cli.ledger_commands import budgets_frame
from greentrain.cli.metrics_command import serve
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.tracking.prometheus import (
    AMOUNTS,
    DASHBOARD,
    LAST_J,
    POWER,
    RUNNING,
    UP,
    budget_metric,
)


@pytest.fixture
def url(tmp_path):
    """A ledger whose open run has spent 20 of 100 J, and reserved 30 J."""
    url = f"sqlite:///{tmp_path / 'team.db'}"
    ledger = Ledger(url)
    run = ledger.open_run("stream", "digits")
    account = ledger.account(ledger.open_budget("team", Budget.parse("100 J")), run)
    account.settle(account.reserve(25.0, "first"), 20.0)
    account.reserve(30.0, "second")
    yield url
    run.close()
    ledger.close()


def test_a_scrape_has_the_budget_and_the_run_of_the_moment(url, tmp_path):
    server = serve(url, "127.0.0.1", 0)
    try:
        text = urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read().decode()
        (tmp_path / "team.db").rename(tmp_path / "moved.db")
        gone = urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read().decode()
    finally:
        server.shutdown()
        server.server_close()
        (tmp_path / "moved.db").rename(tmp_path / "team.db")
    values = dict(
        re.findall(r"(?m)^greentrain_budget_(\w+)_joules\{budget=\"team\"\} (\S+)$", text)
    )
    amounts = {name: float(value) for name, value in values.items()}
    assert amounts == {"total": 100, "spent": 20, "reserved": 30, "left": 50, "overrun": 0}
    assert 'greentrain_run_running{kind="stream",run="digits"} 1.0' in text
    assert f"{UP} 1.0" in text
    assert [line for line in gone.splitlines() if not line.startswith("#")] == [f"{UP} 0.0"]


def test_a_port_in_use_is_one_sentence(url):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigurationError, match=rf"cannot listen at 127\.0\.0\.1:{port}: Addr"
        ):
            serve(url, "127.0.0.1", port)


def test_the_dashboard_shows_metrics_that_are_served(tmp_path):
    done = CliRunner().invoke(app, ["serve-metrics", "--dashboard", str(tmp_path / "a.json")])
    assert done.exit_code == 0
    dashboard = json.loads((tmp_path / "a.json").read_text())
    assert dashboard == json.loads(DASHBOARD.read_text())
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"greentrain_\w+", target["expr"])
    }
    served = {UP, POWER, RUNNING, LAST_J, *(budget_metric(a, u) for a in AMOUNTS for u in "Jg")}
    assert shown <= served
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_budgets_can_be_watched(url):
    table = budgets_frame([url])
    assert [str(column.header) for column in table.columns][-2:] == ["left", "overrun"]
    done = CliRunner().invoke(app, ["ledger", "budgets", url, "--watch"])  # no terminal: once
    assert (done.exit_code, "20 J" in done.stdout) == (0, True)
    refused = CliRunner().invoke(app, ["ledger", "budgets", url, "--watch", "--json"])
    assert isinstance(refused.exception, ConfigurationError)
