"""No password leaves greentrain, wherever it was given."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from greentrain import Budget
from greentrain.cli.app import app
from greentrain.errors import ConfigurationError, GreentrainError, LedgerError
from greentrain.ledger import Ledger, open_ledgers
from greentrain.naming import check_place
from greentrain.texts import get_logger, masked, one_line
from greentrain.tracking import MlflowTracker

SECRET = "s3cr3t"
NOWHERE = "127.0.0.1:9"  # nothing listens there

REFUSED = (
    f"me:{SECRET}@host/database",
    f"me:{SECRET}@host/database.db",
    f"me:{SECRET}*@host/database",
    f"me:a/{SECRET}@host/database",
    f"//me:{SECRET}@host/database",
    f"sqlite:///me:{SECRET}@host/database",
    f"postgresql:me:{SECRET}@host/database",
    f"host=h password={SECRET} dbname=d",
    f"dbname=d password='{SECRET}'",
    f"PASSWORD = {SECRET}",
    f"runs/x.db password={SECRET}",
    f"me:{SECRET}\0@host",
    f"sqlite:///x.db?password={SECRET}",
    f"sqlite://me:{SECRET}@host/x.db",
    f"mysql://me:{SECRET}@host/database",
    f"postgres://me:{SECRET}@host/database",
    f"postgresql://me:a@{SECRET}@{NOWHERE}/database",
    f"postgresql://me:a@{NOWHERE}/{SECRET}@x",
    f"postgresql://me:{SECRET}@[::1/database",
    f"postgresql://me:{SECRET}@{NOWHERE}",
    f"postgresql://me:{SECRET}@host:port/database",
)
"""Ledgers that are no place."""

UNREACHABLE = (
    f"postgresql://me:{SECRET}@{NOWHERE}/database",
    f"postgresql+psycopg://{SECRET}@{NOWHERE}/database",
    f"postgresql://me:a/{SECRET}@{NOWHERE}/database",
    f"postgresql://me:a#{SECRET}@{NOWHERE}/database",
    f"postgresql://me:a?{SECRET}@{NOWHERE}/database",
    f"postgresql://me:a%40{SECRET}@{NOWHERE}/database",
    f"postgresql://me:a {SECRET}@{NOWHERE}/database",
    f"postgresql://{NOWHERE}/database?password={SECRET}",
    f"postgresql://{NOWHERE}/database?user={SECRET}",
    f"postgresql://{NOWHERE}/database?passfile=/{SECRET}",
    f"postgresql://{NOWHERE}/database?sslpassword={SECRET}",
)
"""Ledgers on a server that does not respond."""

PLACES = (*REFUSED, *UNREACHABLE)


def test_there_are_thirty_places() -> None:
    assert len(set(PLACES)) >= 30


@pytest.mark.parametrize("place", PLACES)
def test_a_ledger_that_cannot_be_opened_is_not_repeated(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("DEBUG")
    expected = ConfigurationError if place in REFUSED else LedgerError
    for use in (lambda: Ledger(place), lambda: open_ledgers([place])):
        with pytest.raises(expected) as caught:
            use()
        assert SECRET not in str(caught.value)
    for command in (
        ["verify", place],
        ["explain", "--ledger", place],
        ["ledger", "show", place],
        ["report", "--ledger", place],
    ):
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, GreentrainError)
        assert SECRET not in done.output + str(done.exception)
    assert SECRET not in caplog.text
    assert [path.name for path in tmp_path.rglob("*")] == []


@pytest.mark.parametrize(
    "place",
    [
        "greentrain.db",
        "sqlite:///greentrain.db",
        "runs/lr=0.1,user=me/greentrain.db",
        "/data/team@site/greentrain.db",
        "sqlite:////data/team:a@site/greentrain.db",
        "runs/*.db",
        "a:b.db",
        "postgresql://me@host/database",
        "postgresql://me:secret@host/database?sslmode=require",
        "postgresql:///database?host=/run/postgresql",
        "http://me:secret@host:5000/mlflow",
        "databricks",
    ],
)
def test_other_places_are_used_as_they_are(place: str) -> None:
    assert check_place(place, "the ledger", "greentrain.db") == place


@pytest.mark.parametrize("place", [None, 5, "", b"x.db", Path("x.db")])
def test_a_place_is_a_text(place: object) -> None:
    with pytest.raises(ConfigurationError, match="it must be a path or a URL"):
        Ledger(place)  # type: ignore[arg-type]


def test_a_server_is_shown_without_user_and_password(tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    from greentrain.ledger.sql_store import SqlStore

    store = SqlStore.__new__(SqlStore)
    store._name = None
    store._url = make_url(f"postgresql://me:{SECRET}@host:5432/team?sslmode=require&user={SECRET}")
    assert store.name == store.url == "postgresql://host:5432/team?sslmode=require"
    assert store.public_name == "postgresql:///team"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"at https://me:{SECRET}@host/x", "at https://host/x"),
        (f"at https://me:a@{SECRET}@host/x", "at https://host/x"),
        (f"at https://me:a/{SECRET}@host/x.", "at https://host/x."),
        (f"at https://{SECRET}@host", "at https://host"),
        (f"'postgresql+psycopg://me:{SECRET}@h/d' failed", "'postgresql+psycopg://h/d' failed"),
        (f"url: /x?token={SECRET}&a=1", "url: /x?token=***&a=1"),
        (f"host=h password={SECRET} dbname=d", "host=h password=*** dbname=d"),
        (f"password='{SECRET} x'", "password=***"),
        (f'{{"password": "{SECRET}"}}', '{"password": ***}'),
        (f"MLFLOW_TRACKING_TOKEN={SECRET}", "MLFLOW_TRACKING_TOKEN=***"),
        (f"AWS_SECRET_ACCESS_KEY={SECRET}", "AWS_SECRET_ACCESS_KEY=***"),
        (f"Authorization: Basic {SECRET}", "Authorization: Basic ***"),
        (f"{{'Authorization': 'Bearer {SECRET}'}}", "{'Authorization': 'Bearer ***'}"),
        ("password authentication failed", "password authentication failed"),
        ("mail me@host, see http://host:5000/x", "mail me@host, see http://host:5000/x"),
        ("sqlite:////data/team@site/x.db", "sqlite:////data/team@site/x.db"),
    ],
)
def test_what_a_text_shows(text: str, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    assert masked(text) == one_line(text) == str(LedgerError(text)) == shown
    get_logger("greentrain.test").warning("because %s", text)
    assert f"because {shown}" in caplog.text
    assert SECRET not in caplog.text


def test_a_secret_is_masked_before_a_text_is_cut() -> None:
    assert one_line(f"http://me:{SECRET}@host/x", 12) == "http://host/…"


class Misbehaving(BaseHTTPRequestHandler):
    """An MLflow server that responds, and then does what its path says."""

    def do_GET(self) -> None:
        if self.path.endswith("/health"):
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"OK")
        else:
            self._misbehave()

    def do_POST(self) -> None:
        self._misbehave()

    def _misbehave(self) -> None:
        if self.path.startswith("/loop"):
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            self.close_connection = True
        else:
            echoed = json.dumps({"headers": dict(self.headers), "error": str(self.headers)})
            self.send_response(500 if self.path.startswith("/echo") else 403)
            self.send_header("Content-Length", str(len(echoed)))
            self.end_headers()
            self.wfile.write(echoed.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("way", ["loop", "cut", "echo", "forbidden"])
def test_no_warning_about_a_server_shows_its_password(
    way: str,
    misbehaving: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    tracker = MlflowTracker(
        f"http://me:{SECRET}@{misbehaving}/{way}", queue_folder=tmp_path / "queue"
    )
    tracker.start("digits", {}, {})
    tracker.finish("", {})
    assert f"http://{misbehaving}/{way}" in caplog.text
    ours = [
        record.getMessage() for record in caplog.records if record.name.startswith("greentrain")
    ]
    assert any("wait" in line for line in ours)
    assert not any(SECRET in line for line in ours)
    for path in tmp_path.rglob("*"):
        assert SECRET not in path.name
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "uri",
    [
        f"me:{SECRET}@host",
        f"http://me:a@{SECRET}@host",
        f"http://me:a/{SECRET}@host",
        f"http://me:a#{SECRET}@host",
        f"http://me:a?{SECRET}@host",
        f"host=h password={SECRET}",
    ],
)
def test_a_tracking_uri_that_is_no_place_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tracking_uri is") as caught:
        MlflowTracker(uri, queue_folder=tmp_path)
    assert SECRET not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_next_command_names_the_server_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from greentrain.cli.console import print_next

    print_next("report", "--ledger", f"postgresql://me:{SECRET}@host/database")
    assert (
        capsys.readouterr().out == "Next: greentrain report --ledger postgresql://host/database\n"
    )


def test_the_outcome_of_an_update_is_shown_without_the_password() -> None:
    from greentrain.control import UpdateMode
    from greentrain.training import ModelUpdate

    names = dict.fromkeys(field.name for field in dataclasses.fields(ModelUpdate))
    url = f"postgresql://me:{SECRET}@host/database"
    values = {**names, "update_mode": UpdateMode.SKIP, "total_j": 5.0, "steps": 0, "ledger": url}
    made = ModelUpdate(**{**values, "not_offered": {}})  # type: ignore[arg-type]
    assert made.ledger == url  # to open it
    assert str(made).splitlines()[-1] == "ledger: postgresql://host/database"
    assert SECRET not in repr(made) + str(made) + made._repr_html_()


def test_a_name_with_the_password_of_a_url_is_refused(ledger: Ledger) -> None:
    uses: list[Callable[[], object]] = [
        lambda: ledger.open_budget(f"s3://me:{SECRET}@bucket", Budget.parse("1 Wh")),
        lambda: ledger.open_run("fit", f"https://me:{SECRET}@host/data.csv"),
    ]
    for use in uses:
        with pytest.raises(ConfigurationError, match="holds a URL with a password") as caught:
            use()
        assert SECRET not in str(caught.value)


with contextlib.suppress(ImportError):
    import mlflow.tracking  # noqa: F401  # here, not in a thread during other imports
