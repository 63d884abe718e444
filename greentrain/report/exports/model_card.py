"""``co2_eq_emissions`` of a Hugging Face model card, printed or put into a card that exists.

See https://huggingface.co/docs/hub/model-cards-co2. The Hub's own library writes a card's whole
header anew, without its comments and quotes; here all but the one entry stays byte for byte.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.report.exports.facts import (
    Document,
    emissions_g,
    emissions_gaps,
    gaps,
    generator,
    hardware_words,
    intensity_words,
    measured_words,
    one_line,
    pues,
    stages,
    stated,
    zones,
)

KEY = "co2_eq_emissions"
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


def render(document: Document) -> str:
    """Write the entry as YAML, with a comment for each thing that is not known."""
    comments = "".join(f"# not known: {one_line(gap, 1000)}\n" for gap in missing(document))
    return _entry(document) + comments


def metadata(document: Document) -> dict[str, Any]:
    """Return the values of ``co2_eq_emissions`` that are known; emissions are in grams."""
    values = {
        "emissions": emissions_g(document),
        "source": _source(document),
        "training_type": _training_type(document),
        "geographical_location": _location(document),
        "hardware_used": hardware_words(document),
    }
    return {key: value for key, value in values.items() if value is not None}


def missing(document: Document) -> list[str]:
    """List what the entry has room for and the report does not know."""
    without = {
        "training_type": _training_type(document),
        "geographical_location": _location(document),
        "hardware_used": hardware_words(document),
    }
    return [
        *gaps(document),
        *emissions_gaps(document),
        *(f"{key}: neither recorded nor stated" for key, value in without.items() if not value),
    ]


def write_card(path: str | Path, document: Document) -> None:
    """Put ``co2_eq_emissions`` into a model card's header, in place of what stood there.

    Args:
        path: The card, such as ``README.md``; the rest of it stays byte for byte as it was.
        document: The document of :func:`greentrain.report.build`.

    Raises:
        ConfigurationError: If the report has no emissions, the card cannot be read or written or
            is not UTF-8, or its header is not one that an entry can be put into.
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
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(after)
        shutil.copymode(place, temporary)
        temporary.replace(place)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the model card {str(path)!r}: {error.strerror}"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def card_text(card: str, document: Document) -> str:
    """Return a model card's text with ``co2_eq_emissions`` in its header.

    A card without a header gets one.

    Raises:
        ConfigurationError: If the report has no emissions, or the header is no YAML mapping of
            lines, or the entry stands in it twice or is referred to from elsewhere.
    """
    import yaml

    if emissions_g(document) is None:
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
    except ConfigurationError:  # which is a ValueError, too
        raise
    except (yaml.YAMLError, ValueError):  # ValueError: a date that is none
        raise ConfigurationError(
            "has a header that is not YAML, or that the entry does not fit into"
        ) from None
    if not isinstance(after, dict) or {**before, KEY: after.get(KEY)} != after:
        raise ConfigurationError("has a header in which the entry would change other entries")
    return opening + changed + card[len(opening) + len(header) :]


def _changed(header: str, entry: str) -> str:
    """Put the entry where it stood in a header's text, or at its end."""
    import yaml

    root = yaml.compose(header, Loader=yaml.SafeLoader)
    if root is None:
        return header + entry
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise ConfigurationError("has a header that is not a list of keys, one a line")
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
    """Return where the last character of a node stands: a block's own end is that of the gap."""
    children = node.value if isinstance(node.value, list) and not node.flow_style else []
    if not children:
        return int(node.end_mark.index)
    last = children[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _entry(document: Document) -> str:
    import yaml

    text: str = yaml.safe_dump({KEY: metadata(document)}, sort_keys=False, width=math.inf)
    return text


def _source(document: Document) -> str:
    if document["totals"]["energy_j"] is None:
        return f"{generator(document)}: nothing was measured"
    pue = [one for one in pues(document) if one is not None]
    parts = [
        f"{generator(document)}: {measured_words(document)}",
        intensity_words(document),
        f"PUE {', '.join(f'{one:g}' for one in pue)}" if pue else None,
    ]
    return "; ".join(part for part in parts if part)


def _training_type(document: Document) -> str | None:
    if (said := stated(document, "training_type")) is not None:
        return said
    if not document["experiences"]:
        # A run of somebody's own Trainer may start from any weights.
        return None
    return " and ".join(dict.fromkeys(_STAGES[stage] for stage in stages(document))) or None


def _location(document: Document) -> str | None:
    return stated(document, "location") or ", ".join(zones(document)) or None
