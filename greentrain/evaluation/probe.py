"""Probe the current model: forward passes on so few samples that the budget affords them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch.utils.data import Dataset, Subset

from greentrain.evaluation.comparison import Comparison, Measured, MetricHistory
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.held_out import KEPT, HeldOut
from greentrain.evaluation.signals.confidence import EstimatedMetric, corrected
from greentrain.evaluation.signals.copies import SeenSamples
from greentrain.evaluation.signals.drift import Drift
from greentrain.evaluation.signals.features import drift_between
from greentrain.evaluation.signals.missing_labels import labelled_part, lacks_labels
from greentrain.evaluation.signals.unseen_classes import SeenClasses, labels_in, unseen_share
from greentrain.evaluation.unlabelled import estimate_new
from greentrain.memory import size
from greentrain.payments import MIN_RESERVATION_J
from greentrain.streams import Experience

PROBE_SHARE = 0.01
"""Share of the budget per remaining experience that a probe may use."""
MOST_NEW = 512
FEWEST = 48
"""Smallest number of samples of a probe; fewer are not informative."""
SAMPLES_FOR_DRIFT = 256
"""Smallest number of samples for a comparison of features, which costs as much as the samples."""
VALIDATION_SHARE = 0.05
"""Share of an update's energy that its validation may use."""
FEWEST_VALIDATED = 256
NOTHING = "nothing: "
"""Beginning of ``estimated_by`` before a reason why the metric was not estimated."""
MOST_CHANGES = 16
"""Estimates without labels that are compared with what was measured later."""
_SAFETY = 3.0
_REMEMBERED = 3
_WITHOUT_A_TRAINER = 0.25
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The result of a probe of the current model.

    Args:
        held_out: The held-out samples that were used, of past experiences and of the current one. A
            successor is compared on the same samples.
        past: The metric on those of past experiences; ``None`` if there are none.
        measured: The metric on all of them.
        new: The metric on a sample of the new training data.
        drift: The distance of the new data from the old; ``None`` if unknown.
        metric_current: The metric on all held-out data of the current experience; ``None`` unless
            it was requested.
        estimated: The metric on the new data, if it was estimated without labels.
        estimated_change: Its estimated change, before it was corrected by earlier ones.
        estimated_by: The methods, or the reason why it was not estimated; empty if it was measured.
    """

    held_out: tuple[Dataset[Any], ...]
    past: Measured | None
    measured: Measured
    new: Measured
    drift: Drift | None = None
    metric_current: float | None = None
    estimated: EstimatedMetric | None = None
    estimated_change: float | None = None
    estimated_by: str = ""

    @property
    def metric(self) -> float:
        """The metric on held-out data."""
        return self.measured.value

    @property
    def samples(self) -> int:
        """Number of samples that were evaluated."""
        return self.measured.samples + self.new.samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Labels and copies in new data, which need no model and cost nothing.

    Args:
        unseen: Share of the new samples whose class was never seen; ``None`` if unknown.
        copies: Share of them that are copies of samples that were trained on; ``None`` if unknown.
    """

    unseen: float | None = None
    copies: float | None = None


