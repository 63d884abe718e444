"""The estimated share of a job on a card or a host that others use, by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from greentrain.energy import NvmlMeter
from greentrain.energy.cgroup import CpuShare
from greentrain.energy.job_share import JobShare, share_of_times
from greentrain.errors import ConfigurationError
from tests.energy.test_cgroup import Host
from tests.nvml import simulation
from tests.nvml.simulation import NO_PERMISSION, NOT_SUPPORTED, Node

nvml_library, nvml_node = simulation.nvml_library, simulation.nvml_node


def card_share(node: Node, seconds: int) -> JobShare | None:
    meter = NvmlMeter(clock=node.clock, wait=lambda stop, _: stop.wait())
    meter.start()
    for _ in range(seconds):
        node.advance(1.0)
        reading = meter.read()
    (source,) = meter.sources
    meter.close()
    assert reading.energy_j == {"gpu:0": 300.0 * seconds}  # the whole card, with any share
    return source.job_share


def test_a_card_is_shared_by_the_time_that_its_multiprocessors_were_busy(nvml_node: Node) -> None:
    nvml_node.advance(10.03)
    nvml_node.cards[0].busy({os.getpid(): 30, os.getpid() + 100_000: 50})
    share = card_share(nvml_node, 10)
    # Busy 30 % of the time, of 80 % in which any process was.
    assert share is not None
    assert (share.low, share.high) == pytest.approx((0.3, 0.375))
    assert share.mean == pytest.approx(0.3375)
    assert share.standard_uncertainty == pytest.approx(0.075 / 12**0.5)
    assert "NVML" in share.basis


@pytest.mark.parametrize(
    ("busy", "result"),
    [
        ({os.getpid(): 30}, 0),  # alone
        ({os.getpid() + 100_000: 30}, 0),  # the driver gives the host's numbers in a container
        ({os.getpid(): 30, os.getpid() + 100_000: 50}, NOT_SUPPORTED),
        ({os.getpid(): 30, os.getpid() + 100_000: 50}, NO_PERMISSION),
    ],
)
def test_a_share_of_a_card_that_is_unknown_is_none(nvml_node: Node, busy, result) -> None:
    nvml_node.cards[0].busy(busy)
    nvml_node.cards[0].share_result = result
    assert card_share(nvml_node, 3) is None


def host(root: Path) -> Host:
    found = Host(root, "0::/\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "sys")
    return found


def test_a_process_outside_of_a_cgroup_is_compared_with_the_host(tmp_path: Path) -> None:
    machine, used_s = host(tmp_path), [7.0]
    machine.use(100.0, 0.0)
    share = CpuShare(tmp_path, process_s=lambda: used_s[0])
    machine.use(110.0, 0.0)
    used_s[0] = 11.0
    found = share.job_share()
    # 4 of 10 busy seconds; the host's idle ticks do not move here, so 4 of 10 of all time, too.
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.4, 0.4))
    assert "process" in found.basis
    assert share.share() is None  # it is in no cgroup


def test_this_process_has_a_share_of_this_host() -> None:
    share = CpuShare()
    found, rounds = None, 0
    while found is None and rounds < 2000:
        sum(range(100_000))
        found, rounds = share.job_share(), rounds + 1
    if found is None:
        pytest.skip("the CPU time of this host cannot be read")
    assert 0 <= found.low <= found.high <= 1


@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 0.4), (-0.1, 0.4), (0.5, 1.1), (0.5, float("nan"))]
)
def test_shares_that_are_not_in_order_are_refused(low: float, high: float) -> None:
    with pytest.raises(ConfigurationError, match="set 0 <= low <= high <= 1"):
        JobShare(low=low, high=high, basis="busy CPU time")


def test_no_share_without_a_busy_job() -> None:
    assert share_of_times(1.0, 0.0, 10.0, "") is None
    assert share_of_times(-1.0, 2.0, 10.0, "") is None  # a counter that was reset
