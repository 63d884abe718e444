"""The ``greentrain schedule`` command."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greentrain.cli import console
from greentrain.errors import ConfigurationError

if TYPE_CHECKING:
    from greentrain.carbon import IntensityProvider
    from greentrain.carbon.schedule import Proposal, Review

_FILE = "plans.jsonl"
_FOLDER = Path("greentrain_plans")
_PAUSE_COST = "10 min"
_SAME_JOB = ("energy_j", "duration_s", "deadline", "zone", "signal")
"""Keys of a plan by which a later one replaces it."""


def schedule(
    energy: Annotated[
        str | None, typer.Option(help="Energy of the job, such as '5 kWh'.", metavar="ENERGY")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="Time that it needs, such as '8 h'.", metavar="TIME")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="Last possible end with its zone, such as 2026-12-01T08:00+01:00.", metavar="TIME"
        ),
    ] = None,
    zone: console.ZoneOption = None,
    intensity: Annotated[
        str | None,
        typer.Option(
            help="Provider of the intensity, such as 'uk' or 'entsoe:DE_LU', or a CSV file.",
            metavar="NAME",
            show_default="by the zone and the keys in the environment",
        ),
    ] = None,
    slices: Annotated[bool, typer.Option("--slices", help="Allow pauses.")] = False,
    pause_cost: Annotated[
        str | None,
        typer.Option(
            help="Time at full power that each pause costs; with --slices.",
            metavar="TIME",
            show_default=_PAUSE_COST,
        ),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            help="Plan as of a past time, with its zone.", metavar="TIME", show_default="now"
        ),
    ] = None,
    plans: Annotated[
        Path, typer.Option(help="Folder of the plans and of online answers.", metavar="FOLDER")
    ] = _FOLDER,
    review: Annotated[
        bool,
        typer.Option("--review", help="Show what past plans would have saved of the possible."),
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Say when to run a job, so that it causes the fewest grams before its deadline."""
    provider = _provider(zone, intensity, plans)
    if review:
        _review(provider, plans / _FILE, as_json=as_json)
        return
    from greentrain.carbon.durations import parse_duration
    from greentrain.carbon.schedule import Work, propose
    from greentrain.units import parse_energy, utc_now

    given = {"--energy": energy, "--duration": duration, "--deadline": deadline}
    if missing := [name for name, value in given.items() if value is None]:
        raise ConfigurationError(
            f"give {', '.join(missing)} too, as in: greentrain schedule --energy 5kWh "
            "--duration 8h --deadline 2026-12-01T08:00+01:00 --zone DE"
        )
    energy_j = parse_energy(str(energy))
    if not 0 < energy_j < float("inf"):
        raise ConfigurationError(f"--energy is {energy!r}; it must be above 0")
    if pause_cost is not None and not slices:
        raise ConfigurationError(
            f"--pause-cost is {pause_cost!r} and there are no pauses; add --slices, or omit it"
        )
    work = Work(
        energy_j=energy_j,
        duration=parse_duration(str(duration)),
        deadline=_moment(str(deadline), "--deadline"),
        pause_cost=parse_duration(pause_cost or _PAUSE_COST) if slices else timedelta(0),
        sliced=slices,
    )
    now = utc_now() if as_of is None else _moment(as_of, "--as-of")
    found = propose(provider, work, now)
    _store(plans / _FILE, found.as_dict())
    if as_json:
        console.print_json(found.as_dict())
    else:
        _show(found)
        console.print_next(
            "schedule",
            "--review",
            *(["--zone", zone] if zone else []),
            *(["--intensity", intensity] if intensity else []),
            *(["--plans", plans] if plans != _FOLDER else []),
        )


def _provider(zone: str | None, intensity: str | None, plans: Path) -> IntensityProvider:
    """Return the provider; an online one stores its answers in the folder of the plans."""
    from greentrain.carbon import (
        CachedIntensity,
        CsvIntensity,
        StaticIntensity,
        live_intensity,
        named_intensity,
    )

    if intensity is not None:
        found = named_intensity(intensity, zone)
    elif zone is not None:
        found = live_intensity(zone)
    else:
        raise ConfigurationError("give --zone, such as DE, or --intensity with a provider or file")
    if isinstance(found, StaticIntensity):
        raise ConfigurationError(
            f"{found.provenance.source} has one value for the whole year, so no hour is cleaner; "
            "give a provider with forecasts"
        )
    return found if isinstance(found, CsvIntensity) else CachedIntensity(found, plans)


def _moment(text: str, name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"{name} is {text!r}; write a time such as 2026-12-01T08:00+01:00"
        ) from None
    if moment.tzinfo is None:
        raise ConfigurationError(
            f"{name} is the naive time {text!r}; add its zone, as in 2026-12-01T08:00+01:00"
        )
    return moment


def _store(path: Path, proposal: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(proposal) + "\n")
    except OSError as error:
        raise ConfigurationError(f"cannot store the plan in {path}: {error.strerror}") from None


