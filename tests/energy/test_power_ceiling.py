"""No window holds more energy than its sources can use in its time."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greentrain.energy import ConstantMeter, NvmlMeter, Source
from greentrain.energy._rapl_limit import rapl_limit_w
from greentrain.errors import ConfigurationError
from greentrain.measuring import run_command
from tests.energy.simulated_machine import schedule
from tests.nvml import simulation
from tests.nvml.simulation import Node

nvml_library, nvml_node = simulation.nvml_library, simulation.nvml_node
_numbers = itertools.count()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chance=st.randoms(use_true_random=False))
def test_no_window_has_more_power_than_its_sources_state(
    nvml_library: Path, tmp_path: Path, chance: random.Random
) -> None:
    outcome = schedule(tmp_path / str(next(_numbers)), chance)
    assert outcome.above == ()
    assert outcome.stated_w == outcome.right_w


@pytest.mark.parametrize("seed", range(10))
def test_no_window_of_a_seeded_schedule_has_more_power(
    nvml_library: Path, tmp_path: Path, seed: int
) -> None:
    outcome = schedule(tmp_path / "machine", random.Random(seed))
    assert outcome.windows > 5
    assert outcome.above == ()
    assert outcome.stated_w == outcome.right_w


def test_a_measured_command_is_below_the_ceiling_of_this_machine(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/greentrain.db"
    # As `greentrain measure -- sleep 0.26`: it had 46.7 W where 28 W were possible.
    measured, code = run_command(["sleep", "0.26"], ledger=url)
    assert code == 0
    ceilings_w = {source.name: source.max_power_w for source in measured.sources}
    assert ceilings_w["ram"]
    stated_w = [watts for watts in ceilings_w.values() if watts is not None]
    for name, joules in measured.reading.energy_j.items():
        most_w = ceilings_w[name]
        if joules is not None and most_w is not None:
            assert joules <= most_w * measured.reading.duration_s * 1.000001
    if len(stated_w) == len(ceilings_w):
        assert (measured.reading.power_w or 0.0) <= 1.000001 * sum(stated_w)


def test_a_card_above_its_limit_states_no_ceiling(nvml_node: Node) -> None:
    nvml_node.cards[0].limit_w = 250.0  # while it uses 300 W
    meter = NvmlMeter(
        clock=nvml_node.clock,
        synchronize=lambda index: None,
        wait=lambda stop, seconds: stop.wait(),
    )
    meter.start()
    assert meter.sources[0].max_power_w == 250.0
    for _ in range(100):
        nvml_node.advance(0.05)
        meter.read()
    (source,) = meter.sources
    assert (source.power_limit_w, source.max_power_w) == (250.0, None)
    meter.close()


def test_a_limit_that_was_lowered_holds_for_later_windows_only(nvml_node: Node) -> None:
    meter = NvmlMeter(
        clock=nvml_node.clock,
        synchronize=lambda index: None,
        wait=lambda stop, seconds: stop.wait(),
    )
    meter.start()
    nvml_node.advance(5.0)
    meter.read()
    card = nvml_node.cards[0]
    card.limit_w = 310.0
    nvml_node.advance(5.0)
    meter.read()
    (source,) = meter.sources
    assert (source.power_limit_w, source.max_power_w) == (310.0, 400.0)
    meter.close()


def test_a_constant_meter_states_its_value() -> None:
    meter = ConstantMeter({"cpu": 20.0, "ram": 5.0})
    assert [source.max_power_w for source in meter.sources] == [20.0, 5.0]


@pytest.mark.parametrize("watts", [-1.0, float("nan"), float("inf")])
def test_a_ceiling_that_is_no_power_is_refused(watts: float) -> None:
    with pytest.raises(ConfigurationError, match=r"max_power_w=.*in watts, 0 or more, or None"):
        Source(name="cpu", method="given", relative_uncertainty=None, max_power_w=watts)


def zone(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def test_the_limit_of_packages_is_the_highest_of_each(tmp_path: Path) -> None:
    first = zone(
        tmp_path / "0",
        enabled="1",
        constraint_0_power_limit_uw="65000000",
        constraint_1_power_limit_uw="120000000",
    )
    second = zone(tmp_path / "1", constraint_0_power_limit_uw="65000000")
    assert rapl_limit_w([first, second]) == 185.0


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"enabled": "0", "constraint_0_power_limit_uw": "65000000"},
        {"constraint_0_power_limit_uw": "0"},
        {"constraint_0_power_limit_uw": "none"},
    ],
)
def test_without_a_limit_in_force_the_ceiling_is_unknown(
    files: dict[str, str], tmp_path: Path
) -> None:
    good = zone(tmp_path / "0", constraint_0_power_limit_uw="65000000")
    assert rapl_limit_w([good, zone(tmp_path / "1", **files)]) is None
    assert rapl_limit_w([]) is None
