"""Priors of the gain are fitted to earlier streams, and read from a file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from greentrain.control import UpdateMode, UtilityModel
from greentrain.control.priors import (
    FEATURES,
    GainPriors,
    fit_priors,
    prediction_error,
    read_priors,
)
from greentrain.errors import ConfigurationError
from tests.control.offers import FULL, WARM
from tests.control.test_models import state


def drawn(weights, random, count=40, sd=0.005):
    """Draw gains of warm starts in a stream with the given weights."""
    rows = random.uniform(0.0, 0.3, (count, len(FEATURES)))
    gains = rows @ weights + random.normal(0.0, sd, count)
    return {
        UpdateMode.WARM_START: [[*row, gain, sd] for row, gain in zip(rows, gains, strict=True)]
    }


def test_without_a_gain_the_priors_are_the_default_ones():
    assert fit_priors([]) == fit_priors([{}]) == GainPriors()


def test_many_streams_outweigh_the_default_and_scatter_as_they_do():
    random = np.random.default_rng(0)
    mean, scatter = np.array([0.5, 0.3, 0.1, -0.2, 0.1]), np.array([0.05, 0.1, 0.02, 0.1, 0.05])
    streams = [drawn(random.normal(mean, scatter), random) for _ in range(60)]
    fitted = fit_priors(streams)
    assert np.allclose(fitted.means[UpdateMode.WARM_START], mean, atol=0.05)
    assert np.all(np.array(fitted.sds[UpdateMode.WARM_START]) > 0.5 * scatter)
    assert np.all(np.array(fitted.sds[UpdateMode.WARM_START]) < 2.0 * scatter + 0.08)
    assert fitted.updates == {**GainPriors().updates, UpdateMode.WARM_START: 60 * 40}
    assert fitted.means[UpdateMode.REPLAY] == GainPriors().means[UpdateMode.REPLAY]


def test_priors_of_other_streams_predict_a_stream_of_their_kind_better():
    random = np.random.default_rng(1)
    weights = np.array([0.4, 0.3, 0.1, 0.0, 0.0])
    *others, aside = [drawn(weights, random) for _ in range(5)]
    error = prediction_error(fit_priors(others), aside)
    assert error < 0.6 * prediction_error(GainPriors(), aside)
    assert prediction_error(GainPriors(), {}) is None


def test_a_controller_starts_from_the_given_priors(tmp_path):
    means = {**GainPriors().means, UpdateMode.WARM_START: (0.5, 0.0, 0.0, 0.0, 0.0)}
    path = tmp_path / "priors.json"
    path.write_text(json.dumps(GainPriors(means=means).as_dict()))
    read = read_priors(path)
    assert read == GainPriors(means=means)
    now = state()
    assert UtilityModel(read).predict(WARM, now).mean == pytest.approx(0.5 * now.drop)
    assert UtilityModel(read).predict(FULL, now) == UtilityModel().predict(FULL, now)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: "{", "it is no JSON"),
        (lambda held: [], "it has no 'format'"),
        (lambda held: {**held, "format": "greentrain priors 2"}, "it has no 'format'"),
        (lambda held: {**held, "features": ["drop"]}, "its features are not drop, more steps"),
        (
            lambda held: {**held, "modes": {}},
            "its modes are not FINE_TUNE, REPLAY, WARM_START, FULL_RETRAIN",
        ),
        (lambda held: changed(held, "means", [0.0] * 4), "'means' of REPLAY are not 5 finite"),
        (lambda held: changed(held, "means", [float("nan")] * 5), "'means' of REPLAY are not 5"),
        (lambda held: changed(held, "means", ["0"] * 5), "'means' of REPLAY are not 5 finite"),
        (lambda held: changed(held, "sds", [0.0] * 5), "5 finite numbers above 0"),
        (lambda held: changed(held, "sds", None), "'sds' of REPLAY"),
    ],
)
def test_a_file_without_usable_priors_is_refused(tmp_path, change, message):
    path = tmp_path / "priors.json"
    held = change(GainPriors().as_dict())
    path.write_text(held if isinstance(held, str) else json.dumps(held))
    with pytest.raises(ConfigurationError, match=message):
        read_priors(path)


def changed(held, key, values):
    """Change a list of the first mode."""
    held["modes"]["REPLAY"][key] = values
    return held


def test_a_missing_file_names_the_command_that_writes_it(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read.*greentrain priors fit"):
        read_priors(tmp_path / "none.json")
