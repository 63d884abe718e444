"""Decide about experiences whose labels arrive after the decision, and take the labels up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from greentrain.control import State
from greentrain.decisions.core import finite
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.energy import WindowRecorder
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.evaluation.probe import Probe
from greentrain.evaluation.signals.unseen_classes import labels_in
from greentrain.memory import size
from greentrain.methods import MISSING_LABEL
from greentrain.payments import paying
from greentrain.streams import Experience
from greentrain.training.data import UpdateData
from greentrain.training.stream_state import StreamState
from greentrain.training.update_context import AskedUpdate, Spent, UpdateContext

LABELS_FAILED = "labels= raised this error, so it counts as no failed try of the update"
"""A note at an error of the function of labels."""
NOT_WITHOUT_LABELS = "in shadow mode and on several ranks decisions need labels"
"""The reason why a stream decides about no experience without labels."""
_MEASURED = (
    "metric_before",
    "metric_new",
    "metric_new_sd",
    "metric_past",
    "estimated_by",
    "loss_new",
    "loss_past",
    "unseen",
    "copies",
    "shift",
    "shift_by",
)
"""Fields of a state that labels change."""


def arrived(
    experience: Experience,
    state: StreamState,
    budget: StreamBudget,
    *,
    check: Callable[[Experience], None] | None,
    why_not: str = "",
) -> UpdateContext:
    """Return the context of an experience that has arrived, with or without labels.

    Before the first training there is no model to estimate anything with. So the labels are fetched
    at once then.

    Args:
        experience: The experience.
        state: The stream's state.
        budget: The budget that pays.
        check: Refuses data that cannot be saved; ``None`` if nothing is saved.
        why_not: The reason in one clause if decisions without labels are not possible.

    Raises:
        ConfigurationError: If the experience cannot be used.
    """
    labelled = not _is_late(experience, state)
    if not labelled and why_not:
        raise ConfigurationError(
            f"experience {experience.id!r} has no labels, and {why_not}; give it with its labels"
        )
    decides = state.model.trained and budget.sized
    if not labelled and not decides:
        if experience.labels is None:
            raise ConfigurationError(
                f"no sample of experience {experience.id!r} has a label, and no model was trained "
                "yet that a decision could be about; begin with an experience with labels"
            )
        experience, labelled = experience.labelled(), True
    if isinstance(experience, Experience):
        experience = judged(experience, state.probe, needed=labelled)
    data = _counted(state, state.data.gather(experience, labelled=labelled), labelled=labelled)
    if labelled and check is not None:
        check(experience)
    held_out = state.held_out
    return UpdateContext(
        experience=experience,
        position=budget.position,
        data=data,
        held_out=held_out.with_current(experience) if labelled else held_out.past,
        labelled=labelled,
    )


def take_up(asked: AskedUpdate, state: StreamState, recorder: WindowRecorder) -> AskedUpdate:
    """Fetch the labels of an experience after the decision about it, and measure the drop.

    The state of the decision gets the measured values in place of the estimated ones, so that the
    controller learns from them. The ledger keeps the state as it was decided on.

    Args:
        asked: The decision.
        state: The stream's state.
        recorder: Measures the second probe.

    Returns:
        The decision with the data and their labels; unchanged if the experience has no ``labels``.

    Raises:
        ConfigurationError: If the labels cannot be used. The reservation is settled then.
    """
    context, pending = asked.context, asked.pending
    if context.labelled or context.experience.labels is None:
        return asked
    try:
        experience = _fetched(context.experience)
        if _is_late(experience, state):
            raise ConfigurationError(
                f"labels of experience {experience.id!r} gave samples without any label; return "
                "(train, val) with labels, and omit labels= until there are some"
            )
        experience = judged(experience, state.probe, needed=True)
        data = _counted(state, state.data.gather(experience), labelled=True)
    except BaseException:
        if pending.reservation_id is not None:  # nothing was trained
            pending.account.settle(pending.reservation_id, 0.0)
        raise
    held_out = state.held_out.with_current(experience)
    context = dataclasses.replace(
        context, experience=experience, data=data, held_out=held_out, labelled=True
    )
    asked = dataclasses.replace(asked, context=context)
    return asked if asked.probe is None else _measured(asked, state, recorder)


def failed_for_labels(error: BaseException) -> bool:
    """Return whether the function of labels raised an error."""
    return LABELS_FAILED in getattr(error, "__notes__", ())


def _fetched(experience: Experience) -> Experience:
    try:
        return experience.labelled()
    except Exception as error:
        error.add_note(LABELS_FAILED)
        raise


def judged(experience: Experience, probe: Probe, *, needed: bool) -> Experience:
    """Return an experience whose held-out samples all have a label, without the others.

    A sample without one would count as wrong.

    Args:
        experience: The experience.
        probe: The probe, for which -1 may be one of two classes.
        needed: Whether some of its training samples have a label, so that held-out ones need one.

    Raises:
        ConfigurationError: If no held-out sample has the label that it needs.
    """
    val = probe.labelled_part(experience.val)
    if val is experience.val or _are_signs(experience, probe):
        return experience
    if size(val):
        return dataclasses.replace(experience, val=val)
    if needed:
        raise ConfigurationError(
            f"no sample of val of experience {experience.id!r} has a label, so no model can be "
            "judged on it; give held-out samples with labels"
        )
    return experience


def _are_signs(experience: Experience, probe: Probe) -> bool:
    """Return whether -1 is one of two classes of a stream with this experience."""
    labels = labels_in(experience.train) or ()
    return MISSING_LABEL in labels and probe.signs(labels)


def _is_late(experience: Any, state: StreamState) -> bool:
    """Return whether no sample of an experience has a label."""
    if not isinstance(experience, Experience):
        return False  # refused later
    return experience.labels is not None or state.probe.lacks_labels(experience.train)


def _counted(state: StreamState, data: UpdateData, *, labelled: bool) -> UpdateData:
    """Return data with the number of their labels, if some are missing."""
    known = size(state.probe.labelled_part(data.new)) if labelled else 0
    return data if known == data.n_new else dataclasses.replace(data, n_labels=known)


def _measured(asked: AskedUpdate, state: StreamState, recorder: WindowRecorder) -> AskedUpdate:
    """Probe again with the labels, if the budget affords it."""
    context, pending, probe, first = asked.context, asked.pending, state.probe, asked.probe
    if first is None or pending.state is None:
        return asked
    each = state.per_experience
    alone = 0 if each is None else size(context.experience.val)
    reserved_j = probe.upper_bound_j(first.samples + alone)
    try:
        purpose = f"labels of {context.experience.id}"
        reservation = pending.account.reserve(reserved_j, purpose)
    except BudgetExceeded:  # the update is compared on other held-out data
        return dataclasses.replace(asked, probe=None)
    with (
        paying(
            pending.account, recorder, reserved_j=reserved_j, reservation=reservation
        ) as payment,
        recorder.phase("probe"),
    ):
        found = probe.run(
            state.model.module,
            context.experience,
            context.data.new,
            first.samples,
            current_alone=each is not None,
        )
    probe.learn_probe(found.samples + alone, payment.actual_j)
    probe.learn_estimate(first, found)
    if each is not None and found.metric_current is not None:
        each.add_before(len(state.data.known), found.metric_current)
    look = probe.look(context.data.new)
    now = state.build_state(look, found, context.data, position=context.position, left=1)
    pending.state = with_measured(pending.state, now)
    pending.metric_before = finite(found.metric)
    spent = Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j)
    return dataclasses.replace(asked, probe=found, spent=asked.spent + spent)


def with_measured(decided: State, now: State) -> State:
    """Return the state of a decision with what labels show, in place of what was estimated.

    Example:
        >>> state = State(position=3, num_experiences=9, has_model=True, metric_before=0.8,
        ...     metric_new=0.7, estimated_by="confidence", left_j=5.0)
        >>> now = State(position=3, num_experiences=4, has_model=True, metric_before=0.8,
        ...     metric_new=0.5)
        >>> found = with_measured(state, now)
        >>> found.metric_new, found.estimated_by, found.left_j, found.num_experiences
        (0.5, '', 5.0, 9)
    """
    return dataclasses.replace(decided, **{name: getattr(now, name) for name in _MEASURED})
