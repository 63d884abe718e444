"""A recorded table: what every action would have cost and brought, from wherever a model stood."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from greentrain.control.action import SKIP, Action, UpdateMode
from greentrain.errors import ConfigurationError

FORMAT = 1
"""Version of the file's format."""
UNTRAINED = "untrained"
"""Key of the model before its first training, whatever was skipped by then."""
Keys = Literal["exact", "merged"]
Place = tuple[int, str]
"""Where a stream stands: the number of the experience at hand, and the key of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a table is of.

    Args:
        stream: Name of the stream.
        num_experiences: Experiences in it.
        seed: Seed of weights, order and sampling.
        keys: ``"exact"`` where a key tells all that the model was trained on, ``"merged"`` where it
            only tells which experience it was last updated at, and whether by a full retraining.
        monitor: Name of the metric; values in the table are oriented, so that higher is better.
        more_is_better: Whether the metric itself was better when higher.
        cost: How the joules came about, such as ``"measured: counter"``, or ``"modelled: ..."``.
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
class RecordedLook:
    """What a look at the model finds when an experience has arrived; see :class:`State`.

    Args:
        position: Number of the experience, from 0.
        before: Key of the model, and of the data that wait for an update.
        metric_before: The metric on some held-out data, those of the experience included;
            ``None`` before the first training.
        metric_new: The metric on some new training data, likewise.
        n_new: New samples, those of skipped experiences included.
        n_stored: Stored samples that an update has seen.
        n_pending: New samples that earlier, skipped experiences brought.
        metric_past: As in :class:`State`, and so are all below; ``None`` where it was not looked
            for.
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
    """What came of one action at one place.

    Args:
        position: Number of the experience, from 0.
        before: Key of the model before.
        action: The action.
        steps: Steps that were trained; 0 for ``SKIP``.
        energy_j: Joules that the update drew, the look at what it made included.
        samples: Samples that were trained on, each time that one was counted.
        metric_after: The metric of what was trained, on all held-out data; that of the model at
            hand for ``SKIP``, and ``None`` where it was no number.
        gain: What it gained on the samples that the look was at, oriented; ``None`` where there was
            no look.
        gain_sd: Standard error of that gain.
        kept: Whether what was trained became the model: not if it is worse than the one before.
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
            raise ConfigurationError(f"energy_j is {self.energy_j!r}; it is in joules, 0 or more")


@dataclass(frozen=True, slots=True, eq=False)
class RecordedTable:
    """A directed acyclic graph of places, and of actions that lead from one to the next.

    Args:
        header: What it is of.
        looks: What a look finds, at each place.
        rows: What the actions come to, at each place; ``SKIP`` is among them.

    Raises:
        ConfigurationError: If a place that can be reached has no look or no ``SKIP``.
    """

    header: Header
    looks: Mapping[Place, RecordedLook]
    rows: Mapping[Place, tuple[RecordedRow, ...]]

    def __post_init__(self) -> None:
        for position in range(self.header.num_experiences):
            for key in self.keys(position):
                place = (position, key)
                actions = [row.action for row in self.rows.get(place, ())]
                if place not in self.looks or SKIP not in actions:
                    raise ConfigurationError(
                        f"the table of {self.header.stream!r} is not complete: at experience "
                        f"{position} nothing is known of the model {key!r}; record the rest of it"
                    )

    @property
    def num_experiences(self) -> int:
        """Experiences in the stream."""
        return self.header.num_experiences

    def keys(self, position: int) -> list[str]:
        """Return the keys at which a model may stand when an experience arrives."""
        keys = {UNTRAINED: None}
        for earlier in range(position):
            rows = [row for key in keys for row in self.rows.get((earlier, key), ())]
            keys = dict.fromkeys(row.after for row in rows)
        return list(keys)

    def row(self, position: int, before: str, action: Action) -> RecordedRow:
        """Return what an action comes to.

        Raises:
            ConfigurationError: If it was not recorded.
        """
        for row in self.rows.get((position, before), ()):
            if row.action == action:
                return row
        raise ConfigurationError(
            f"the table of {self.header.stream!r} does not hold {action} at experience {position} "
            f"of the model {before!r}"
        )

    def metric(self, row: RecordedRow) -> float:
        """Return the metric that holds after a row: that of the model which is in use then."""
        if not row.kept:
            row = self.row(row.position, row.before, SKIP)
        return -math.inf if row.metric_after is None else row.metric_after

    @property
    def full_j(self) -> float:
        """Joules of retraining in full at each experience.

        Raises:
            ConfigurationError: If that was not recorded.
        """
        spent_j, key = 0.0, UNTRAINED
        for position in range(self.num_experiences):
            row = self.row(position, key, Action(mode=UpdateMode.FULL_RETRAIN))
            spent_j, key = spent_j + row.energy_j, row.after
        return spent_j


def modelled(
    table: RecordedTable, *, joules_per_sample: float, fixed_j: float = 0.0
) -> RecordedTable:
    """Return the table with joules that no noise touches, in place of those it has.

    An update costs ``fixed_j + joules_per_sample * samples``, and ``SKIP`` nothing.

    Args:
        table: The table.
        joules_per_sample: Joules of each sample that is trained on.
        fixed_j: Joules of an update besides.
    """

    def cost_j(row: RecordedRow) -> float:
        return modelled_j(row.samples, joules_per_sample=joules_per_sample, fixed_j=fixed_j)

    cost = modelled_cost(joules_per_sample=joules_per_sample, fixed_j=fixed_j)
    return RecordedTable(
        dataclasses.replace(table.header, cost=cost),
        table.looks,
        {
            place: tuple(dataclasses.replace(row, energy_j=cost_j(row)) for row in rows)
            for place, rows in table.rows.items()
        },
    )


def modelled_j(samples: int, *, joules_per_sample: float, fixed_j: float) -> float:
    """Return the joules of an update on so many samples; 0 where it has none.

    Example:
        >>> modelled_j(1000, joules_per_sample=0.5, fixed_j=20.0)
        520.0
        >>> modelled_j(0, joules_per_sample=0.5, fixed_j=20.0)
        0.0
    """
    return fixed_j + joules_per_sample * samples if samples else 0.0


def modelled_cost(*, joules_per_sample: float, fixed_j: float) -> str:
    """Say how such joules came about.

    Raises:
        ConfigurationError: If they would not be more than zero, or are not finite.
    """
    if not (math.isfinite(joules_per_sample) and joules_per_sample > 0):
        raise ConfigurationError(
            f"joules_per_sample is {joules_per_sample!r}; it is in joules, above 0"
        )
    if not (math.isfinite(fixed_j) and fixed_j >= 0):
        raise ConfigurationError(f"fixed_j is {fixed_j!r}; it is in joules, 0 or more")
    return f"modelled: {fixed_j:g} J and {joules_per_sample:g} J per sample trained on"


def key_after(position: int, before: str, action: Action, *, exact: bool) -> str:
    """Return the key of a model after an action that was kept.

    An exact key lists what was done since the last full retraining, which forgets all before it. A
    merged one tells which experience the model was last updated at, and whether by a full
    retraining at full effort.

    Args:
        position: Number of the experience.
        before: Key of the model before.
        action: The action.
        exact: Whether a key tells all that the model was trained on.

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
        full = position > 0 and action == Action(mode=UpdateMode.FULL_RETRAIN)
        return f"{'full' if full else 'updated'}-{position}"
    step = f"{position}:{action.mode}" + (
        f"@{action.step_fraction:g}" if 0 < action.step_fraction < 1 else ""
    )
    return step if action.mode is UpdateMode.FULL_RETRAIN else f"{before} {step}"


