"""``co2_eq_emissions`` of a Hugging Face model card, as text or inside an existing card.

See https://huggingface.co/docs/hub/model-cards-co2. The Hub's own library rewrites the whole header
of a card and loses its comments and quotes. Here all but the one entry stays byte for byte.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.report.document import Report
from greentrain.report.exports import facts, markdown, method_text
from greentrain.report.exports.claim import claim

KEY = "co2_eq_emissions"
_KEYS = ("emissions", "source", "training_type", "geographical_location", "hardware_used")
_STAGES = {
    "training": "pre-training",
    "retraining": "pre-training",
    "finetuning": "fine-tuning",
}
_HEADER = re.compile(
    r"\A(\ufeff?\s*---[ \t]*(?:\r\n|\r|\n))((?:.*?(?:\r\n|\r|\n))??)(---[ \t]*(?:\r\n|\r|\n|\Z))",
    re.DOTALL,
)
_LINE_END = re.compile(r"\r\n|\r|\n")


def render(document: Report) -> str:
    """Write the entry as YAML, with a comment for each unknown value."""
    comments = "".join(f"# not known: {facts.one_line(gap, 1000)}\n" for gap in missing(document))
    return _entry(document) + comments


def new_card(document: Report) -> str:
    """Write a whole card: a header with the entry, and a summary in Markdown.

    Fields that are not known are listed below the title, so a card needs no emissions. A page that
    shows the header as Markdown, as MLflow's does, would show a comment as a headline, and the
    whole header too without the blank line at its end.
    """
    names = dict.fromkeys(run["name"] for run in document["runs"])
    title = ", ".join(map(markdown.escaped, names)) or "A model"
    weights, known = document["summary"]["weights_sha256"], metadata(document)
    unknown = ", ".join(f"`{key}`" for key in _KEYS if key not in known)
    parts = [
        f"---\n{_entry(document)}\n---",
        f"# {title}",
        f"SHA-256 of the weights: `{weights}`" if weights else "",
        f"Not known, so not in the header: {unknown}" if unknown else "",
        markdown.summary(document).replace("# Energy", "## Energy", 1),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def metadata(document: Report) -> dict[str, Any]:
    """Return the known values of ``co2_eq_emissions``; emissions are in grams."""
    values = (
        facts.emissions_g(document),
        _source(document),
        _training_type(document),
        _location(document),
        facts.hardware_words(document),
    )
    given = zip(_KEYS, values, strict=True)
    return {key: value for key, value in given if value is not None}


def missing(document: Report) -> list[str]:
    """List the fields of the entry that the report lacks."""
    without = {
        "training_type": _training_type(document),
        "geographical_location": _location(document),
        "hardware_used": facts.hardware_words(document),
    }
    return [
        *facts.gaps(document),
        *facts.emissions_gaps(document),
        *(f"{key}: neither recorded nor stated" for key, value in without.items() if not value),
    ]


def entry_in(card: str) -> Any:
    """Return the entry of a card, with all values as texts; ``None`` if it has none.

    Raises:
        ConfigurationError: If the header is not YAML, or has the entry twice.
    """
    import yaml

    header = found[2] if (found := _HEADER.match(card)) else ""
    try:
        root = yaml.compose(header, Loader=yaml.SafeLoader)
        if (
            isinstance(root, yaml.MappingNode)
            and [key.value for key, _ in root.value].count(KEY) > 1
        ):
            raise ConfigurationError(f"the model card has {KEY} twice in its header")
        held = yaml.load(header, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        raise ConfigurationError("the model card has a header that is not YAML") from None
    return held.get(KEY) if isinstance(held, dict) else None


def wanted_entry(document: Report) -> Any:
    """Return the entry that a report gives, as :func:`entry_in` returns it."""
    return entry_in(f"---\n{_entry(document)}---\n")


def write_card(path: str | Path, document: Report) -> None:
    """Put ``co2_eq_emissions`` into a model card's header, in place of an existing entry.

    Args:
        path: The card, such as ``README.md``; the rest of it stays byte for byte as it was.
        document: The document of :func:`greentrain.report.build`.

    Raises:
        ConfigurationError: If the report has no emissions, or the card cannot be read or written,
            is not UTF-8, or has a header that does not accept the entry.
    """
    place = Path(path)
    try:
        place = place.resolve()
        before = place.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"the model card {str(path)!r} is not UTF-8") from None
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the model card {str(path)!r}: {error.strerror}"
        ) from None
    try:
        after = card_text(before, document).encode("utf-8")
    except ConfigurationError as error:
        raise ConfigurationError(f"the model card {str(path)!r} {error}") from None
    try:
        facts.replace_file(place, after)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the model card {str(path)!r}: {error.strerror}"
        ) from None


def card_text(card: str, document: Report) -> str:
    """Return a model card's text with ``co2_eq_emissions`` in its header.

    A card without a header gets one.

    Raises:
        ConfigurationError: If the report has no emissions. Also if the header is not a YAML mapping
            in lines, or has the entry twice, or refers to the entry from elsewhere.
    """
    import yaml

    if facts.emissions_g(document) is None:
        raise ConfigurationError(
            f"stays as it is, because the report has no emissions: {document['carbon']['sentence']}"
        )
    newline = found[0] if (found := _LINE_END.search(card)) else "\n"
    entry = _entry(document).replace("\n", newline)
    match = _HEADER.match(card)
    if match is None:
        mark = "\ufeff" if card.startswith("\ufeff") else ""
        return f"{mark}---{newline}{entry}---{newline}{card.removeprefix(mark)}"
    opening, header, _ = match.groups()
    try:
        changed = _changed(header, entry)
        before, after = yaml.safe_load(header) or {}, yaml.safe_load(changed)
    except ConfigurationError:  # which is a ValueError as well
        raise
    except (yaml.YAMLError, ValueError):  # ValueError: an invalid date
        raise ConfigurationError(
            "has a header that is not YAML, or becomes invalid with the entry"
        ) from None
    if not isinstance(after, dict) or {**before, KEY: after.get(KEY)} != after:
        raise ConfigurationError("has a header in which the entry would change other entries")
    return opening + changed + card[len(opening) + len(header) :]


def _changed(header: str, entry: str) -> str:
    """Replace the entry in a header's text, or add it at the end."""
    import yaml

    root = yaml.compose(header, Loader=yaml.SafeLoader)
    if root is None:
        return header + entry
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise ConfigurationError("has a header that is not a list of keys, one per line")
    nodes = [(key, value) for key, value in root.value if key.value == KEY]
    if len(nodes) > 1:
        raise ConfigurationError(f"has {KEY} twice in its header")
    if not nodes:
        return header + entry
    key, value = nodes[0]
    start, end = key.start_mark.index, _end(value)
    if end > start and header[end - 1] not in "\r\n":
        line_end = _LINE_END.search(header, end)
        end = line_end.end() if line_end else len(header)
    return header[:start] + entry + header[end:]