def _show(found: Proposal) -> None:
    from greentrain.units import format_carbon, format_energy, format_number

    work = found.work
    zone = work.deadline.tzinfo
    title = f"{format_energy(work.energy_j)} in {work.duration} until {work.deadline.isoformat()}"
    table = console.new_table(title, "when", "start", "end", "g/kWh", "grams", right=["grams"])
    for name, one in (("now", found.now), ("planned", found.plan)):
        mean = "unknown" if one.g_per_kwh is None else format_number(one.g_per_kwh)
        grams = format_carbon(work.grams(one.g_per_kwh))
        for number, times in enumerate(one.segments):
            start, end = (f"{moment.astimezone(zone):%Y-%m-%d %H:%M}" for moment in times)
            about = (name, start, end, mean, grams) if not number else ("", start, end, "", "")
            console.add_row(table, *about)
    console.open_console().print(table)
    console.print_line(_sentence(found))
    issued = "" if found.issued_utc is None else f", issued {found.issued_utc}"
    console.print_line(f"Forecast: {found.source}, {found.zone}, {found.signal}{issued}.")
    if found.forecast_until < work.deadline:
        until = f"{found.forecast_until.astimezone(zone):%Y-%m-%d %H:%M}"
        console.print_line(f"After {until}: the mean of the same hours of the last 7 days.")
    if found.signal == "marginal":
        console.print_line("The grams are marginal: they steer the plan, and belong in no report.")


def _sentence(found: Proposal) -> str:
    from greentrain.units import format_carbon

    if found.plan.segments == found.now.segments:
        return "Start now: no later time is expected to be cleaner."
    if found.saving_g is None:
        return "The saving is unknown."
    now_g = found.work.grams(found.now.g_per_kwh)
    share = f" ({100 * found.saving_g / now_g:.1f} %)" if now_g else ""
    text = f"Expected saving: {format_carbon(found.saving_g)}{share}"
    if found.saving_low_g is None or found.saving_high_g is None:
        return f"{text}; its interval is not known."
    low, high = format_carbon(found.saving_low_g), format_carbon(found.saving_high_g)
    return f"{text}; from {low} to {high} in 90 % of cases."


def _review(provider: IntensityProvider, path: Path, *, as_json: bool) -> None:
    from greentrain.carbon.schedule import review
    from greentrain.units import utc_now

    if not path.exists():
        raise ConfigurationError(f"there are no plans in {path}; make one without --review first")
    found: list[Review] = []
    waiting = others = replaced = 0
    about = provider.provenance
    last: dict[tuple[Any, ...], tuple[int, dict[str, Any]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            stored = json.loads(line)
            key = tuple(stored[name] for name in _SAME_JOB)
            replaced += key in last
            last[key] = number, stored
        except (ValueError, KeyError, TypeError, RecursionError):  # a line cut off by a kill
            _warn_of_line(number, path)
    for number, stored in last.values():
        try:
            if (stored["zone"], stored["signal"]) != (about.zone, about.signal):
                others += 1
                continue
            if datetime.fromisoformat(stored["deadline"]) > utc_now():
                waiting += 1
                continue
            one = review(provider, stored)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            if isinstance(error, ConfigurationError):
                raise
            _warn_of_line(number, path)
            continue
        if one is None:
            waiting += 1
        else:
            found.append(one)
    if as_json:
        console.print_json(_plain(found, waiting, replaced))
        return
    _show_review(found, waiting, replaced)
    if others:
        console.print_line(f"Plans of other zones or signals: {others}.")


def _warn_of_line(number: int, path: Path) -> None:
    console.print_line(f"Warning: line {number} of {path} is no plan and left out.", err=True)


def _plain(found: list[Review], waiting: int, replaced: int) -> dict[str, Any]:
    """Return a review for programs; a plan's grams are those of the plan, if it was carried out."""
    saved, possible = (
        sum(getattr(one, name) for one in found) for name in ("saving_g", "possible_g")
    )
    return {
        "plans": [
            {
                "as_of": one.as_of.isoformat(),
                "now_g": one.now_g,
                "planned_g": one.planned_g,
                "best_g": one.best_g,
                "saving_g": one.saving_g,
                "possible_g": one.possible_g,
                "expected_g": one.expected_g,
            }
            for one in found
        ],
        "saving_g": saved,
        "possible_g": possible,
        "share": saved / possible if possible else None,
        "waiting": waiting,
        "replaced": replaced,
    }


def _show_review(found: list[Review], waiting: int, replaced: int) -> None:
    from greentrain.units import format_carbon

    columns = ["plan of", "now", "planned", "best", "expected", "would save", "possible"]
    table = console.new_table("Past plans", *columns, right=columns[1:])
    for one in found:
        grams = (one.now_g, one.planned_g, one.best_g, one.expected_g, one.saving_g, one.possible_g)
        console.add_row(
            table, f"{one.as_of:%Y-%m-%d %H:%M %Z}", *(format_carbon(each) for each in grams)
        )
    console.open_console().print(table)
    plain = _plain(found, waiting, replaced)
    if plain["share"] is not None:
        saved, possible = (format_carbon(plain[name]) for name in ("saving_g", "possible_g"))
        console.print_line(
            f"The plans would have saved {saved} of the possible {possible}, which is "
            f"{100 * plain['share']:.0f} %, if carried out."
        )
    if replaced:
        console.print_line(f"Left out: {replaced} of the plans, which a later one replaced.")
    if waiting:
        console.print_line(f"Not yet known: {waiting} of the plans.")
