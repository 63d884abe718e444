"""Names are inert in every output, on both engines, or refused before anything is written."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from greentrain import Budget, candidates_of, open_controller
from greentrain.cli.app import app
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger, verify
from greentrain.measuring import measure
from greentrain.report import build
from greentrain.report.write import FORMATS
from greentrain.streams import Experience, Stream
from greentrain.texts import get_logger
from tests.hostile import FORGED, STORABLE, UNSTORABLE, assert_inert
from tests.ledger.cluster import Cluster
from tests.ledger.events import window


def fill(ledger: Ledger) -> None:
    """Use every name for a run, a budget, a purpose, an experience, a metric and a source."""
    for number, name in enumerate(STORABLE):
        with ledger.open_run("stream", name, environment={"settings": name}) as run:
            budget = ledger.open_budget(name, Budget.parse("1 Wh"))
            account = ledger.account(budget, run)
            reservation = account.reserve(10.0, name)
            run.append(
                "decision",
                budget_id=budget,
                experience_id=name,
                position=number,
                reservation_id=reservation,
                update_mode="FULL_RETRAIN",
                step_fraction=1.0,
                reason=name,
                sentence=name,
                state="{}",
                alternatives="[]",
            )
            run.record(window(by_source={name: 1.0}, reservation_id=reservation))
            account.settle(reservation, 1.0)
            run.note(
                "outcome",
                experience_id=name,
                position=number,
                reservation_id=reservation,
                metric=name,
                metric_after=0.5,
                steps=1,
                planned_steps=1,
                energy_j=1.0,
                kept=True,
            )
        run = ledger.open_run("fit", name)
        ledger.account(budget, run).reserve(1.0, name)
        run.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a ledger in which every name is used."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'ledger.db'}"
    else:
        cluster: Cluster = request.getfixturevalue("cluster")
        url = cluster.new()
    ledger = Ledger(url)
    fill(ledger)
    ledger.close()
    yield url


def test_there_are_sixty_names() -> None:
    assert len(set(STORABLE)) == 60


def test_every_name_is_stored_as_it_is(filled: str) -> None:
    ledger = Ledger(filled)
    assert verify(ledger).failures == ()
    assert [row["name"] for row in ledger.rows("budget")] == list(STORABLE)
    assert [row["experience_id"] for row in ledger.rows("outcome")] == list(STORABLE)
    for name in STORABLE:
        assert ledger.find_budget(name) is not None
    ledger.close()


@pytest.mark.parametrize(
    "command",
    [
        ["verify", "LEDGER"],
        ["explain", "--ledger", "LEDGER"],
        ["ledger", "show", "LEDGER"],
        ["ledger", "budgets", "LEDGER"],
        ["ledger", "runs", "LEDGER"],
        ["ledger", "show", "LEDGER", "--json"],
        ["ledger", "release", f"\x1b[2J\n{FORGED}", "--ledger", "LEDGER"],
        ["explain", "--ledger", "LEDGER", "--stream", f"\x1b[2J\n{FORGED}"],
        ["explain", "--ledger", "LEDGER", "--stream", "caf\udce9"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_no_command_prints_a_control(filled: str, command: list[str]) -> None:
    done = CliRunner().invoke(app, [filled if word == "LEDGER" else word for word in command])
    assert_inert(done.output)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, (ConfigurationError, LedgerError))
        assert_inert(str(done.exception))


@pytest.mark.parametrize("name", STORABLE, ids=range(60))
def test_no_command_prints_a_control_about_one_experience(filled: str, name: str) -> None:
    command = ["explain", "--ledger", filled, "--stream", name, "--experience", name]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert_inert(done.output)


def test_no_name_acts_in_a_report(filled: str) -> None:
    ledger = Ledger(filled)
    document = build([ledger])
    ledger.close()
    for name in sorted({*FORMATS} - {"pdf", "xlsx"}):
        for render in FORMATS[name].files.values():
            text = render(document)
            assert isinstance(text, str)
            text.encode("utf-8")
            assert not any(char in text for char in "\x00\x1b\x9b\x07\u202e\ufffe\uffff")


def test_a_workbook_holds_every_name_inert(filled: str) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    ledger = Ledger(filled)
    document = build([ledger])
    ledger.close()
    (render,) = FORMATS["xlsx"].files.values()
    book = openpyxl.load_workbook(io.BytesIO(render(document)))
    assert len(list(book["Runs"].rows)) == 1 + 2 * len(STORABLE)
    for sheet in book:
        for row in sheet.iter_rows():
            for cell in row:
                assert cell.data_type in ("s", "n")
                if isinstance(cell.value, str):
                    assert_inert(cell.value.replace(FORGED, ""))


@pytest.mark.parametrize("name", STORABLE, ids=range(60))
def test_a_name_is_one_line_in_a_log_and_an_error(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    get_logger("greentrain.test").warning("the update of %s was not kept", name)
    assert len(caplog.text.splitlines()) == 1
    assert_inert(caplog.text)
    error = str(LedgerError(f"the run {name} is closed"))
    assert len(error.splitlines()) == 1
    assert_inert(error)


def test_a_log_with_wrong_arguments_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord("greentrain.test", 30, "", 1, "%d rows", ("many",), None)
    assert all(check(record) for check in get_logger("greentrain.test").filters)  # type: ignore[operator]


@pytest.mark.parametrize("name", UNSTORABLE, ids=range(len(UNSTORABLE)))
def test_a_name_that_cannot_be_stored_is_refused_before_anything_is_written(
    url: str, name: object
) -> None:
    ledger = Ledger(url)
    with ledger.open_run("fit", "model"):
        attempts = [
            lambda: ledger.open_run("fit", name),  # type: ignore[arg-type]
            lambda: ledger.open_budget(name, Budget.parse("1 Wh")),  # type: ignore[arg-type]
            lambda: Experience(name, [1], [2]),  # type: ignore[arg-type]
            lambda: Stream([], name=name),  # type: ignore[arg-type]
            lambda: measure(name, ledger=url).__enter__(),  # type: ignore[arg-type]
            lambda: open_controller(
                name,  # type: ignore[arg-type]
                budget="1 Wh",
                num_experiences=1,
                ledger=url,
            ).__enter__(),
            lambda: open_controller(
                "churn",
                budget="1 Wh",
                num_experiences=1,
                ledger=url,
                monitor=name,  # type: ignore[arg-type]
            ).__enter__(),
        ]
        if name is not None:
            attempts.append(lambda: Budget(energy_j=1.0, parent=name))  # type: ignore[arg-type]
        for attempt in attempts:
            with pytest.raises(ConfigurationError) as caught:
                attempt()
            assert len(str(caught.value)) < 400
            assert "secret" not in str(caught.value)
            assert_inert(str(caught.value))
    assert [row["name"] for row in ledger.rows("run")] == ["model"]
    assert ledger.rows("budget") == []
    assert verify(ledger).ok
    ledger.close()


@pytest.mark.parametrize("name", UNSTORABLE, ids=range(len(UNSTORABLE)))
def test_an_experience_that_cannot_be_stored_is_refused_before_it_is_paid(
    tmp_path: Path, seconds: list[float], name: object
) -> None:
    file = str(tmp_path / "own.db")
    meter = ConstantMeter(100.0, clock=lambda: seconds[0])
    with open_controller(
        "churn", budget="1 Wh", num_experiences=1, ledger=file, meter=meter
    ) as controller:
        with pytest.raises(ConfigurationError, match="experience_id"):
            controller.decide(
                name,  # type: ignore[arg-type]
                n_new=5,
                candidates=candidates_of({"FULL_RETRAIN": 4}),
            )
        assert controller.balance().left_j == 3600.0
    ledger = Ledger(file)
    assert ledger.rows("reservation") == ledger.rows("decision") == []
    assert verify(ledger).ok
    ledger.close()


@pytest.mark.parametrize("text", ["nul\0", "caf\udce9", "\ud800"])
def test_any_other_text_is_stored_with_its_broken_characters_spelled_out(
    ledger: Ledger, text: str
) -> None:
    run = ledger.open_run("fit", "model")
    budget = ledger.open_budget("model", Budget.parse("1 Wh"))
    ledger.account(budget, run).reserve(1.0, text)
    run.close()
    (row,) = ledger.rows("reservation")
    assert row["purpose"] == text.encode("unicode_escape").decode()
    assert verify(ledger).ok
    if "\0" not in text:  # SQLite looks for it, and finds nothing
        with pytest.raises(LedgerError, match="cannot hold or find the text"):
            ledger.rows("budget", name=text)


def test_a_value_that_is_no_text_is_no_text_in_any_column(ledger: Ledger) -> None:
    refused = pytest.raises(LedgerError, match="experience_id of a outcome is 5; it must be a text")
    with ledger.open_run("fit", "model") as run, refused:
        run.append("outcome", experience_id=5)
    assert verify(ledger).ok


def test_another_runs_reservation_is_not_settled_by_accident(ledger: Ledger) -> None:
    budget = ledger.open_budget("model", Budget.parse("1 Wh"))
    with ledger.open_run("fit", "one") as one, ledger.open_run("fit", "two") as two:
        reservation = ledger.account(budget, one).reserve(10.0, "probe")
        with pytest.raises(LedgerError, match=f"belongs to the run '{one.run_id}'"):
            ledger.account(budget, two).settle(reservation, 1.0)
        assert ledger.balance(budget).reserved_j == 10.0
        ledger.account(budget, one).settle(reservation, 1.0)
    assert verify(ledger).ok


def test_the_json_of_every_command_is_ascii(filled: str) -> None:
    for command in ("show", "budgets", "runs"):
        done = CliRunner().invoke(app, ["ledger", command, filled, "--json"])
        assert done.output.isascii()
        json.loads(done.output)