def _end(node: Any) -> int:
    """Return the end of a node's last character; a block's own end includes the lines after it."""
    children = node.value if isinstance(node.value, list) and not node.flow_style else []
    if not children:
        return int(node.end_mark.index)
    last = children[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _entry(document: Report) -> str:
    import yaml

    text: str = yaml.safe_dump({KEY: metadata(document)}, sort_keys=False, width=math.inf)
    return text


def _source(document: Report) -> str:
    if document["totals"]["energy_j"] is None:
        return f"{facts.generator(document)}: nothing was measured; report {claim(document)}"
    pue, weights = facts.known_pues(document), document["summary"]["weights_sha256"]
    parts = [
        f"{facts.generator(document)}: {method_text.measured_words(document)}",
        facts.intensity_words(document),
        facts.restated_words(document),
        f"PUE {pue}" if pue else None,
        f"weights with SHA-256 {weights}" if weights else None,
        f"report {claim(document)}",
    ]
    return "; ".join(part for part in parts if part)


def _training_type(document: Report) -> str | None:
    if (said := facts.stated(document, "training_type")) is not None:
        return said
    if not document["experiences"]:
        # A run of the user's own Trainer may start from any weights.
        return None
    return " and ".join(dict.fromkeys(_STAGES[stage] for stage in facts.stages(document))) or None


def _location(document: Report) -> str | None:
    return facts.stated(document, "location") or ", ".join(facts.zones(document)) or None
