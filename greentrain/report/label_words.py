"""Labels of an experience, and the gain that they brought."""

from __future__ import annotations

from greentrain.report.document import ExperienceEntry
from greentrain.report.row_helpers import number
from greentrain.units import format_number


def label_words(one: ExperienceEntry) -> str | None:
    """Describe the labels of an experience in a line; ``None`` if no label was missing.

    The gain is that of the update for 1,000 of the new labels that it trained on.

    Args:
        one: The experience.
    """
    known, samples = (number(one["state"].get(name)) for name in ("n_labels", "n_new"))
    if known is None or samples is None or not 0 <= known <= samples:
        return None
    words = f"{known:.0f} of {samples:.0f} new samples had a label at the decision"
    if not one["steps"]:
        return words
    used = known
    if not known:  # nothing trains without labels, so they came after the decision
        used, words = samples, f"{words}, the others came after it"
    gain = number(one["gain"])
    if gain is None or not used:
        return words
    return f"{words}; gain of {format_number(1000 * gain / used, 2)} for 1,000 labels"
