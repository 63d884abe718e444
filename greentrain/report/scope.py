"""The scope of a report: its runs and its interval of time. The report holds it for rechecks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.ledger import RunRow
from greentrain.report.run_places import at, check_found, conditions_of
from greentrain.units import utc_text

_ALLOWED = "a date such as '2026-11-01', or a time with its zone such as '2026-11-01T06:00Z'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The runs and the time of a report; everything by default.

    Args:
        run: Id of the only run.
        name: Pattern of the runs' names, such as ``"digits*"``; case matters.
        since_utc: When the interval begins, as :func:`moment` writes it.
        until_utc: The first moment after it.
        where: Where the runs ran, as in ``"slurm_job_id=123,hostname=node*"``.

    Raises:
        ConfigurationError: If the interval ends before it begins, or ``where`` is not valid.
    """

    run: str | None = None
    name: str | None = None
    since_utc: str | None = None
    until_utc: str | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        if self.since_utc and self.until_utc and self.since_utc >= self.until_utc:
            raise ConfigurationError(
                f"since is {self.since_utc} and until is {self.until_utc}; until must be later"
            )
        conditions_of(self.where or "")

    @property
    def everything(self) -> bool:
        """``True`` if the scope is all runs at all times."""
        return self == Scope()

    def holds(self, moment_utc: str) -> bool:
        """Return whether a moment lies in the interval.

        Example:
            >>> november = Scope(since_utc=moment("2026-11-01"), until_utc=moment("2026-12-01"))
            >>> [november.holds(moment(day)) for day in ("2026-11-01", "2026-12-01")]
            [True, False]
        """
        return (self.since_utc is None or self.since_utc <= moment_utc) and (
            self.until_utc is None or moment_utc < self.until_utc
        )

    def runs(self, rows: Sequence[RunRow]) -> set[str]:
        """Return the ids of the runs in the scope, at any time.

        Raises:
            ConfigurationError: If there is no such run.
        """
        if self.run is not None and all(row["run_id"] != self.run for row in rows):
            known = [row["run_id"] for row in rows][-3:]
            raise ConfigurationError(
                f"the ledger has no run {self.run!r}; "
                + (f"its last ones are {', '.join(known)}" if known else "it has no run at all")
            )
        named = [
            row
            for row in rows
            if self.run in (None, row["run_id"])
            and (self.name is None or fnmatchcase(row["name"], self.name))
        ]
        conditions = conditions_of(self.where or "")
        found = {row["run_id"] for row in named if at(row, conditions)}
        if self.name is not None and not named:
            names = list(dict.fromkeys(row["name"][:80] for row in rows))[-3:]
            raise ConfigurationError(
                f"no run's name matches {self.name!r}; "
                + (f"the last ones are {', '.join(names)}" if names else "there is no run at all")
            )
        check_found(rows, conditions, found)
        return found

    def chosen(self, rows: Sequence[RunRow]) -> set[str] | None:
        """Return the ids of the runs in the scope as :meth:`runs` does; ``None`` for all runs."""
        return self.runs(rows) if self.of_some_runs else None

    @property
    def of_some_runs(self) -> bool:
        """``True`` if the scope is not all runs."""
        return any(given is not None for given in (self.run, self.name, self.where))

    @property
    def of_some_time(self) -> bool:
        """``True`` if the scope is not all times."""
        return self.since_utc is not None or self.until_utc is not None

    def as_dict(self) -> dict[str, str | None]:
        """Return the scope as the report holds it; without ``where`` if it is not given."""
        values = asdict(self)
        return {key: value for key, value in values.items() if key != "where" or value is not None}

    @classmethod
    def of(cls, held: Mapping[str, Any]) -> Scope:
        """Read the scope of a report.

        Raises:
            ConfigurationError: If it is not valid.
        """
        values = {name: held.get(name) for name in cls.__slots__}
        for name, value in values.items():
            if not isinstance(value, str | None):
                raise ConfigurationError(f"the scope's {name} is {value!r}; it must be text")
        since, until = values["since_utc"], values["until_utc"]
        return cls(
            run=values["run"],
            name=values["name"],
            since_utc=None if since is None else moment(since),
            until_utc=None if until is None else moment(until),
            where=values["where"],
        )


def moment(time: str | datetime) -> str:
    """Convert a time to UTC text as the ledger writes it.

    Args:
        time: An aware time; or a text: a date, which is its midnight in UTC, or an ISO 8601 time
            with its offset from UTC.

    Raises:
        ConfigurationError: If it is not such a time, or has no offset from UTC.

    Example:
        >>> moment("2026-11-01"), moment("2026-11-01T06:00+02:00")
        ('2026-11-01T00:00:00.000000+00:00', '2026-11-01T04:00:00.000000+00:00')
    """
    read = time if isinstance(time, datetime) else _read(time)
    if read is None or read.tzinfo is None:
        raise ConfigurationError(f"{str(time)!r} is not an exact moment; give {_ALLOWED}")
    return utc_text(read)


def _read(text: str) -> datetime | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
