"""Recorded tables: cost and outcome of every action, from every possible state of the model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from greentrain.control.action import SKIP, Action
from greentrain.control.update_modes import UpdateMode
from greentrain.errors import ConfigurationError

FORMAT = 2
"""Version of the file format."""
UNTRAINED = "untrained"
"""Key of the model before its first training, after any number of skipped experiences."""
Keys = Literal["exact", "merged"]
Place = tuple[int, str]
"""A place in a table: the number of an experience, and the key of the model when it arrives."""

_FULL = Action(mode=UpdateMode.FULL_RETRAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Description of a table.

    Args:
        stream: Name of the stream.
        num_experiences: Experiences in it.
        seed: Seed of weights, order and sampling.
        keys: ``"exact"`` if a key lists all updates of the model since its last full retraining.
            ``"merged"`` if it has only the experience of the last update, and whether that was a
            full retraining.
        monitor: Name of the metric; values in the table are oriented, so that higher is better.
        more_is_better: Whether the metric itself was better when higher.
        cost: Source of the joules, such as ``"measured: counter"``, or ``"modelled: ..."``.
        environment: Versions and hardware.
    """

    stream: str
    num_experiences: int
    seed: int
    keys: Keys
    monitor: str
    more_is_better: bool
    cost: str
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedProbe:
    """Result of a probe of the model when an experience has arrived.

    Args:
        position: Number of the experience, from 0.
        before: Key of the model, and of the data that wait for an update.
        metric_before: The metric on held-out data, including the experience's own; ``None`` before
            the first training.
        metric_new: The metric on new training data; likewise.
        n_new: New samples, including those of skipped experiences.
        n_stored: Stored samples that an update has seen.
        n_pending: The part of ``n_new`` that earlier, skipped experiences brought.
        metric_past: As in :class:`~greentrain.control.State`, as are all fields below; ``None`` if
            not measured.
    """

    position: int
    before: str
    metric_before: float | None
    metric_new: float | None
    n_new: int
    n_stored: int
    n_pending: int
    metric_past: float | None = None
    loss_new: float | None = None
    loss_past: float | None = None
    unseen: float | None = None
    shift: float | None = None
    shift_by: str = ""
    weight_growth: float | None = None
    slope: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRow:
    """Outcome of one action at one place.

    Args:
        position: Number of the experience, from 0.
        before: Key of the model before.
        action: The action.
        steps: Steps that were trained; 0 for ``SKIP``.
        energy_j: Joules of the update, including the evaluation of the trained model.
        samples: Samples that were trained on, counted each time.
        metric_after: The metric of the trained model on all held-out data, or of the current one
            for ``SKIP``; ``None`` if it is not finite.
        gain: Its gain on the samples of the probe, oriented; ``None`` without a probe.
        gain_sd: Standard error of that gain.
        kept: Whether the trained model is in use from then on; not if it is worse than before.
        after: Key of the model from then on.
    """

    position: int
    before: str
    action: Action
    steps: int
    energy_j: float
    samples: int
    metric_after: float | None
    kept: bool
    after: str
    gain: float | None = None
    gain_sd: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.energy_j) and self.energy_j >= 0):
            raise ConfigurationError(f"energy_j is {self.energy_j!r}; set it to joules, 0 or more")


TablePart = Header | RecordedProbe | RecordedRow


