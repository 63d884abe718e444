"""The ``greentrain estimate`` command."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greentrain.cli import console
from greentrain.units import energy_unit, format_carbon, format_energy, plural

if TYPE_CHECKING:
    from greentrain.configuration import Configuration
    from greentrain.energy import Forecast
    from greentrain.measuring import Measurement
    from greentrain.training.stream_estimate import StreamEstimate

_SHARES = (0.25, 0.10, 0.05)


def estimate(
    context: typer.Context,
    config: console.ConfigArgument,
    seconds: Annotated[float, typer.Option(help="Seconds of training to measure.")] = 3.0,
    as_json: console.JsonOption = False,
) -> None:
    """Estimate the energy of a stream from a few steps, before its budget is chosen.

    The file needs no budget. Options replace keys of the file.
    """
    from greentrain.configuration import configure, read

    content = read(config)
    content.setdefault("budget", "100 % of full")
    console.use_current_folder()
    terminal = console.open_console()
    with terminal.status("loading torch and Lightning") as status:
        configuration = configure(content, context.args)
        from greentrain.energy import WindowRecorder, close_meter, start_meter
        from greentrain.measuring import measure
        from greentrain.training import CarbonConfig
        from greentrain.training.stream_estimate import StreamEstimator

        given = configuration.make_arguments()
        names = ("monitor", "num_experiences", "buffer", "trainer", "loader", "modes", "seed")
        estimator = StreamEstimator(
            configuration.make_model,
            _experiences(configuration),
            seconds=seconds,
            **{name: given[name] for name in names if name in given},
        )
        carbon = given.get("carbon", CarbonConfig())
        meter = start_meter(given.get("meter"))
        status.update("measuring a few steps")
        try:
            with measure(
                f"estimate of {configuration.get('name', 'stream')}",
                ledger=configuration.get("ledger"),
                meter=meter,
                team=given.get("team"),
                project=given.get("project"),
                zone=carbon.zone,
                intensity=carbon.intensity,
                pue=carbon.pue,
            ) as used:
                found = estimator.measure(WindowRecorder(meter))
        finally:
            close_meter(meter)
    factor = _grams_per_joule(used)
    if as_json:
        console.print_json(_as_plain(found, used, factor))
        return
    _show(found, used, factor)
    console.print_line(f"It is recorded in {configuration.get('ledger')}.")
    budget = format_energy(found.share(_SHARES[0]).mean_j).replace(",", "")
    console.print_next("run", config, "--budget", budget)


def _experiences(configuration: Configuration) -> list[Any]:
    """Return the experiences to estimate; a stream without a number may never end."""
    number = configuration.get("num_experiences") or configuration.get("limit") or 1
    return list(islice(configuration.make_stream(), number))


def _grams_per_joule(used: Measurement) -> float | None:
    """Return the grams of a joule while the estimate was measured, PUE included."""
    grams, joules = used.emissions_g, used.total_j
    return None if grams is None or not joules else grams / joules


def _rows(found: StreamEstimate) -> list[tuple[str, Forecast]]:
    always = plural(len(found.full_steps), "experience")
    return [
        ("one step", found.step),
        (f"one full retraining, {plural(found.full_steps[0], 'step')}", found.one),
        (f"always retraining, {always}", found.always),
        *((f"{100 * share:g} % of full", found.share(share)) for share in _SHARES),
    ]


def _show(found: StreamEstimate, used: Measurement, factor: float | None) -> None:
    title = f"Estimate from {plural(found.steps, 'step')} in {found.seconds:.1f} s"
    columns = ["what", "energy", "from", "to"] + (["emissions"] if factor is not None else [])
    table = console.new_table(title, *columns, right=columns[1:])
    for what, forecast in _rows(found):
        unit = energy_unit([forecast.high_j])
        joules = (forecast.mean_j, forecast.low_j, forecast.high_j)
        cells = [format_energy(each, unit) for each in joules]
        if factor is not None:
            cells.append(format_carbon(factor * forecast.mean_j))
        console.add_row(table, what, *cells)
    console.open_console().print(table)
    console.print_line("The intervals are of 95 %, with 19 % for a drift of the load.")
    if not found.complete:
        console.print_line("A part of the machine was not measured; these figures are of the rest.")
    later = len(found.full_steps) - found.arrived
    if later > 0:
        console.print_line(
            f"Not yet arrived: {plural(later, 'experience')}, expected to be as large as the mean "
            "of the others."
        )
    if len(found.full_steps) == 1:
        console.print_line("Set num_experiences to estimate a whole stream.")
    console.print_line(f"The estimate itself used {format_energy(used.total_j)}.")


def _as_plain(found: StreamEstimate, used: Measurement, factor: float | None) -> dict[str, Any]:
    def plain(forecast: Forecast) -> dict[str, float | None]:
        grams = None if factor is None else factor * forecast.mean_j
        return {
            "mean_j": forecast.mean_j,
            "low_j": forecast.low_j,
            "high_j": forecast.high_j,
            "emissions_g": grams,
        }

    return {
        "step": plain(found.step),
        "full_retraining": plain(found.one),
        "always_retraining": plain(found.always),
        "shares": {f"{share:g}": plain(found.share(share)) for share in _SHARES},
        "num_experiences": len(found.full_steps),
        "arrived": found.arrived,
        "full_steps": list(found.full_steps),
        "measured_steps": found.steps,
        "measured_s": found.seconds,
        "complete": found.complete,
        "used_j": used.total_j,
    }
