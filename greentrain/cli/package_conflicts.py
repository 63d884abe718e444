"""Find installed packages that must not be next to greentrain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions

from greentrain._about import DISTRIBUTION, MALICIOUS_ADVISORY, MALICIOUS_LIGHTNING

_IMPORT_NAME = "greentrain"
_LIGHTNING = ("lightning", "pytorch-lightning")


def package_conflicts(
    installed: Iterable[Distribution] | None = None,
) -> Iterator[tuple[str, str, str]]:
    """Give a short name, the reason and the remedy of each conflict.

    Args:
        installed: The installed distributions; by default those of this environment.
    """
    found = {
        _normalized(each.metadata["Name"]): each
        for each in (distributions() if installed is None else installed)
    }
    for name, distribution in sorted(found.items()):
        if name != DISTRIBUTION and _installs_our_name(name, distribution):
            yield (
                "only one package named greentrain",
                f"the distribution {name!r} {distribution.version} is another project, and "
                "installs the same import name and command as this one",
                f"pip uninstall {name} {DISTRIBUTION}, then install {DISTRIBUTION} again: the two "
                "may have overwritten each other's files",
            )
        if name in _LIGHTNING and distribution.version in MALICIOUS_LIGHTNING:
            yield (
                "a safe release of Lightning",
                f"{name} {distribution.version} is a malicious release ({MALICIOUS_ADVISORY}), "
                "which steals credentials",
                f"pip uninstall {name}, install a later release, and replace the passwords and "
                "tokens of this machine",
            )


def _installs_our_name(name: str, distribution: Distribution) -> bool:
    if name == _IMPORT_NAME:
        return True
    top_level = (distribution.read_text("top_level.txt") or "").split()
    return _IMPORT_NAME in top_level


def _normalized(name: str | None) -> str:
    return re.sub(r"[-_.]+", "-", name or "").lower()
