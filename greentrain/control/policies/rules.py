"""What the baselines share: carrying out a verdict within the budget, and reading the past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greentrain.budget import Balance
from greentrain.control.action import Option, Past, State, UpdateMode
from greentrain.control.decision import Decision, Reason
from greentrain.control.options import first, known, offer
from greentrain.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rule calls for: an update or none, and the sentence that says why."""

    update: bool
    reason: Reason
    sentence: str


def not_due(sentence: str) -> Verdict:
    """Return the verdict of a rule that calls for no update."""
    return Verdict(update=False, reason=Reason.NOT_DUE, sentence=sentence)


def carry_out(
    state: State,
    options: Sequence[Option],
    balance: Balance,
    mode: UpdateMode,
    rule: Callable[[Option], Verdict],
) -> Decision:
    """Carry out a rule that says when to update, and not how.

    Args:
        state: What is known.
        options: What can be done.
        balance: What is left.
        mode: The update mode that stands for the rule's "retrain".
        rule: Gives the verdict, told of the largest affordable effort of that mode.

    Returns:
        That effort where the rule calls for an update, else ``SKIP``; the first model is trained
        whatever the rule says.
    """
    offered = offer(options, balance)
    if not state.has_model:
        return first(offered)
    option = offered.largest(mode)
    if option is None:
        return offered.without(mode)
    verdict = rule(option)
    if verdict.update:
        return offered.update(option, verdict.reason, verdict.sentence)
    return offered.take(
        offered.skip,
        verdict.reason,
        verdict.sentence,
        lambda lost: (
            "the rule calls for no update"
            if lost.action.mode is mode
            else f"the rule knows only {mode} and SKIP"
        ),
    )


def check_mode(mode: UpdateMode) -> None:
    """Refuse ``SKIP`` as what a rule is to do when it calls for an update."""
    if mode is UpdateMode.SKIP:
        raise ConfigurationError("mode is SKIP; it is REPLAY, WARM_START or FULL_RETRAIN")


def last_update(history: Sequence[Past]) -> int | None:
    """Return the index of the newest update in a history, dropped ones included."""
    found = [index for index, past in enumerate(history) if past.mode is not UpdateMode.SKIP]
    return found[-1] if found else None


def skipped(state: State) -> tuple[Past, ...]:
    """Return the experiences since the newest update, this one not included."""
    index = last_update(state.history)
    return state.history if index is None else state.history[index + 1 :]


def age(state: State) -> int:
    """Return the experiences since the newest update, this one included.

    The history tells; where it holds no update, ``since_update`` does, and at the very least those
    that the history holds were skipped.
    """
    found = len(skipped(state)) + 1
    return found if last_update(state.history) is not None else max(found, state.since_update)


def fresh_metric(state: State) -> float | None:
    """Return what the model reached when it was new; ``None`` if that is unknown."""
    index = last_update(state.history)
    told = known(state.metric_last)
    if told is not None or index is None:
        return told
    return known(state.history[index].metric_after)


def staleness(state: State) -> list[float | None]:
    """Return how stale the model was at each experience since the newest update, this one last.

    Staleness is what the model has lost on new data since it was new, in units of the metric: 0
    where it does better than then, ``None`` where it is unknown. The metric on held-out data stands
    in for that on new data where the latter is unknown.

    Example:
        >>> state = State(
        ...     position=1, num_experiences=4, has_model=True, metric_before=0.5, metric_last=0.75
        ... )
        >>> staleness(state)
        [0.25]
    """
    fresh = fresh_metric(state)

    def lost(metric_new: float | None, metric_before: float | None) -> float | None:
        now = known(metric_new)
        now = known(metric_before) if now is None else now
        return None if now is None or fresh is None else max(0.0, fresh - now)

    since = [lost(past.metric_new, past.metric_before) for past in skipped(state)]
    return [*since, lost(state.metric_new, state.metric_before)]


def unknown_note(values: Sequence[float | None]) -> str:
    """Say how much was unknown and counted as 0; nothing where all was known."""
    missing = sum(value is None for value in values)
    return f" (unknown at {missing} of {len(values)}, counted as 0)" if missing else ""
