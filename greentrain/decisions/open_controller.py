"""Open the controller of a stream that the user's own code trains, and list its candidates."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.control import (
    Action,
    BudgetController,
    Candidate,
    Policy,
    UpdateMode,
    UtilityModel,
)
from greentrain.control.priors import read_priors
from greentrain.decisions.budget_arguments import (
    check_intensity,
    check_names,
    parse_budget,
)
from greentrain.decisions.session import ControllerSession
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.energy import Meter, WindowRecorder, check_meter, close_meter, start_meter
from greentrain.errors import ConfigurationError
from greentrain.ledger import DEFAULT_URL, Ledger, environment
from greentrain.naming import check_tag
from greentrain.units import is_number, is_whole


@contextlib.contextmanager
def open_controller(
    name: str,
    *,
    budget: str | Budget,
    num_experiences: int | None = None,
    monitor: str = "metric",
    mode: Literal["max", "min"] = "max",
    ledger: str = DEFAULT_URL,
    policy: Policy | None = None,
    priors: str | Path | None = None,
    meter: Meter | None = None,
    elsewhere: bool = False,
    fixed_j: float = 0.0,
    step_j: float | None = None,
    first_j: float | None = None,
    shared_budget: str | None = None,
    zone: str | None = None,
    intensity: IntensityProvider | str | None = None,
    pue: float | None = None,
    team: str | None = None,
    project: str | None = None,
) -> Iterator[ControllerSession]:
    """Open the controller of a stream that your own code trains, in any library.

    Energy spent under this name stays spent. Everything learned is read from the ledger, and no
    other file is kept. If the process is killed, start it again.

    Args:
        name: Name of the stream, and of its budget in the ledger.
        budget: The budget, such as ``"20 Wh"``.
        num_experiences: Experiences that the budget has to last for. Required, unless the budget is
            a :class:`Budget`, which has its own number.
        monitor: Name of the metric.
        mode: ``"max"`` if a larger metric is better, ``"min"`` if a smaller one is.
        ledger: URL of the ledger; a missing one is created.
        policy: The policy; :class:`greentrain.control.PricedPolicy` unless given.
        priors: File of priors of the gain, as ``greentrain priors fit`` writes it.
        meter: The meter. It remains the caller's and is left running; by default the best meter of
            this machine, closed at the end.
        elsewhere: Whether training happens where no meter of this process can measure it. Then
            nothing is measured, and ``done`` needs ``energy_j``.
        fixed_j: Joules of an update besides its steps, if ``step_j`` is given.
        step_j: Joules of a step, if known. Otherwise the first update measures it, or
            :meth:`ControllerSession.calibrate` does.
        first_j: Joules to reserve for an update whose cost cannot be predicted yet; by default a
            tenth of the balance.
        shared_budget: Name of a budget that several streams share, which the first of them opens.
        zone: Grid zone of the power, such as ``"DE"``; without it, no emissions are claimed.
        intensity: A provider of carbon intensities or its name, in place of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        team: Tag of the team in the ledger.
        project: Tag of the project in the ledger.

    Yields:
        The controller.

    Raises:
        ConfigurationError: If an argument cannot be used, or the ledger has another budget of this
            name.
        LedgerError: If the ledger cannot be read or written.

    Example:
        >>> import tempfile
        >>> from greentrain.energy import ConstantMeter
        >>> seconds = [0.0]
        >>> meter = ConstantMeter(100.0, clock=lambda: seconds[0])
        >>> url = f"sqlite:///{tempfile.mkdtemp()}/greentrain.db"
        >>> with open_controller(
        ...     "churn", budget="1 Wh", num_experiences=1, ledger=url, meter=meter
        ... ) as controller:
        ...     with controller.update(
        ...         "monday", n_new=500, candidates=candidates_of({"FULL_RETRAIN": 40})
        ...     ) as update:
        ...         seconds[0] += 2.0  # any training of update.steps steps
        ...         update.done(metric_after=0.75)
        ...     print(update.action, update.steps, controller.balance().spent_j)
        FULL_RETRAIN at 25% 10 200.0
    """
    check_names(name, shared_budget, monitor, mode)
    tags = {"team": check_tag(team, "team"), "project": check_tag(project, "project")}
    carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue)
    terms = parse_budget(budget, num_experiences)
    if terms.share_of_full is not None:
        raise ConfigurationError(
            f"the budget is {terms}, and the cost of full retraining by your own code is unknown; "
            "give an amount, such as '20 Wh' or '500 gCO2e'"
        )
    check_intensity(terms, carbon)
    check_meter(meter, "meter")
    known = None if priors is None else read_priors(priors)
    control = BudgetController(policy=policy, utility=UtilityModel(known))
    for given, joules in (("step_j", step_j), ("first_j", first_j)):
        if joules is not None and not (is_number(joules) and math.isfinite(joules) and joules > 0):
            raise ConfigurationError(f"{given} is {joules!r}; it must be in joules, above 0")
    if step_j is not None:
        control.cost.calibrate(fixed_j=fixed_j, step_j=step_j)
    with contextlib.ExitStack() as stack:
        # No connection stays open between transactions, because the user's training may fork.
        opened = Ledger(ledger, keep_open=False)
        stack.callback(opened.close)
        spending = StreamBudget(
            opened, name, terms, shared_budget=shared_budget, carbon=carbon, done=()
        )
        recorder = None if elsewhere else _recorder(meter, stack)
        run = opened.open_run(
            "stream",
            name,
            environment={
                **environment(),
                "settings": {
                    "name": name,
                    "budget": str(terms),
                    "num_experiences": terms.num_experiences,
                    "monitor": monitor,
                    "mode": mode,
                    "policy": repr(control.policy),
                    "priors": None if known is None else known.as_dict()["modes"],
                    "elsewhere": elsewhere,
                    "shared_budget": shared_budget,
                    **tags,
                },
                "carbon": carbon.as_dict(),
            },
            sources=() if recorder is None else lambda: recorder.sources,
            beat=None if recorder is None else recorder.open_windows,
            emissions=carbon.of,
            team=tags["team"],
            project=tags["project"],
        )
        stack.enter_context(run)
        if recorder is not None:
            recorder.sinks.append(lambda window: run.record(window, carbon.of(window)))
        session = ControllerSession(
            control,
            opened,
            run,
            spending,
            stream=name,
            recorder=recorder,
            monitor=monitor,
            more_is_better=mode == "max",
            first_j=first_j,
        )
        stack.callback(session.leave)
        yield session


def candidates_of(
    steps: Mapping[str, int], *, step_fractions: Sequence[float] = (0.25, 0.5, 1.0)
) -> list[Candidate]:
    """Return the candidates of a decision, from the steps of each update mode.

    Args:
        steps: Optimizer steps (or another unit of work that all modes share) at step fraction 1, by
            update mode.
        step_fractions: Fractions of these steps to offer; each update has at least one step.

    Raises:
        ConfigurationError: If a mode trains nothing, or its steps are not a positive number.

    Example:
        >>> found = candidates_of(
        ...     {"WARM_START": 200, "FULL_RETRAIN": 2000}, step_fractions=(0.5, 1.0)
        ... )
        >>> [(str(each.action), each.steps) for each in found][:2]
        [('WARM_START at 50%', 100), ('WARM_START', 200)]
    """
    modes = [mode for mode in UpdateMode if mode is not UpdateMode.SKIP]
    for name, count in steps.items():
        if name not in modes:
            raise ConfigurationError(
                f"{name!r} is no update mode that trains; use one of {', '.join(modes)}"
            )
        if not is_whole(count, 1):
            raise ConfigurationError(
                f"{name} has {count!r} steps; it must be a whole number, 1 or more"
            )
    return [
        Candidate(
            action=Action(mode=UpdateMode(name), step_fraction=step_fraction),
            steps=max(1, round(step_fraction * count)),
        )
        for name, count in steps.items()
        for step_fraction in step_fractions
    ]


def _recorder(meter: Meter | None, stack: contextlib.ExitStack) -> WindowRecorder:
    started = start_meter(meter)
    if meter is None:
        stack.callback(close_meter, started)
    return WindowRecorder(started)
