"""Each device of each host is measured once, for any devices that each process can see."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from greentrain.callbacks.meter_lease import gpu_indices
from greentrain.callbacks.ranks import AssignedMeter, ProcessDevices, assign_devices
from greentrain.energy import ConstantMeter

CARDS = ["U1", "U2", "U3", "U4"]


@st.composite
def a_cluster(draw):
    """Processes on one to three hosts, each of which sees some of its host's cards."""
    places = []
    for host in draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=8)):
        seen = draw(st.lists(st.sampled_from(CARDS), unique=True, max_size=4))
        devices = {f"gpu:{index}": f"{host}-{uuid}" for index, uuid in enumerate(seen)}
        if draw(st.booleans()):
            devices |= {"cpu": "cpu", "ram": "ram"}
        places.append(ProcessDevices(host=host, devices=devices))
    return places


@given(a_cluster())
def test_each_device_of_each_host_has_exactly_one_owner(places):
    owned = [
        (place.host, place.devices[name])
        for place, mine in zip(places, assign_devices(places), strict=True)
        for name in mine
    ]
    there = {(place.host, device) for place in places for device in place.devices.values()}
    assert len(owned) == len(set(owned))
    assert set(owned) == there


@given(a_cluster())
def test_no_two_devices_of_a_run_share_a_name(places):
    names = [name for mine in assign_devices(places) for name in mine.values()]
    assert len(names) == len(set(names))


def test_four_ranks_that_all_see_four_cards_leave_them_to_the_first():
    everything = {f"gpu:{index}": uuid for index, uuid in enumerate(CARDS)}
    first, *others = assign_devices([ProcessDevices(host="a", devices=everything)] * 4)
    assert list(first) == ["gpu:0", "gpu:1", "gpu:2", "gpu:3"]
    assert others == [{}, {}, {}]


def test_ranks_on_two_hosts_with_a_card_each():
    places = [
        ProcessDevices(
            host=host, devices={"gpu:0": f"{host}{rank}", **({"cpu": "cpu"} if not rank else {})}
        )
        for host in ("a", "b")
        for rank in range(2)
    ]
    assert assign_devices(places) == [
        {"gpu:0": "node0/gpu:0", "cpu": "node0/cpu"},
        {"gpu:0": "node0/gpu:1"},
        {"gpu:0": "node1/gpu:0", "cpu": "node1/cpu"},
        {"gpu:0": "node1/gpu:1"},
    ]


def test_two_instances_of_one_card_are_one_card():
    assert assign_devices([ProcessDevices(host="a", devices={"gpu:0": "U1"})] * 2) == [
        {"gpu:0": "gpu:0"},
        {},
    ]


def test_a_meters_part_has_the_names_of_the_run(seconds):
    meter = ConstantMeter({"gpu:0": 300.0, "cpu": 50.0}, clock=lambda: seconds[0])
    part = AssignedMeter(meter, {"gpu:0": "node1/gpu:3"})
    part.start()
    seconds[0] = 2.0
    assert part.read().energy_j == {"node1/gpu:3": 600.0}
    assert [source.name for source in part.sources] == ["node1/gpu:3"]
    part.close()


def test_only_the_card_that_is_trained_on_is_measured():
    assert gpu_indices(torch.device("cuda", 2)) == (2,)
    assert gpu_indices(torch.device("cpu")) == ()
    assert gpu_indices(torch.device("mps")) == ()
