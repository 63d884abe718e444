"""Types of the report document, the JSON that the page and every export is rendered from.

``schema/report-3.json`` describes the same document. Units are suffixes of the keys: joules
(``_j``), watt-hours (``_wh``), grams of CO2 equivalent (``_g``), seconds (``_s``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, Required, TypedDict

from greentrain.ledger import Head
from greentrain.report.budget_figures import BudgetFigures
from greentrain.report.carbon_figures import (
    CarbonFigures,
    Equivalents,
    Restated,
    SupplementaryImpacts,
)
from greentrain.report.job_share_figures import JobShareFigures
from greentrain.report.use_figures import ComputeFigures, UseFigures


class EnergyFigures(TypedDict):
    """The sum of some windows, and how many of them are incomplete or recovered."""

    energy_j: float | None
    energy_wh: float | None
    duration_s: float
    windows: int
    windows_incomplete: int
    windows_recovered: int


class PhaseFigures(EnergyFigures):
    """The windows of one phase."""

    phase: str


class EnergyInterval(TypedDict):
    """A 95 % interval of an energy; ``k`` is its number of standard uncertainties, if fixed."""

    coverage: float
    low_j: float
    high_j: float
    low_wh: float
    high_wh: float
    k: NotRequired[float]


class SourceDescription(TypedDict):
    """A metered device as its run describes it."""

    name: str
    method: str | None
    relative_uncertainty: float | None
    device: str | None
    uuid: str | None
    power_limit_w: float | None
    note: str | None
    reference: str | None


class HostSource(SourceDescription):
    """A metered device on one host."""

    host: str | None


class SourceFigures(HostSource):
    """The energy of a metered device over all runs that describe it in the same way."""

    energy_j: float | None
    energy_wh: float | None
    standard_uncertainty_j: float | None
    windows: int
    windows_unknown: int


class BoundaryEnergy(TypedDict, total=False):
    """Energy of the node or the facility; which keys are set depends on what it is of."""

    boundary: Required[str]
    energy_j: Required[float]
    energy_wh: Required[float]
    low_j: Required[float | None]
    high_j: Required[float | None]
    factor: float
    factor_low: float | None
    factor_high: float | None
    spans: int
    compared_software_j: float | None
    compared_wall_j: float | None
    wall: str | None
    note: str | None
    pue: float
    pue_source: str | None
    times: str | None
    metered_j: float | None
    runs: int
    complete: bool
    basis: list[dict[str, Any]]


class CapFigures(TypedDict):
    """A cap of a run at its end, as texts with units."""

    cap: str
    used: str
    left: str
    stopped: bool
    budget: str | None


class RunMetric(TypedDict):
    """The final value of a metric; ``mode`` is ``"max"`` or ``"min"``: its better direction."""

    name: str
    value: float
    mode: str | None


class ReportedExit(TypedDict):
    """Accuracy and cost of early exits at one threshold.

    ``threshold`` is ``None`` for the full module. Joules and operations are of 1,000 predictions.
    """

    threshold: float | None
    accuracy: float | None
    operations: float | None
    energy_j: float | None


class RunFigures(EnergyFigures):
    """A run as it was measured; grams are known if they are known of each of its windows.

    ``emissions_before_g`` are those that the ledger holds, in a restated report. ``metrics`` are
    those of a fit, the most important one first. ``resumed_j`` are the joules that a resumed fit
    had used before, which are those of another run.
    """

    run_id: str
    kind: str
    name: str
    status: str
    host: str | None
    opened_utc: str
    closed_utc: str | None
    emissions_g: float | None
    emissions_before_g: float | None
    caps: list[CapFigures]
    metrics: list[RunMetric]
    resumed_j: float | None
    environment: dict[str, Any]
    slurm_job_id: str | None
    slurm_account: str | None
    team: str | None
    project: str | None
    sources: list[SourceDescription]
    job_shares: list[JobShareFigures]
    overlap_j: float
    boundary: str | None
    windows_by_phase: dict[str, int]
    node: BoundaryEnergy | None
    facility: BoundaryEnergy | None
    exits: NotRequired[list[ReportedExit]]


class EnergyTotals(EnergyFigures):
    """All windows together."""

    complete: bool
    standard_uncertainty_j: float | None
    interval: EnergyInterval | None
    interval_note: str | None
    boundary: str | None
    boundary_note: str | None
    node: BoundaryEnergy | None
    facility: BoundaryEnergy | None
    sources: list[SourceFigures]
    by_phase: list[PhaseFigures]
    idle: list[dict[str, Any]]
    recovered_j: float | None
    without_budget_j: float | None


class ReportTotals(EnergyTotals):
    """All windows together; energy that two runs measured at once is counted once."""

    overlap_j: float
    overlap_g: float | None
    overlap_note: str | None


class HourFigures(TypedDict):
    """One hour in UTC."""

    hour_utc: str
    energy_j: float | None
    carbon_g: float | None


class Overlap(TypedDict):
    """Energy of one source that two runs measured at once."""

    counted_in: str
    not_again_in: str
    source: str
    host: str | None
    uuid: str | None
    duration_s: float
    energy_j: float
    emissions_g: float | None


class ReportedDecision(TypedDict):
    """A decision about an experience, as it was recorded before it was carried out."""

    run_id: str
    position: int
    experience_id: str
    reservation_id: str | None
    decided_utc: str
    update_mode: str
    step_fraction: float
    reason: str
    sentence: str
    predicted_j: float | None
    upper_bound_j: float | None
    min_gain_per_j: float | None
    min_gain_per_wh: float | None
    state: dict[str, Any]
    alternatives: list[dict[str, Any]]
    waiting: dict[str, Any] | None
    method: NotRequired[str]


class ReportedOutcome(TypedDict):
    """The outcome of a decision; ``None`` where it was interrupted."""

    status: Literal["done", "interrupted"]
    interruption: str | None
    finished_utc: str | None
    metric: str | None
    metric_before: float | None
    metric_after: float | None
    steps: int | None
    planned_steps: int | None
    energy_j: float | None
    kept: bool | None
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


class ExperienceEntry(ReportedDecision, ReportedOutcome):
    """An experience: the decision about it and its outcome.

    In shadow mode another job trained; ``reported_energy_j`` is the energy that it reported.
    """

    stream: str
    update_energy_j: float | None
    shadow: bool
    reported_energy_j: float | None
    overrun_j: float | None
    budget: str | None
    budget_left_after_j: float | None


class ExperienceCounts(TypedDict):
    """Counts and metrics of some experiences."""

    experiences: int
    done: int
    interrupted: int
    not_kept: int
    update_modes: dict[str, int]
    metric: str | None
    final_metric: float | None
    anytime_metric: float | None
    weights_sha256: str | None


class StreamSummary(ExperienceCounts):
    """Counts and metrics of one stream, over all its runs."""

    name: str
    run_ids: list[str]


class Summary(ExperienceCounts, ComputeFigures):
    """Counts and metrics of all streams, and of each; an experience counts once."""

    by_stream: list[StreamSummary]
    by_use: list[UseFigures]


class NotMeasured(TypedDict):
    """Energy, sources and devices that are not in the figures."""

    windows: list[dict[str, Any]]
    after_last_heartbeat: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    runs_without_windows: list[str]
    outside_boundary: list[str]


class VerificationSummary(TypedDict):
    """The result of verifying the ledgers, and the heads of the chains."""

    ok: bool
    rows: int
    failures: list[str]
    notes: list[str]
    ledgers: list[dict[str, Any]]
    heads: dict[str, Head]
    command: str
    report_command: str


class WindowFigures(TypedDict):
    """One measured window: the energy of a phase, without the phases inside it."""

    run_id: str
    phase: str
    epoch: int | None
    started_utc: str
    duration_s: float
    energy_j: float | None
    emissions_g: float | None
    complete: bool


class LeftOut(TypedDict):
    """Number of the first windows and experiences that the document does not list."""

    windows: int
    experiences: int


class EpochEnergy(TypedDict):
    """The energy of one epoch; ``None`` for what was not measured."""

    epoch: int
    train_j: float | None
    validation_j: float | None


class Report(TypedDict):
    """The report document."""

    schema_version: int
    generator: dict[str, str]
    scope: dict[str, str | None]
    period: dict[str, str | None]
    runs: list[RunFigures]
    totals: ReportTotals
    hourly: list[HourFigures]
    overlaps: list[Overlap]
    budgets: list[BudgetFigures]
    experiences: list[ExperienceEntry]
    baseline_retrainings: list[ExperienceEntry]
    summary: Summary
    not_measured: NotMeasured
    carbon: CarbonFigures
    restated: Restated | None
    equivalents: Equivalents | None
    disclosures: Mapping[str, Any]
    supplementary_impacts: SupplementaryImpacts
    avoided: dict[str, Any]
    verification: VerificationSummary
    windows: list[WindowFigures]
    left_out: LeftOut
