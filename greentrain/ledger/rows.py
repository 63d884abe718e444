"""Types of the rows that a ledger returns, one for each kind of entry.

Each has the columns of its table in ``schema.py``; ``None`` means unknown, or not applicable.
Fields that end in ``_id`` hold a UUID as text, fields that end in ``_utc`` an ISO 8601 time in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from greentrain.budget import Period


class EntryRow(TypedDict):
    """The fields that rows of every kind have.

    Attributes:
        entry_id: Number of the entry; later entries have larger numbers.
        recorded_utc: Time at which the row was appended.
    """

    entry_id: int
    recorded_utc: str


class RunRow(EntryRow):
    """The opening row of a run.

    Attributes:
        run_id: The run.
        kind: ``"stream"``, ``"fit"``, ``"measure"``, or another stage of a Trainer.
        name: Name that people use for it.
        environment: JSON of versions, hardware and settings.
        host: Hash of the host's name.
        heads: JSON of the heads that changed since the last opening row or budget row.
        slurm_job_id: Job of SLURM in which it ran.
        slurm_account: Account that SLURM charged.
        team: Tag that a user gave, for sums over teams.
        project: Tag that a user gave, for sums over projects.
    """

    run_id: str
    kind: str
    name: str
    environment: str
    host: str
    heads: str
    slurm_job_id: str | None
    slurm_account: str | None
    team: str | None
    project: str | None


class ClosingRow(EntryRow):
    """The end of a run.

    Attributes:
        run_id: The run.
        status: ``"completed"``, ``"stopped"`` (at its cap) or ``"failed"``.
        caps: JSON list of the enforced caps, as in ``runs[].caps`` of a report; ``None`` without.
        metrics: JSON list of the final metrics of a fit, as in ``runs[].metrics`` of a report;
            ``None`` without.
        resumed_j: Joules that the fit had used before it was resumed; ``None`` if it was not.
    """

    run_id: str
    status: str
    caps: str | None
    metrics: str | None
    resumed_j: float | None


class SourceRow(EntryRow):
    """One metered device of a run; the last row of a name counts for the whole run.

    Attributes:
        run_id: The run.
        name: Name that is unique within the run, such as ``"gpu:0"`` or ``"node1/gpu:0"``.
        method: ``"counter"``, ``"sampled"`` or ``"estimated"``, with details.
        relative_uncertainty: Standard uncertainty as a share of the value.
        device: Model of the device.
        uuid: Identifier of the device.
        power_limit_w: Power limit in watts.
        note: Remarks on the quality of its figures.
        reference: Origin of the uncertainty.
    """

    run_id: str
    name: str
    method: str
    relative_uncertainty: float | None
    device: str | None
    uuid: str | None
    power_limit_w: float | None
    note: str | None
    reference: str | None


class WindowRow(EntryRow):
    """Energy used during one phase.

    Attributes:
        run_id: The run.
        reservation_id: Reservation that pays for it.
        phase: Name of the phase, such as ``"train_epoch"``.
        epoch: Number of the epoch.
        started_utc: Start of the phase.
        duration_s: Seconds, without the phases nested in it.
        energy_j: Joules of all sources that could be measured, without the phases nested in it.
        by_source: JSON of joules by source name; ``null`` for a source that was not measured.
        complete: ``True`` if every source was measured.
        emissions_g: Grams of CO2 equivalent.
        intensity_g_per_kwh: Mean carbon intensity during the window.
        intensity_by_hour: JSON list of mean carbon intensities in g/kWh, one for each UTC hour from
            that of the start on. ``None`` if all are the same, or unknown.
        intensity_origins: JSON list of the origins of its values, where they are estimates,
            forecasts, fallbacks or online answers; ``None`` if they are the run's provider's.
        market_emissions_g: Grams of CO2 equivalent by the market-based intensity.
        market_intensity_g_per_kwh: Mean market-based intensity during the window.
    """

    run_id: str
    reservation_id: str | None
    phase: str
    epoch: int | None
    started_utc: str
    duration_s: float
    energy_j: float | None
    by_source: str
    complete: bool
    emissions_g: float | None
    intensity_g_per_kwh: float | None
    intensity_by_hour: str | None
    intensity_origins: str | None
    market_emissions_g: float | None
    market_intensity_g_per_kwh: float | None


class HeartbeatRow(WindowRow):
    """An open phase as if it ended when the row was recorded; it has the fields of a window."""


class RecoveredWindowRow(WindowRow):
    """A window, or the last heartbeat of a phase whose window was never written.

    Attributes:
        recovered: ``True`` for a heartbeat.
    """

    recovered: bool


class ReplayRow(EntryRow):
    """Progress in writing the rows that waited in a local file.

    Attributes:
        run_id: The run.
        spool_id: The file.
        line: Lines of the file that have been written so far.
    """

    run_id: str
    spool_id: str
    line: int


class CalibrationRow(EntryRow):
    """A comparison of a run's meter with a wall meter.

    Attributes:
        run_id: The run.
        factor: Joules at the wall for each joule of the run's meter.
        low: Lower end of the factor's interval.
        high: Upper end of the factor's interval.
        spans: Spans of time that were compared.
        software_j: Joules of the run's meter.
        wall_j: Joules of the wall meter.
        boundary: Devices that the run's meter covers, such as ``"gpu+cpu+ram"``.
        wall: Description of the wall meter.
    """

    run_id: str
    factor: float
    low: float | None
    high: float | None
    spans: int
    software_j: float
    wall_j: float
    boundary: str | None
    wall: str


class BudgetRow(EntryRow):
    """The terms of a budget: either ``energy_j`` or ``carbon_g`` is set.

    Attributes:
        budget_id: The budget.
        name: Name that is unique in the ledger.
        parent_id: Budget that it is promised out of.
        energy_j: Amount in joules.
        carbon_g: Amount in grams of CO2 equivalent.
        num_experiences: Experiences that it has to last for.
        until_utc: First moment after its end.
        per: Calendar period after which it is renewed.
        carry_over: ``True`` if an unused amount is added to the next period.
        given_as: The budget as the user wrote it.
        heads: JSON of the heads that changed since the last opening row or budget row.
    """

    budget_id: str
    name: str
    parent_id: str | None
    energy_j: float | None
    carbon_g: float | None
    num_experiences: int
    until_utc: str | None
    per: Period | None
    carry_over: bool
    given_as: str
    heads: str


class PaymentRow(EntryRow):
    """The fields that reservations and settlements share.

    The sums are in the budget's unit, and include this row.

    Attributes:
        reservation_id: The reservation.
        budget_id: The budget that pays.
        period: Start of the budget's period in UTC; ``""`` if the budget is not renewed.
        run_id: The run that reserved.
        sum_open: Open reservations in the period.
        sum_reserved: Amount of the open reservations.
        sum_spent: Amount settled, overruns included.
        sum_overrun: Part of ``sum_spent`` beyond the reservations.
    """

    reservation_id: str
    budget_id: str
    period: str
    run_id: str
    sum_open: int
    sum_reserved: float
    sum_spent: float
    sum_overrun: float


class ReservationRow(PaymentRow):
    """An amount that was set aside.

    Attributes:
        amount_j: Joules.
        amount_g: Grams of CO2 equivalent, if the budget is of carbon.
        purpose: Text that says what it pays for.
    """

    amount_j: float
    amount_g: float | None
    purpose: str


class SettlementRow(PaymentRow):
    """The amount that was used under a reservation.

    Attributes:
        actual_j: Joules.
        actual_g: Grams of CO2 equivalent, if the budget is of carbon.
        overrun_j: Joules beyond the reservation.
        overrun_g: Grams beyond the reservation.
        released: ``"given"`` or ``"recovered"`` if the reservation of a dead run was released.
    """

    actual_j: float | None
    actual_g: float | None
    overrun_j: float | None
    overrun_g: float | None
    released: str | None


class DecisionRow(EntryRow):
    """A decision, recorded before it is carried out.

    Attributes:
        run_id: The run.
        budget_id: The budget that pays.
        experience_id: Experience that was decided about.
        position: Number of the experience in its stream, from 0.
        reservation_id: Reservation made for the decision.
        update_mode: Name of the :class:`~greentrain.control.UpdateMode`.
        step_fraction: Fraction of the mode's usual steps.
        reason: Short code of the reason.
        sentence: The reason as a sentence.
        predicted_j: Predicted energy in joules.
        upper_bound_j: Upper bound of the energy in joules.
        min_gain_per_j: Smallest gain per joule that an update had to bring, in units of the metric.
        state: JSON of the state that the policy was given.
        alternatives: JSON of the options that were compared.
        waiting: JSON of the wait for a cleaner hour; ``None`` unless the stream may wait.
    """

    run_id: str
    budget_id: str
    experience_id: str
    position: int
    reservation_id: str | None
    update_mode: str
    step_fraction: float
    reason: str
    sentence: str
    predicted_j: float | None
    upper_bound_j: float | None
    min_gain_per_j: float | None
    state: str
    alternatives: str
    waiting: str | None


class OutcomeRow(EntryRow):
    """The outcome of a decision.

    Attributes:
        run_id: The run.
        experience_id: Experience that was decided about.
        position: Number of the experience in its stream, from 0.
        reservation_id: Reservation that paid.
        metric: Name of the metric.
        metric_before: Metric of the old model.
        metric_after: Metric of the new model.
        steps: Optimizer steps that were done.
        planned_steps: Optimizer steps that were planned.
        energy_j: Energy used, in joules.
        kept: ``True`` if the new model replaced the old one.
        gain: Gain that the controller measured for the update, in units of the metric: positive if
            the new model is better.
        gain_sd: Standard deviation of the gain.
        weights_sha256: Hash of the weights in use afterwards, in hexadecimal.
        data_sha256: Hash of the samples of the experience, in hexadecimal.
        data_samples: Number of these samples.
        data_hashed: Number of samples that were hashed: fewer than all if there are many.
        config_sha256: Hash of the stream's configuration, in hexadecimal.
        flops: Floating-point operations of all steps, counted in one of them.
        flops_note: The reason why ``flops`` is unknown.
        shifted_g: Grams that waiting saved against a start at once; ``None`` if unknown.
    """

    run_id: str
    experience_id: str
    position: int
    reservation_id: str | None
    metric: str
    metric_before: float | None
    metric_after: float | None
    steps: int
    planned_steps: int
    energy_j: float | None
    kept: bool
    gain: float | None
    gain_sd: float | None
    weights_sha256: str | None
    data_sha256: str | None
    data_samples: int | None
    data_hashed: int | None
    config_sha256: str | None
    flops: float | None
    flops_note: str | None
    shifted_g: float | None


class EventRow(EntryRow):
    """An event of a run that is neither energy nor money.

    Attributes:
        run_id: The run.
        topic: ``"waiting"``, ``"pause"``, ``"resume"``, ``"shifted"``, or ``"share"`` of a source.
        experience_id: Experience that it is about.
        content: JSON of its figures.
    """

    run_id: str
    topic: str
    experience_id: str | None
    content: str


class Head(TypedDict):
    """The end of a chain.

    Attributes:
        count: Number of rows in the chain.
        head: Hash of its last row, in hexadecimal.
    """

    count: int
    head: str


Heads = Mapping[str, Head]
"""The heads of all chains, by chain name."""
