from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from greentrain.budget import Budget
from greentrain.carbon import Emissions
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger, LedgerAccount, RunLog, verify
from greentrain.ledger.events import window_content
from tests.ledger.events import window

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


class Seconds:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def __call__(self) -> datetime:
        return NOON + timedelta(seconds=self.passed_s)


class Half:
    """A grid of half a gram a joule."""

    def upper_g_per_j(self, moment: datetime) -> float:
        return 0.5


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def ledger(url: str, clock: Seconds) -> Iterator[Ledger]:
    opened = Ledger(url, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def run(ledger: Ledger) -> Iterator[RunLog]:
    opened = ledger.open_run("stream", "digits")
    yield opened
    opened.close()


@pytest.fixture
def account(ledger: Ledger, run: RunLog) -> LedgerAccount:
    return ledger.account(ledger.open_budget("digits", Budget(energy_j=1000.0)), run)


def draw(run: RunLog, reservation: str, energy_j: float | None, phase: str = "train_epoch") -> None:
    run.record(window(phase, by_source={"cpu": energy_j}, reservation_id=reservation))
    run.flush()


def beat(run: RunLog, reservation: str, energy_j: float | None, phase: str = "validation") -> None:
    found = window(phase, by_source={"cpu": energy_j}, reservation_id=reservation)
    run.append("heartbeat", **window_content(run.run_id, found, None))


def test_a_released_reservation_is_settled_at_what_is_given(
    ledger: Ledger, run: RunLog, account: LedgerAccount
) -> None:
    reservation = account.reserve(600.0, "an update")
    found = ledger.release(reservation, 200.0)
    assert (found.amount, found.actual, found.unit, found.how) == (600.0, 200.0, "J", "given")
    balance = account.balance()
    assert (balance.spent_j, balance.reserved_j) == (200.0, 0.0)
    verified = verify(ledger)
    assert verified.failures == ()
    assert any(note.startswith(f"released: {reservation}") for note in verified.notes)
    with pytest.raises(LedgerError, match=r"released \(given\) already"):
        account.settle(reservation, 300.0)
    with pytest.raises(LedgerError, match="already"):
        ledger.release(reservation, 1.0)


def test_windows_and_the_last_heartbeats_of_a_dead_run_are_recovered(
    ledger: Ledger, run: RunLog, account: LedgerAccount, clock: Seconds
) -> None:
    reservation, other = account.reserve(600.0, "an update"), account.reserve(100.0, "a look")
    draw(run, reservation, 100.0)
    draw(run, other, 7.0, "probe")
    beat(run, reservation, 10.0)
    beat(run, reservation, 40.0)  # of the same phase, later
    beat(run, reservation, 55.0, "train_epoch")  # its window was written
    clock.passed_s = 31.0
    found = ledger.release(reservation)
    assert (found.actual, found.how) == (140.0, "recovered")
    assert str(found).endswith("is settled at 140 J of 600 J reserved (recovered)")
    assert account.balance().spent_j == 140.0
    assert verify(ledger).failures == ()


def test_what_comes_after_a_release_does_not_change_what_was_recovered(
    ledger: Ledger, run: RunLog, account: LedgerAccount, clock: Seconds
) -> None:
    reservation = account.reserve(600.0, "an update")
    beat(run, reservation, 40.0)
    clock.passed_s = 31.0
    ledger.release(reservation)
    draw(run, reservation, 90.0, "validation")  # such as what was written to a spool, late
    run.close()
    assert verify(ledger).failures == ()


def test_a_run_that_may_still_be_at_work_is_left_alone(
    ledger: Ledger, run: RunLog, account: LedgerAccount, clock: Seconds
) -> None:
    reservation = account.reserve(600.0, "an update")
    draw(run, reservation, 100.0)
    clock.passed_s = 29.0
    with pytest.raises(LedgerError, match="wrote a row 29 s ago and may still be active"):
        ledger.release(reservation)
    run.close("failed")  # whoever said that it ended is not at work
    assert ledger.release(reservation).actual == 100.0


@pytest.mark.parametrize("drawn_j", [(), (None,), (100.0, None)])
def test_what_was_not_measured_in_full_has_to_be_given(
    ledger: Ledger,
    run: RunLog,
    account: LedgerAccount,
    clock: Seconds,
    drawn_j: tuple[float | None, ...],
) -> None:
    reservation = account.reserve(600.0, "an update")
    for epoch, energy_j in enumerate(drawn_j):
        draw(run, reservation, energy_j, f"phase {epoch}")
    clock.passed_s = 31.0
    with pytest.raises(LedgerError, match="give the amount, such as --actual '20 Wh'"):
        ledger.release(reservation)
    assert account.balance().reserved_j == 600.0


@pytest.mark.parametrize("actual", [-1.0, float("nan"), float("inf")])
def test_what_is_given_is_an_amount(ledger: Ledger, account: LedgerAccount, actual: float) -> None:
    reservation = account.reserve(600.0, "an update")
    with pytest.raises(ConfigurationError, match="finite, 0 or more"):
        ledger.release(reservation, actual)


def test_what_is_not_reserved_is_not_released(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="has no reservation"):
        ledger.release("nothing", 1.0)


def test_an_overrun_is_named_of_a_released_reservation_too(
    ledger: Ledger, account: LedgerAccount
) -> None:
    ledger.release(account.reserve(600.0, "an update"), 700.0)
    balance = account.balance()
    assert (balance.spent_j, balance.overrun_j, balance.within) == (700.0, 100.0, True)
    assert any(note.startswith("overrun: ") for note in verify(ledger).notes)


def test_carbon_is_recovered_in_grams_or_given_in_them(
    ledger: Ledger, run: RunLog, clock: Seconds
) -> None:
    budget = ledger.open_budget("digits", Budget(carbon_g=1000.0))
    account = ledger.account(budget, run, carbon=Half())
    known, unknown = account.reserve(600.0, "an update"), account.reserve(600.0, "another")
    emissions = Emissions(grams=120.0, intensity_g_per_kwh=1.0)
    run.record(window(by_source={"cpu": 500.0}, reservation_id=known), emissions)
    draw(run, unknown, 500.0, "validation")  # without any grams
    clock.passed_s = 31.0
    assert ledger.release(known).actual == 120.0
    with pytest.raises(LedgerError, match="'500 gCO2e'"):
        ledger.release(unknown)
    ledger.release(unknown, 200.0)
    status = ledger.status(budget)
    assert (status.spent, status.taken.reserved) == (320.0, 0.0)
    given = ledger.rows("settlement", reservation_id=unknown)[0]
    assert (given["actual_j"], given["actual_g"], given["overrun_g"]) == (None, 200.0, 0.0)
    assert verify(ledger).failures == ()
