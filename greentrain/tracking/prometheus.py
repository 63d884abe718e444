"""Export the budgets and running updates of a ledger as metrics of Prometheus.

Each scrape reads the ledger once, so the metrics are those of the moment, and nothing is added to
the training process. The ledger may be that of a running stream, or of many on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger
from greentrain.ledger.live import LiveView, live_view

if TYPE_CHECKING:
    from prometheus_client.metrics_core import GaugeMetricFamily

DASHBOARD = Path(__file__).with_name("grafana.json")
"""A dashboard of Grafana for these metrics."""
UP = "greentrain_ledger_up"
POWER = "greentrain_run_power_watts"
RUNNING = "greentrain_run_running"
LAST_J = "greentrain_last_experience_joules"
AMOUNTS = ("total", "spent", "reserved", "left", "overrun")
"""Amounts of a budget; each is ``greentrain_budget_NAME_joules`` or ``..._grams``."""


def budget_metric(amount: str, unit: str) -> str:
    """Return the name of a metric of budgets.

    Args:
        amount: One of :data:`AMOUNTS`.
        unit: ``"J"`` or ``"g"``.

    Example:
        >>> budget_metric("left", "J")
        'greentrain_budget_left_joules'
    """
    return f"greentrain_budget_{amount}_{'joules' if unit == 'J' else 'grams'}"


class LedgerCollector:
    """A collector of ``prometheus_client`` that reads a ledger at each scrape.

    Args:
        ledger: The ledger's file or URL.
    """

    def __init__(self, ledger: str) -> None:
        self._ledger = ledger

    def describe(self) -> list[Any]:
        """Return nothing, so that registering reads no ledger."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics; only :data:`UP` is there if the ledger cannot be read."""
        from prometheus_client.metrics_core import GaugeMetricFamily

        try:
            with closing(Ledger(self._ledger, create=False)) as opened:
                view = live_view(opened, last=20)
        except (ConfigurationError, LedgerError):
            yield GaugeMetricFamily(UP, "Whether the ledger can be read", value=0)
            return
        yield GaugeMetricFamily(UP, "Whether the ledger can be read", value=1)
        yield from _of_budgets(view)
        yield from _of_runs(view)


def _of_budgets(view: LiveView) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    for unit in ("J", "g"):
        for amount in AMOUNTS:
            name = budget_metric(amount, unit)
            words = f"Amount {amount} of a budget in its present period"
            family = GaugeMetricFamily(name, words, labels=["budget"])
            for budget, status in view.budgets.items():
                values = {
                    "total": status.total,
                    "spent": status.spent,
                    "reserved": status.taken.reserved,
                    "left": status.left,
                    "overrun": status.taken.overrun + status.overdrawn,
                }
                if status.unit == unit:
                    family.add_metric([budget], values[amount])
            if family.samples:
                yield family


def _of_runs(view: LiveView) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    labels = ["run", "kind"]
    power = GaugeMetricFamily(
        POWER, "Power of a running phase; at least, if incomplete", labels=labels
    )
    running = GaugeMetricFamily(RUNNING, "Whether a run is active", labels=labels)
    for run in view.runs:
        running.add_metric([run.name, run.kind], float(run.status == "running"))
        if run.status == "running" and run.phase is not None and run.phase.power_w is not None:
            power.add_metric([run.name, run.kind], run.phase.power_w)
    last = GaugeMetricFamily(LAST_J, "Joules of the last experience", labels=["run", "update_mode"])
    seen: set[str] = set()
    for one in view.decisions:  # the newest first
        if one.energy_j is not None and one.run not in seen:
            seen.add(one.run)
            last.add_metric([one.run, one.update_mode], one.energy_j)
    yield from (family for family in (running, power, last) if family.samples)
