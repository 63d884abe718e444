"""The ``greentrain serve-metrics`` command."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greentrain._about import DISTRIBUTION
from greentrain.cli import console
from greentrain.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

PORT = 9464
"""The port by default, at which Prometheus often finds exporters of applications."""


def serve_metrics(
    ledger: console.FoundLedgerOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other hosts read the metrics.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65535)] = PORT,
    dashboard: Annotated[
        Path | None,
        typer.Option(help="Write the dashboard of Grafana to this file, and end.", metavar="FILE"),
    ] = None,
) -> None:
    """Serve the budgets and running updates of a ledger to Prometheus, until Ctrl-C."""
    from greentrain.ledger import Ledger, newest_ledger
    from greentrain.tracking.prometheus import DASHBOARD

    if dashboard is not None:
        try:
            dashboard.write_bytes(DASHBOARD.read_bytes())
        except OSError as error:
            raise ConfigurationError(
                f"cannot write {str(dashboard)!r}: {error.strerror}; name another file"
            ) from None
        console.print_line(f"wrote {dashboard}; import it in Grafana under Dashboards > New")
        return
    if ledger is None:
        ledger = newest_ledger(Path())
    Ledger(ledger, create=False).close()  # a wrong name is an error at once
    server = serve(ledger, host, port)
    console.print_line(f"serving {ledger} at http://{host}:{server.server_port}/metrics")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.shutdown()
        server.server_close()


def serve(ledger: str, host: str, port: int) -> WSGIServer:
    """Serve the metrics of a ledger in a thread, and return the server.

    Args:
        ledger: The ledger's file or URL.
        host: Address to listen at.
        port: Port to listen at; 0 for a free one.

    Raises:
        ConfigurationError: If ``prometheus-client`` is not installed, or the address cannot be
            used.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise ConfigurationError(
            "serve-metrics needs prometheus-client; install it: pip install "
            f"'{DISTRIBUTION}[prometheus]'"
        ) from None
    from greentrain.tracking.prometheus import LedgerCollector

    registry = CollectorRegistry()
    registry.register(LedgerCollector(ledger))
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; name another one with "
            "--host and --port"
        ) from None
    return server