@dataclass(frozen=True, slots=True, eq=False)
class RecordedTable:
    """A directed acyclic graph of places, and of actions that lead from one to the next.

    Args:
        header: Its description.
        probes: The probe at each place.
        rows: The outcomes of the actions at each place; ``SKIP`` is among them.

    Raises:
        ConfigurationError: If a reachable place has no probe or no ``SKIP``.
    """

    header: Header
    probes: Mapping[Place, RecordedProbe]
    rows: Mapping[Place, tuple[RecordedRow, ...]]

    def __post_init__(self) -> None:
        for position in range(self.header.num_experiences):
            for key in self.keys(position):
                place = (position, key)
                actions = [row.action for row in self.rows.get(place, ())]
                if place not in self.probes or SKIP not in actions:
                    raise ConfigurationError(
                        f"the table of {self.header.stream!r} is incomplete: experience {position} "
                        f"has no rows for the model {key!r}; continue the recording"
                    )

    @property
    def num_experiences(self) -> int:
        """Experiences in the stream."""
        return self.header.num_experiences

    def keys(self, position: int) -> list[str]:
        """Return the possible keys of the model when an experience arrives."""
        keys = {UNTRAINED: None}
        for earlier in range(position):
            rows = [row for key in keys for row in self.rows.get((earlier, key), ())]
            keys = dict.fromkeys(row.after for row in rows)
        return list(keys)

    def row(self, position: int, before: str, action: Action) -> RecordedRow:
        """Return the outcome of an action.

        Raises:
            ConfigurationError: If it was not recorded.
        """
        for row in self.rows.get((position, before), ()):
            if row.action == action:
                return row
        raise ConfigurationError(
            f"the table of {self.header.stream!r} has no {action} at experience {position} of the "
            f"model {before!r}; record it, or choose a recorded action"
        )

    def metric(self, row: RecordedRow) -> float:
        """Return the metric after a row, of the model that is in use then."""
        if not row.kept:
            row = self.row(row.position, row.before, SKIP)
        return -math.inf if row.metric_after is None else row.metric_after

    @property
    def full_j(self) -> float:
        """Joules of a full retraining at each experience.

        Raises:
            ConfigurationError: If that was not recorded.
        """
        spent_j, key = 0.0, UNTRAINED
        for position in range(self.num_experiences):
            row = self.row(position, key, _FULL)
            spent_j, key = spent_j + row.energy_j, row.after
        return spent_j


def modelled(
    table: RecordedTable, *, joules_per_sample: float, fixed_j: float = 0.0
) -> RecordedTable:
    """Return the table with modelled joules, which have no noise.

    An update costs ``fixed_j + joules_per_sample * samples``, and ``SKIP`` nothing.

    Args:
        table: The table.
        joules_per_sample: Joules of each sample that is trained on.
        fixed_j: Joules of an update without its samples.
    """

    def cost_j(row: RecordedRow) -> float:
        return modelled_j(row.samples, joules_per_sample=joules_per_sample, fixed_j=fixed_j)

    cost = modelled_cost(joules_per_sample=joules_per_sample, fixed_j=fixed_j)
    return RecordedTable(
        dataclasses.replace(table.header, cost=cost),
        table.probes,
        {
            place: tuple(dataclasses.replace(row, energy_j=cost_j(row)) for row in rows)
            for place, rows in table.rows.items()
        },
    )


def modelled_j(samples: int, *, joules_per_sample: float, fixed_j: float) -> float:
    """Return the joules of an update by its samples; 0 without any.

    Example:
        >>> modelled_j(1000, joules_per_sample=0.5, fixed_j=20.0)
        520.0
        >>> modelled_j(0, joules_per_sample=0.5, fixed_j=20.0)
        0.0
    """
    return fixed_j + joules_per_sample * samples if samples else 0.0


def modelled_cost(*, joules_per_sample: float, fixed_j: float) -> str:
    """Return a description of modelled joules, for the header.

    Raises:
        ConfigurationError: If the joules are negative or not finite, or 0 per sample.
    """
    if not (math.isfinite(joules_per_sample) and joules_per_sample > 0):
        raise ConfigurationError(
            f"joules_per_sample is {joules_per_sample!r}; set it to joules above 0"
        )
    if not (math.isfinite(fixed_j) and fixed_j >= 0):
        raise ConfigurationError(f"fixed_j is {fixed_j!r}; set it to joules, 0 or more")
    return f"modelled: {fixed_j:g} J and {joules_per_sample:g} J per sample trained on"


