"""Read several meters as one."""

from __future__ import annotations

from greentrain.energy.boundary import NODE
from greentrain.energy.meter import Meter, Reading, Source
from greentrain.errors import ConfigurationError, MeterError
from greentrain.texts import get_logger

_log = get_logger(__name__)


class CompositeMeter:
    """Read several meters as one; a member that fails becomes unknown and never stops training.

    The members are started together; a member that runs already counts from its own start. The
    seconds are the maximum over the members, and never fall.

    Args:
        *meters: The members; no two may have a source of the same name.

    Raises:
        ConfigurationError: If there is no member; on ``start``, if two sources share a name.

    Example:
        >>> from greentrain.energy.constant import ConstantMeter
        >>> meter = CompositeMeter(ConstantMeter({"cpu": 20.0}), ConstantMeter({"ram": 5.0}))
        >>> [source.name for source in meter.sources]
        ['cpu', 'ram']
    """

    def __init__(self, *meters: Meter) -> None:
        if not meters:
            raise ConfigurationError("CompositeMeter got no meter; give it one or more")
        self._meters = meters
        self._failed: set[int] = set()
        self._names: list[tuple[str, ...]] = [()] * len(meters)
        self._duration_s = 0.0

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of all members, in their order."""
        return tuple(source for meter in self._meters for source in meter.sources)

    def start(self) -> None:
        """Start every member; one that cannot start is left out with a warning.

        Raises:
            MeterError: If none can start.
            ConfigurationError: If two sources share a name or one includes another, or a member is
                configured wrongly.
        """
        self._failed.clear()
        self._duration_s = 0.0
        for index, meter in enumerate(self._meters):
            try:
                meter.start()
            except ConfigurationError:
                self.close()
                raise
            except Exception as error:  # a failing meter never stops training
                self._fail(index, error)
        if len(self._failed) == len(self._meters):
            raise MeterError("none of the meters could be started; see the warnings above")
        # Take the names from a reading, which does not wait for a member that is being set up.
        names = [name for index in range(len(self._meters)) for name in self._read(index).energy_j]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            self.close()
            raise ConfigurationError(
                f"two meters have a source named {', '.join(twice)}; each name may occur once"
            )
        if NODE in names and len(names) > 1:
            self.close()
            raise ConfigurationError(
                f"{', '.join(sorted({*names} - {NODE}))} would be counted twice, because {NODE!r} "
                "includes them; give the wall meter to EnergyMonitor(wall=...) instead"
            )

    def read(self) -> Reading:
        """Read every member; a source that cannot be read is ``None``.

        Raises:
            MeterError: If every member has failed.
        """
        energy_j: dict[str, float | None] = {}
        late: frozenset[str] = frozenset()
        for index in range(len(self._meters)):
            reading = self._read(index)
            energy_j |= reading.energy_j
            late |= reading.late
        if len(self._failed) == len(self._meters):
            raise MeterError("none of the meters can be read any more; see the warnings above")
        return Reading(duration_s=self._duration_s, energy_j=energy_j, late=late)

    def close(self) -> None:
        """Close every member."""
        for meter in self._meters:
            try:
                meter.close()
            except Exception as error:  # the others have to be closed too
                _log.warning("%s could not be closed: %s", type(meter).__name__, error)

    def _read(self, index: int) -> Reading:
        """Read a member; all of it is unknown once it has failed."""
        if index not in self._failed:
            try:
                reading = self._meters[index].read()
            except Exception as error:  # a failing meter never stops training
                self._fail(index, error)
            else:
                self._names[index] = tuple(reading.energy_j)
                self._duration_s = max(self._duration_s, reading.duration_s)
                return reading
        return Reading(duration_s=0.0, energy_j=dict.fromkeys(self._names[index]))

    def _fail(self, index: int, error: Exception) -> None:
        self._failed.add(index)
        meter = self._meters[index]
        _log.warning("%s failed and is unknown from here on: %s", type(meter).__name__, error)
        if self._names[index]:
            return
        try:  # no reading had its names
            self._names[index] = tuple(source.name for source in meter.sources)
        except Exception as failure:
            _log.debug("the sources of %s are unknown: %s", type(meter).__name__, failure)