class Probe:
    """Choose the size of a probe, run it, and learn its energy.

    Args:
        evaluator: Measures models.
        held_out: Held-out data.
        seed: Seed of the choice of samples.

    Attributes:
        validation_j: Joules of the last validation after an update; 0 before any.
    """

    def __init__(self, evaluator: Evaluator, held_out: HeldOut, *, seed: int) -> None:
        self.validation_j = 0.0
        self._evaluator = evaluator
        self._held_out = held_out
        self._seen = SeenClasses()
        self._trained = SeenSamples()
        self._random = torch.Generator().manual_seed(seed)
        self._validation_sample_j: float | None = None
        self._probe_sample_j: list[float] = []
        self._changes: list[tuple[float, float]] = []  # estimated without labels, and measured

    def affordable(self, left_per_experience_j: float) -> int:
        """Return the number of samples that a probe may use, new and held-out ones together.

        0 for fewer than 48 samples, and while the cost of a sample is unknown.
        """
        sample_j = self._sample_j()
        if sample_j is None:
            return 0
        return probe_size(
            budget_j=left_per_experience_j, sample_j=sample_j, fewest=FEWEST, most=MOST_NEW + KEPT
        )

    def expected_j(self, samples: int) -> float:
        """Return the expected joules of a probe of a number of samples."""
        return samples * (self._sample_j() or 0.0)

    def upper_bound_j(self, samples: int) -> float:
        """Return the joules that a probe of a number of samples hardly ever exceeds."""
        most_j = max([self._validation_sample_j or 0.0, *self._probe_sample_j])
        return max(_SAFETY * max(samples, FEWEST) * most_j, MIN_RESERVATION_J)

    def expected_validation_j(self, samples: int) -> float:
        """Return the expected joules of a validation on a number of samples; 0 if unknown."""
        return samples * (self._validation_sample_j or 0.0)

    def validation_data(self, experience: Experience, update_j: float) -> Dataset[Any]:
        """Return the held-out samples that an update of some joules is validated on.

        These are all held-out data, or a uniform sample of at least 256, if all of them would use
        more than a twentieth of the update's joules.
        """
        held_out = self._held_out.with_current(experience)
        if not self._validation_sample_j:
            return held_out
        most = max(FEWEST_VALIDATED, int(VALIDATION_SHARE * update_j / self._validation_sample_j))
        return held_out if size(held_out) <= most else self.some(held_out, most)

    def run(
        self,
        model: LightningModule,
        experience: Experience,
        new: Dataset[Any],
        samples: int,
        *,
        current_alone: bool = False,
    ) -> ProbeResult:
        """Probe a model.

        Args:
            model: The current model.
            experience: The current experience.
            new: New training data.
            samples: Samples to evaluate; at most half of them, and 512, are new ones.
            current_alone: Whether to measure the experience's held-out data alone, too.

        Samples without a label are not measured. Without any label in the new data and in the
        held-out data of the experience, the metric on the new data is estimated: see
        :func:`estimate_new`.
        """
        if self.lacks_labels(new):
            if self.lacks_labels(experience.val):
                return self._without_labels(model, new, samples)
            new = experience.val
        new = self.labelled_part(new, quick=True)
        new = self.labelled_part(self.some(new, min(samples // 2, MOST_NEW)))
        past, present = self._held_out.past, experience.val
        rest = samples - size(new)
        n_past = round(rest * size(past) / max(1, size(past) + size(present)))
        held_out = [self.some(past, n_past), self.some(present, rest - n_past)]
        held_out = [each for each in held_out if size(each)]
        compare_features = samples >= SAMPLES_FOR_DRIFT
        measured = self._evaluator.measure(model, [*held_out, new], features=compare_features)
        has_past = n_past > 0 and size(past) > 0
        return ProbeResult(
            held_out=tuple(held_out),
            past=measured[0] if has_past else None,
            measured=self._evaluator.as_one(model, held_out, measured[:-1]),
            new=measured[-1],
            drift=drift_between(measured[0].features, measured[-1].features)
            if has_past and compare_features
            else None,
            metric_current=self._evaluator.metric(model, present) if current_alone else None,
        )

    def lacks_labels(self, dataset: Dataset[Any]) -> bool:
        """Return whether no sample of new data has a label, although the stream's data have some.

        A label of -1 is none, unless -1 is one of two classes of the stream.
        """
        return not self.signs() and lacks_labels(dataset, self._held_out.past)

    def labelled_part(self, dataset: Dataset[Any], *, quick: bool = False) -> Dataset[Any]:
        """Return the samples that have a label; the dataset itself if all have one."""
        return dataset if self.signs() else labelled_part(dataset, quick=quick)

    def signs(self, more: Iterable[Any] = ()) -> bool:
        """Return whether -1 is one of two classes of the stream, with further labels."""
        return self._seen.are_signs(more)

    def learn_estimate(self, estimated: ProbeResult, measured: ProbeResult) -> None:
        """Learn from a probe with the labels that arrived after one without them."""
        if estimated.estimated_change is None or measured.past is None:
            return
        change = measured.new.value - measured.past.value
        if math.isfinite(change):
            pairs = [*self._changes, (estimated.estimated_change, change)]
            self._changes = pairs[-MOST_CHANGES:]

    def _without_labels(
        self, model: LightningModule, new: Dataset[Any], samples: int
    ) -> ProbeResult:
        """Probe with held-out data of the past, and estimate the metric on the new data."""
        new = self.some(new, min(samples // 2, MOST_NEW))
        past = self.some(self._held_out.past, samples - size(new))
        measured = self._evaluator.measure(model, [past], features=True)[0]
        found, drift = estimate_new(model, past, measured, new)
        estimated = change = None
        if not isinstance(found, str):
            change = found.value - measured.value
            estimated = corrected(found, measured.value, self._changes)
        value = math.nan if estimated is None else estimated.value
        return ProbeResult(
            held_out=(past,),
            past=measured,
            measured=measured,
            new=Measured(value=value, blocks=((size(new), value),)),
            drift=drift,
            estimated=estimated,
            estimated_change=change,
            estimated_by=f"{NOTHING}{found}" if isinstance(found, str) else found.by,
        )

    def look(self, new: Dataset[Any]) -> Look:
        """Look at the labels of new data, and for copies among them."""
        unseen = unseen_share(labels_in(new), self._seen) if len(self._seen) else None
        return Look(unseen=unseen, copies=self._trained.share(new))

    def add_experience(self, experience: Experience, *, trained: Dataset[Any] | None) -> None:
        """Count an experience's classes as seen, and samples as trained on.

        Args:
            experience: The experience.
            trained: The new samples that an update has trained on; ``None`` after ``SKIP``.
        """
        self._seen.add(labels_in(experience.train))
        if trained is not None:
            self._trained.add(trained)

    def learn_probe(self, samples: int, energy_j: float) -> None:
        """Learn from the joules of a probe."""
        if samples:
            self._probe_sample_j = [*self._probe_sample_j, energy_j / samples][-_REMEMBERED:]

    def learn_validation(self, samples: int, energy_j: float) -> None:
        """Learn from the joules of a validation after an update."""
        self.validation_j = energy_j
        if samples:
            self._validation_sample_j = energy_j / samples

    def reseed(self, seed: int) -> None:
        """Restart the random choice of samples from a seed."""
        self._random.manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return learned joules, the classes seen, and the random state."""
        return {
            "validation_sample_j": self._validation_sample_j,
            "probe_sample_j": list(self._probe_sample_j),
            "validation_j": self.validation_j,
            "seen": self._seen.state_dict(),
            "trained": self._trained.state_dict(),
            "changes": [list(each) for each in self._changes],
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self._validation_sample_j = state["validation_sample_j"]
        self._probe_sample_j = list(state["probe_sample_j"])
        self.validation_j = state["validation_j"]
        self._evaluator.known |= self._validation_sample_j is not None
        self._seen.load_state_dict(state["seen"])
        self._trained.load_state_dict(state["trained"])
        self._random.set_state(state["random"])
        changes = state.get("changes", ())  # not in a state of an earlier release
        self._changes = [(estimated, measured) for estimated, measured in changes]

    def _sample_j(self) -> float | None:
        """Joules per sample: the least of the last probes, as a process's first one costs more.

        Before any probe, a share of the joules of a validation, which include starting a Trainer;
        ``None`` before any validation.
        """
        if self._probe_sample_j:
            return min(self._probe_sample_j)
        validated_j = self._validation_sample_j
        return None if validated_j is None else _WITHOUT_A_TRAINER * validated_j

    def some(self, dataset: Dataset[Any], count: int) -> Dataset[Any]:
        """Return a uniform sample of a dataset; all of it if it has no more."""
        chosen = torch.randperm(size(dataset), generator=self._random)[:count]
        return Subset(dataset, chosen.tolist())


def probe_size(*, budget_j: float, sample_j: float, fewest: int = 32, most: int = 512) -> int:
    """Return the number of samples with which a probe uses at most 1 % of a budget.

    Args:
        budget_j: Joules left for each experience to come.
        sample_j: Joules of evaluating one sample.
        fewest: Smallest informative number of samples.
        most: Number of samples beyond which a probe is hardly more informative.

    Returns:
        Samples, from ``fewest`` to ``most``. 0 (no probe) if fewer can be afforded, or one of the
        two amounts is unknown, negative or NaN.

    Example:
        >>> probe_size(budget_j=1000.0, sample_j=0.1)  # 10 J at 0.1 J
        100
        >>> probe_size(budget_j=100.0, sample_j=0.1)
        0
        >>> probe_size(budget_j=1e6, sample_j=0.1)
        512
    """
    if not (budget_j > 0 and 0 <= sample_j < math.inf):
        return 0
    if PROBE_SHARE * budget_j >= most * sample_j:
        return most
    samples = math.floor(PROBE_SHARE * budget_j / sample_j)
    return samples if samples >= fewest else 0


def compare_on_probe(
    probe: ProbeResult,
    current: LightningModule,
    successor: LightningModule,
    *,
    evaluator: Evaluator,
    history: MetricHistory,
) -> Comparison:
    """Compare a successor with the current model on the samples of its probe."""
    before, after = probe.measured, evaluator.measure_as_one(successor, probe.held_out)
    if before.sizes != after.sizes:  # the probe needed no Trainer, and the successor did
        before = evaluator.measure_as_one(current, probe.held_out)
    return history.compare(before, after)


def compare_on_all(
    held_out: Dataset[Any],
    current: LightningModule,
    successor: LightningModule,
    *,
    evaluator: Evaluator,
    history: MetricHistory,
) -> Comparison:
    """Compare a successor with the current model on held-out data in the order of experiences.

    Each block has samples of all experiences. So a gain on one experience and a loss on another
    cancel out within the blocks, and do not count as scatter between them.
    """
    mixed = [interleaved(held_out)]
    before, after = (evaluator.measure_as_one(each, mixed) for each in (current, successor))
    return history.compare(before, after)


def interleaved(dataset: Dataset[Any]) -> Dataset[Any]:
    """Return the samples in an order of which every run is spread evenly over the dataset.

    The order is that of the multiples of the golden ratio, modulo 1.

    Example:
        >>> interleaved(range(8)).indices  # one of each half in every pair
        [0, 5, 2, 7, 4, 1, 6, 3]
    """
    spread = torch.arange(size(dataset), dtype=torch.float64) * _GOLDEN % 1.0
    return Subset(dataset, spread.argsort().argsort().tolist())
