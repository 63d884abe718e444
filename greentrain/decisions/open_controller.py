"""Open the controller of a stream whose training is one's own; list what it may choose from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.control import Action, BudgetController, Candidate, Policy, UpdateMode
from greentrain.decisions.session import ControllerSession
from greentrain.energy import Meter, WindowRecorder, detect
from greentrain.errors import ConfigurationError
from greentrain.ledger import DEFAULT_URL, Ledger, environment
from greentrain.units import utc_now


def candidates_of(
    steps: Mapping[str, int], *, step_fractions: Sequence[float] = (0.25, 0.5, 1.0)
) -> list[Candidate]:
    """List the updates that could be made, from the steps of each update mode.

    Args:
        steps: Optimizer steps (or any other unit of work that all modes share) at effort 1, by
            update mode.
        step_fractions: Shares of them that may be taken, too; each of an update has one step at least.

    Raises:
        ConfigurationError: If a mode is not one that trains, or steps are not a positive number.

    Example:
        >>> found = candidates_of({"WARM_START": 200, "FULL_RETRAIN": 2000}, step_fractions=(0.5, 1.0))
        >>> [(str(each.action), each.steps) for each in found][:2]
        [('WARM_START at 50%', 100), ('WARM_START', 200)]
    """
    modes = [mode for mode in UpdateMode if mode is not UpdateMode.SKIP]
    for name, count in steps.items():
        if name not in modes:
            raise ConfigurationError(f"cannot update by {name!r}; one can by {', '.join(modes)}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigurationError(f"{name} has {count!r} steps; it is a whole number, 1 or more")
    return [
        Candidate(
            action=Action(mode=UpdateMode(name), step_fraction=step_fraction),
            steps=max(1, round(step_fraction * count)),
        )
        for name, count in steps.items()
        for step_fraction in step_fractions
    ]


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
    meter: Meter | None = None,
    elsewhere: bool = False,
    fixed_j: float = 0.0,
    step_j: float | None = None,
    first_j: float | None = None,
    zone: str | None = None,
    intensity: IntensityProvider | None = None,
    pue: float | None = None,
) -> Iterator[ControllerSession]:
    """Open the controller of a stream whose training is your own, in any library.

    What was spent under this name stays spent, and what was learned is read from the ledger: no
    other file is kept. A process that was killed is simply started again.

    Args:
        name: Name of the stream and of its budget in the ledger.
        budget: What may be spent, such as ``"20 Wh"``.
        num_experiences: Experiences that the budget has to last for, where it is given as text; 1 unless
            given.
        monitor: What the metric is called.
        mode: Whether more (``"max"``) or less (``"min"``) of it is better.
        ledger: URL of the ledger; a missing one is created.
        policy: Decides; :class:`greentrain.control.PricedPolicy` unless given.
        meter: Where joules come from. It stays the caller's and is left running; by default the
            best that this machine has, closed at the end.
        elsewhere: Whether training happens where no meter of this process can see it: nothing is
            measured then, and what was drawn has to be given as ``energy_j``.
        fixed_j: Joules that an update draws besides its steps, where ``step_j`` is given.
        step_j: Joules of a step, if they are known. Otherwise the first update says what a step
            costs, or :meth:`ControllerSession.calibrate` does.
        first_j: Joules to reserve for an update whose cost nobody can predict yet; by default a
            tenth of what is left.
        zone: Where the power comes from, such as ``"DE"``; without it no grams are claimed.
        intensity: A provider of carbon intensities, in place of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.

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
        >>> with open_controller("churn", budget="1 Wh", ledger=url, meter=meter) as controller:
        ...     with controller.update(
        ...         "monday", n_new=500, candidates=candidates_of({"FULL_RETRAIN": 40})
        ...     ) as update:
        ...         seconds[0] += 2.0  # any training of update.steps steps
        ...         update.done(metric_after=0.75)
        ...     print(update.action, update.steps, controller.balance().spent_j)
        FULL_RETRAIN at 25% 10 200.0
    """
    if mode not in ("max", "min"):
        raise ConfigurationError(f"mode is {mode!r}; it is 'max' or 'min'")
    carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue)
    terms = _terms(budget, num_experiences, carbon)
    control = BudgetController(policy=policy)
    for given, joules in (("step_j", step_j), ("first_j", first_j)):
        if joules is not None and not (math.isfinite(joules) and joules > 0):
            raise ConfigurationError(f"{given} is {joules!r}; it is in joules, above 0")
    if step_j is not None:
        control.cost.calibrate(fixed_j=fixed_j, step_j=step_j)
    with contextlib.ExitStack() as stack:
        # Not held open from one transaction to the next: whoever trains may fork meanwhile.
        opened = Ledger(ledger, keep_open=False)
        stack.callback(opened.close)
        budget_id = opened.open_budget(name, terms)
        recorder = None if elsewhere else _recorder(meter, stack)
        run = opened.open_run(
            "stream",
            name,
            environment={
                **environment(),
                "settings": {
                    "stream": name,
                    "budget": str(terms),
                    "num_experiences": terms.num_experiences,
                    "monitor": monitor,
                    "mode": mode,
                    "policy": repr(control.policy),
                    "elsewhere": elsewhere,
                },
                "carbon": carbon.as_dict(),
            },
            sources=() if recorder is None else lambda: recorder.meter.sources,
            beat=None if recorder is None else recorder.open_windows,
            emissions=carbon.of,
        )
        stack.enter_context(run)
        if recorder is not None:
            recorder.sinks.append(lambda window: run.record(window, carbon.of(window)))
        own = ControllerSession(
            control,
            opened,
            opened.account(budget_id, run, carbon=carbon),
            run,
            recorder=recorder,
            budget=terms,
            monitor=monitor,
            more_is_better=mode == "max",
            first_j=first_j,
        )
        stack.callback(own.leave)
        yield own


def _terms(budget: str | Budget, num_experiences: int | None, carbon: CarbonAccount) -> Budget:
    if isinstance(budget, Budget):
        if num_experiences is not None:
            raise ConfigurationError(
                f"num_experiences is {num_experiences!r} and the budget is {budget}, which has one; "
                "omit num_experiences"
            )
        terms = budget
    else:
        terms = Budget.parse(
            budget, num_experiences=1 if num_experiences is None else num_experiences
        )
    if terms.share_of_full is not None:
        raise ConfigurationError(
            f"the budget is {terms}, and what your training would draw in full is not known here; "
            "give an amount, such as '20 Wh' or '500 gCO2e'"
        )
    if terms.unit == "g" and carbon.upper_g_per_j(utc_now()) is None:
        raise ConfigurationError(
            f"the budget of {terms} needs a carbon intensity, and none is known now; give a zone "
            "such as zone='DE', or an intensity that covers the present"
        )
    return terms


def _recorder(meter: Meter | None, stack: contextlib.ExitStack) -> WindowRecorder:
    if meter is None:
        meter = detect()
        stack.callback(meter.close)
    meter.start()
    return WindowRecorder(meter)