def to_line(part: Header | RecordedLook | RecordedRow) -> str:
    """Write a part of a table as one line of JSON."""
    if isinstance(part, Header):
        content: dict[str, Any] = {"kind": "header", "format": FORMAT, **asdict(part)}
    elif isinstance(part, RecordedLook):
        content = {"kind": "look", **asdict(part)}
    else:
        content = {"kind": "row", **asdict(part)}
        content["action"] = [str(part.action.mode), part.action.step_fraction]
    return json.dumps(content, allow_nan=False)


def from_line(line: str) -> Header | RecordedLook | RecordedRow:
    """Read what :func:`to_line` wrote.

    Raises:
        ConfigurationError: If it is no such line, or of another version of the format.
    """
    try:
        content = json.loads(line)
        kind = content.pop("kind")
        if kind == "header":
            if (version := content.pop("format")) != FORMAT:
                raise ConfigurationError(
                    f"the table is of format {version!r}, and this version reads format {FORMAT}"
                )
            return Header(**content)
        if kind == "look":
            return RecordedLook(**content)
        mode, step_fraction = content.pop("action")
        return RecordedRow(
            action=Action(mode=UpdateMode(mode), step_fraction=step_fraction), **content
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"{line[:60]!r} is no line of a recorded table") from error


def assemble(parts: Iterable[Header | RecordedLook | RecordedRow]) -> RecordedTable:
    """Put the parts of a table together.

    Raises:
        ConfigurationError: If there is not one header, or something is missing.
    """
    headers: list[Header] = []
    looks: dict[Place, RecordedLook] = {}
    rows: dict[Place, tuple[RecordedRow, ...]] = {}
    for part in parts:
        if isinstance(part, Header):
            headers.append(part)
        elif isinstance(part, RecordedLook):
            looks[part.position, part.before] = part
        else:
            place = (part.position, part.before)
            rows[place] = (*rows.get(place, ()), part)
    if len(headers) != 1:
        raise ConfigurationError(f"a table has one header, and this has {len(headers)}")
    return RecordedTable(headers[0], looks, rows)


def read_table(path: str | Path) -> RecordedTable:
    """Read a table.

    Raises:
        ConfigurationError: If it cannot be read, is no table, or is not complete.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the table {str(path)!r}: {error}") from None
    try:
        return assemble(from_line(line) for line in lines)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
