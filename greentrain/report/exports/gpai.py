"""Rows of the EU AI Act's documentation of a general-purpose model that greentrain can fill.

They are those of Annex XI, section 1, point 2 (d) and (e) of Regulation (EU) 2024/1689. The wording
is that of the Model Documentation Form of the Code of Practice for general-purpose AI (July 2025).
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from greentrain.report.compute import flops_gap, known_flops
from greentrain.report.document import Report
from greentrain.report.exports import facts, method_text
from greentrain.report.exports.claim import claim

_S_PER_DAY = 86400.0
_COUNTED = (
    "torch.utils.flop_counter on the first step of each training (forward, backward), multiplied "
    "by its steps; a multiplication and an addition count as two; without probes and validation"
)
_NO_INFERENCE = "greentrain measures training, not inference"


def form(document: Report) -> dict[str, Any]:
    """Return the rows: training time, compute and energy, with their methods.

    A value is text as the form requires it, ``None`` if unknown.
    """
    totals = document["totals"]
    energy_kwh = facts.kwh(totals["energy_j"])
    measured = bool(totals["windows"])
    flops, gap = known_flops(document), flops_gap(document)
    return {
        "form": "Model Documentation Form, Code of Practice for General-Purpose AI, July 2025",
        "law": "Regulation (EU) 2024/1689, Annex XI, section 1, 2 (d) and (e)",
        "model": facts.model_name(document),
        "reporting_period": facts.reporting_period(document),
        "rows": [
            _row(
                "Training time, wall clock",
                significant(totals["duration_s"] / _S_PER_DAY) if measured else None,
                "days",
                "time of the measured windows; runs at the same time are counted separately",
            ),
            _row(
                "Training time, hardware",
                significant(hardware_s(document) / _S_PER_DAY) if measured else None,
                "hardware-days",
                f"wall clock times graphics cards, or 1 without any: {_hardware(document)}",
            ),
            _row(
                "Amount of computation used for training",
                None if flops is None else f"{flops:.1e}",
                "FLOP",
                gap or "two significant digits",
            ),
            _row(
                "Measurement methodology of the computation",
                None if flops is None else _COUNTED,
                None,
                gap or "in about 100 words",
            ),
            _row(
                "Amount of energy used for training",
                None if energy_kwh is None else significant(energy_kwh / 1000.0),
                "MWh",
                "two significant digits, without the building's overheads",
            ),
            _row(
                "Measurement methodology of the energy",
                None if energy_kwh is None else method_text.method(document),
                None,
                "in about 100 words",
            ),
            _row(
                "Benchmarked amount of computation used for inference", None, "FLOP", _NO_INFERENCE
            ),
        ],
        "restated": facts.restated_words(document),
        "missing": missing(document),
        "report": str(claim(document)),
    }


def missing(document: Report) -> list[str]:
    """List the rows that greentrain cannot fill."""
    gap = flops_gap(document)
    return [
        *facts.gaps(document),
        *([f"Amount of computation used for training: {gap}"] if gap else []),
        f"Benchmarked amount of computation used for inference: {_NO_INFERENCE}",
    ]


def significant(value: float) -> str:
    """Write a number with two significant digits and no exponent.

    Example:
        >>> significant(0.0012345), significant(1250.0), significant(0.0)
        ('0.0012', '1200', '0.0')
    """
    return f"{Decimal(f'{value:.1e}'):f}"


def hardware_s(document: Report) -> float:
    """Return the seconds of each run times its graphics cards (times 1 without any)."""
    return math.fsum(
        run["duration_s"]
        * max(1, sum(facts.source_kind(one["name"]) == "gpu" for one in run["sources"]))
        for run in document["runs"]
    )


def _row(name: str, value: str | None, unit: str | None, note: str) -> dict[str, Any]:
    return {"row": name, "value": value, "unit": unit, "note": note}


def _hardware(document: Report) -> str:
    return facts.hardware_words(document) or "the hardware is not known"
