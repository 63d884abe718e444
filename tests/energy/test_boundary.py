from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.energy import boundary, boundary_note
from greentrain.errors import ConfigurationError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], None),
        (["gpu:0"], "gpu"),
        (["gpu:1", "gpu:0"], "gpu"),
        (["ram", "cpu", "gpu:0"], "gpu+cpu+ram"),
        (["cpu"], "cpu"),
        (["constant"], "constant"),
        (["unknown", "disk", "ram"], "ram+disk+unknown"),
        (["module:0", "gpu:0"], "gpu+module"),
        (["node"], "node"),
        (["gpu:0", "node", "cpu"], "node"),
        (["node1/gpu:0", "node2/gpu:0", "node1/cpu"], "gpu+cpu"),
        (["rack/7/gpu:0"], "gpu"),
        (["a/node", "b/node", "a/gpu:0"], "node"),
        (["a/node", "a/gpu:0", "b/cpu"], "cpu+node"),  # of b there is no figure of the node
    ],
)
def test_names_make_a_boundary(names: list[str], expected: str | None) -> None:
    assert boundary(names) == expected


@pytest.mark.parametrize(
    ("names", "expected", "note"),
    [
        (["node"], "facility", "the node's joules multiplied by a PUE of 1.2"),
        (["a/node", "b/node"], "facility", "the node's joules multiplied by a PUE of 1.2"),
        (
            ["gpu:0"],
            "gpu",
            "multiplied by a PUE of 1.2; what gpu leaves out of the node is in neither",
        ),
        (
            ["a/node", "b/cpu"],
            "cpu+node",
            "multiplied by a PUE of 1.2; what cpu+node leaves out of the node is in neither",
        ),
        ([], None, ""),
    ],
)
def test_a_pue_makes_a_facility_of_nodes_only(
    names: list[str], expected: str | None, note: str
) -> None:
    assert boundary(names, pue=1.2) == expected
    assert boundary_note(iter(names), pue=1.2) == note
    assert boundary_note(names) == ""


@pytest.mark.parametrize("pue", [0.9, 0.0, -1.0, math.nan, math.inf])
def test_a_pue_is_a_factor_of_one_or_more(pue: float) -> None:
    with pytest.raises(ConfigurationError, match="pue is"):
        boundary(["node"], pue=pue)


@given(st.lists(st.sampled_from(["gpu:0", "gpu:1", "cpu", "ram", "node", "h/disk", "h/node"])))
def test_order_and_repetition_do_not_matter(names: list[str]) -> None:
    assert boundary(names) == boundary(sorted(names)) == boundary([*names, *names])