def key_after(position: int, before: str, action: Action, *, exact: bool) -> str:
    """Return the key of a model after an action that was kept.

    An exact key lists the actions since the last full retraining, which forgets all before it. A
    merged key has the experience of the last update, and whether that was a full retraining at step
    fraction 1.

    Args:
        position: Number of the experience.
        before: Key of the model before.
        action: The action.
        exact: Whether keys are exact.

    Example:
        >>> key_after(4, "2:FULL_RETRAIN 3:SKIP", Action(mode=UpdateMode.REPLAY), exact=True)
        '2:FULL_RETRAIN 3:SKIP 4:REPLAY'
        >>> key_after(4, "2:FULL_RETRAIN 3:SKIP", Action(mode=UpdateMode.FULL_RETRAIN), exact=True)
        '4:FULL_RETRAIN'
        >>> key_after(4, "updated-2", Action(mode=UpdateMode.REPLAY), exact=False)
        'updated-4'
        >>> key_after(4, "updated-2", Action(mode=UpdateMode.FULL_RETRAIN), exact=False)
        'full-4'
        >>> key_after(4, "updated-2", SKIP, exact=False)
        'updated-2'
    """
    if action == SKIP and (before == UNTRAINED or not exact):
        return before
    if not exact:
        full = position > 0 and action == _FULL
        return f"{'full' if full else 'updated'}-{position}"
    step = f"{position}:{action.mode}" + (
        f"@{action.step_fraction:g}" if 0 < action.step_fraction < 1 else ""
    )
    return step if action.mode is UpdateMode.FULL_RETRAIN else f"{before} {step}"


def to_line(part: TablePart) -> str:
    """Write a part of a table as one line of JSON."""
    kind = {Header: "header", RecordedProbe: "probe", RecordedRow: "row"}[type(part)]
    content: dict[str, Any] = {"kind": kind, **asdict(part)}
    if isinstance(part, Header):
        content["format"] = FORMAT
    elif isinstance(part, RecordedRow):
        content["action"] = [str(part.action.mode), part.action.step_fraction]
    return json.dumps(content, allow_nan=False)


def from_line(line: str) -> TablePart:
    """Read a line of :func:`to_line`.

    Raises:
        ConfigurationError: If it cannot be read, or has another version of the format.
    """
    try:
        content = json.loads(line)
        kind = content.pop("kind")
        if kind == "header":
            if (version := content.pop("format")) != FORMAT:
                raise ConfigurationError(
                    f"the table has format {version!r}, and this release reads format {FORMAT}; "
                    "record it again"
                )
            return Header(**content)
        if kind == "probe":
            return RecordedProbe(**content)
        mode, step_fraction = content.pop("action")
        return RecordedRow(
            action=Action(mode=UpdateMode(mode), step_fraction=step_fraction), **content
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"{line[:60]!r} is not a line of a recorded table") from error


def assemble(parts: Iterable[TablePart]) -> RecordedTable:
    """Assemble a table from its parts.

    Raises:
        ConfigurationError: If there is not exactly one header, or a place is missing.
    """
    headers: list[Header] = []
    probes: dict[Place, RecordedProbe] = {}
    rows: dict[Place, tuple[RecordedRow, ...]] = {}
    for part in parts:
        if isinstance(part, Header):
            headers.append(part)
        elif isinstance(part, RecordedProbe):
            probes[part.position, part.before] = part
        else:
            place = (part.position, part.before)
            rows[place] = (*rows.get(place, ()), part)
    if len(headers) != 1:
        raise ConfigurationError(f"the table has {len(headers)} headers; it needs exactly one")
    return RecordedTable(headers[0], probes, rows)


def read_table(path: str | Path) -> RecordedTable:
    """Read a table.

    Raises:
        ConfigurationError: If it cannot be read, is not a table, or is incomplete.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the table {str(path)!r}: {error}") from None
    try:
        return assemble(from_line(line) for line in lines)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
