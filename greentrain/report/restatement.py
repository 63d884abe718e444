"""Build a report with other emission factors than those that its runs recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from greentrain.carbon.factors import EVERYTHING, Factors, parse_factors, read_bytes
from greentrain.carbon.intensity import mean_by_hour
from greentrain.errors import ConfigurationError
from greentrain.ledger import RunRow, canonical
from greentrain.report.carbon_figures import RestatedFactors
from greentrain.report.restate import kind_of_factors, window_grams
from greentrain.report.row_helpers import MeasuredWindow, RestatedWindow, number, parse

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restatement:
    """Factors in place of those that the runs recorded. The joules and the PUE stay.

    Args:
        factors: The factors by kind.
        file: Name of their file, without its folder.
        sha256: SHA-256 of the file, in hexadecimal.
        kind: Kind of the factors, ``"direct"`` or ``"life-cycle"``.
        upstream: Whether Scope 3, category 3 is computed too.
    """

    factors: Factors
    file: str
    sha256: str
    kind: str
    upstream: bool
    _runs: dict[str, tuple[Any, Any, float | None]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, scope2: str | None = None, upstream: bool = False) -> Restatement:
        """Read a file of factors.

        Args:
            path: The file, as for :func:`greentrain.carbon.factors.read_factors`.
            scope2: Kind of the factors; not needed if the file has one kind for Scope 2.
            upstream: Whether to compute Scope 3, category 3 too.

        Raises:
            ConfigurationError: If the file cannot be read, or has no factors of a kind.
        """
        content = read_bytes(path)  # once: the file may be a pipe
        factors = parse_factors(content, path)
        return cls(
            factors=factors,
            file=path.name,
            sha256=sha256(content).hexdigest(),
            kind=kind_of_factors(factors, scope2, upstream=upstream),
            upstream=upstream,
        )

    @classmethod
    def of(cls, held: object, path: Path | None) -> Restatement | None:
        """Read the factors of a restated report again.

        Args:
            held: The part ``restated`` of the report; ``None`` if the report is not restated.
            path: The file of factors.

        Raises:
            ConfigurationError: If the file is missing or another one.
        """
        if not isinstance(held, dict):
            if path is not None:
                raise ConfigurationError(
                    "the report is not restated, and a file of factors was given; omit --factors"
                )
            return None
        named = f"{held.get('file')} (SHA-256 {held.get('sha256')})"
        if path is None:
            raise ConfigurationError(
                f"the report is restated with the factors of {named}; give that file with --factors"
            )
        found = cls.read(path, scope2=str(held.get("kind")), upstream=held.get("upstream") is True)
        if found.sha256 != held.get("sha256"):
            raise ConfigurationError(
                f"the report is restated with the factors of {named}, and {str(path)!r} is another "
                f"file: its SHA-256 is {found.sha256}"
            )
        return cls(
            factors=found.factors,
            file=str(held.get("file")),
            sha256=found.sha256,
            kind=found.kind,
            upstream=found.upstream,
        )

    def as_dict(self) -> RestatedFactors:
        """Return the file and the kind of its factors, as the report holds them."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "kind": self.kind,
            "upstream": self.upstream,
        }

    def run(self, row: RunRow) -> RunRow:
        """Return the opening row of a run with the origin of the new factors, and note the run."""
        environment = parse(row["environment"], {})
        held = environment.get("carbon")
        carbon: dict[str, Any] = held if isinstance(held, dict) else {}
        given = carbon.get("intensity")
        zone = given.get("zone") if isinstance(given, dict) else None
        about: tuple[Any, ...] = (row["run_id"], row["name"], zone, EVERYTHING)
        used = next((one for one in about if one in self.factors[self.kind]), None)
        upstream = self.factors.get("upstream", {}) if self.upstream else {}
        of_upstream = next((upstream[one] for one in about if one in upstream), None)
        provider = None if used is None else self.factors[self.kind][used]
        self._runs[row["run_id"]] = provider, of_upstream, number(carbon.get("pue"))
        intensity = {
            "source": f"restated with {self.file}, SHA-256 {self.sha256}",
            "zone": zone,
            "data_year": None,
            "signal": "average",
            "basis": self.kind,
        }
        environment["carbon"] = {**carbon, "intensity": None if used is None else intensity}
        return cast(RunRow, {**row, "environment": canonical(environment)})

    def restate(self, windows: Sequence[MeasuredWindow]) -> None:
        """Replace the grams of the windows of one run; ``restated`` holds the earlier ones."""
        for window in windows:
            provider, upstream, pue = self._runs.get(window["run_id"], (None, None, None))
            of_upstream = None if upstream is None else window_grams(window, upstream, pue)
            window["restated"] = RestatedWindow(
                window["emissions_g"], of_upstream, window["intensity_origins"]
            )
            window["emissions_g"] = None
            window["intensity_g_per_kwh"] = window["intensity_by_hour"] = None
            window["intensity_origins"] = None
            if provider is not None:
                start, end = (
                    _EPOCH + moment * _US
                    for moment in (window["times"][0][0], window["times"][-1][1])
                )
                end = max(start, end)
                mean, by_hour = mean_by_hour(provider.history(start, end), start, end)
                window["emissions_g"] = window_grams(window, provider, pue)
                window["intensity_g_per_kwh"] = mean
                window["intensity_by_hour"] = canonical(list(by_hour)) if by_hour else None
