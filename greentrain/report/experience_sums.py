"""Counts and metrics of the experiences of a stream, and their summary over all streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from greentrain.control import UpdateMode
from greentrain.ledger import DecisionRow
from greentrain.report.document import ExperienceCounts, StreamSummary, Summary
from greentrain.report.experiences import StreamKey, UpdateFigures
from greentrain.report.sums import Sum
from greentrain.report.use_figures import ComputeFigures


def summary(counts: Mapping[StreamKey, ExperienceSums], compute: ComputeFigures) -> Summary:
    """Sum up the experiences of all streams, and of each over all its runs.

    Metrics of different streams are not averaged. If more than one stream has a metric, the figures
    over all streams are ``None``, and ``by_stream`` has those of each stream.

    Args:
        counts: The sums of each stream with experiences.
        compute: The operations of all trainings.
    """
    each: list[StreamSummary] = [
        {"name": stream.name, "run_ids": list(sums.run_ids), **sums.counts()}
        for stream, sums in counts.items()
    ]
    with_metric = [one for one in each if one["final_metric"] is not None]
    alone = with_metric[0] if len(with_metric) == 1 else None
    hashes = [one["weights_sha256"] for one in each if one["weights_sha256"] is not None]
    return {
        "experiences": sum(one["experiences"] for one in each),
        "done": sum(one["done"] for one in each),
        "interrupted": sum(one["interrupted"] for one in each),
        "not_kept": sum(one["not_kept"] for one in each),
        "update_modes": {
            str(mode): sum(one["update_modes"][mode] for one in each) for mode in UpdateMode
        },
        "metric": None if alone is None else alone["metric"],
        "final_metric": None if alone is None else alone["final_metric"],
        "anytime_metric": None if alone is None else alone["anytime_metric"],
        "weights_sha256": hashes[0] if len(hashes) == 1 else None,
        **compute,
        "by_stream": each,
        "by_use": [],
    }


class _Tried(NamedTuple):
    """The last try of an experience that counts; ``mode`` is ``None`` in shadow mode."""

    done: bool
    mode: str | None
    discarded: bool
    value: float | None


class ExperienceSums:
    """Counts and metrics of the experiences of one stream; :meth:`add` adds the next entry.

    An experience counts once, also if a killed run tried it first: its last finished try counts.

    Attributes:
        run_ids: Ids of the stream's runs with experiences, in order.
        weights_sha256: Hash of the weights in use after the last outcome; ``None`` if unknown.
    """

    def __init__(self) -> None:
        self.run_ids: dict[str, None] = {}
        self.weights_sha256: str | None = None
        self._tried: dict[tuple[int, str], _Tried] = {}
        self._metric: str | None = None
        self._final: float | None = None

    def add(self, decision: DecisionRow, one: UpdateFigures) -> None:
        """Add a decision with its figures."""
        self.run_ids[one["run_id"]] = None
        done = one["status"] == "done"
        if done:
            self.weights_sha256 = one["weights_sha256"]
        place = decision["position"], decision["experience_id"]
        if done or place not in self._tried:
            self._tried[place] = _Tried(
                done,
                None if one["shadow"] else one["update_mode"],
                one["kept"] is False,
                one["metric_after"],
            )
        if done and one["metric_after"] is not None:
            self._metric, self._final = one["metric"], one["metric_after"]

    def counts(self) -> ExperienceCounts:
        """Return the counts as the report has them."""
        tried = self._tried.values()
        modes = Counter(one.mode for one in tried if one.done)
        reached = Sum()
        reached.add_all(one.value for one in tried)
        summed, done = reached.total, sum(one.done for one in tried)
        return {
            "experiences": len(tried),
            "done": done,
            "interrupted": len(tried) - done,
            "not_kept": sum(one.discarded for one in tried),
            "update_modes": {str(mode): modes[mode] for mode in UpdateMode},
            "metric": self._metric,
            "final_metric": self._final,
            "anytime_metric": None if summed is None else summed / reached.known,
            "weights_sha256": self.weights_sha256,
        }
