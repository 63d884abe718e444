"""The ``greentrain run`` and ``greentrain init`` commands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greentrain.cli import console
from greentrain.cli.experience_lines import ExperienceLines, most_instructive
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.units import format_carbon, format_energy

if TYPE_CHECKING:
    from greentrain.budget import Budget
    from greentrain.configuration import Configuration
    from greentrain.streams import Experience
    from greentrain.tracking import MlflowTracker
    from greentrain.training import UpdateResult


def init(
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("stream.yaml"),
) -> None:
    """Write a commented configuration for 'greentrain run' that works as it is."""
    from greentrain.configuration import TEMPLATE

    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigurationError(
            f"{str(out)!r} exists already and was not changed; name another file with --out"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {str(out)!r}: {error.strerror}") from None
    console.print_line(f"wrote {out}, which works as it is")
    console.print_next("run", out)


def run(context: typer.Context, config: console.ConfigArgument) -> None:
    """Update your model with the new experiences of your stream, as a YAML file configures.

    Options replace keys of the file: greentrain run stream.yaml --trainer.max_epochs 3
    """
    from greentrain.configuration import configure, read

    content = read(config)
    console.use_current_folder()
    follows = _follows()
    terminal = console.open_console(quiet=follows)
    with terminal.status("loading torch and Lightning"):
        configuration = configure(content, context.args)
        stream = configuration.make_stream()
    tracker = None if follows else _tracker(configuration.get("tracking_uri"))

    lines: list[ExperienceLines] = []
    with configuration.make_trainer(tracker) as trainer, terminal.status("") as status:

        def announced(stream: Iterable[Experience]) -> Iterator[Experience]:
            for experience in stream:
                status.update(f"experience {experience.id}")
                yield experience

        def show(experience: Experience, result: UpdateResult) -> None:
            if follows:
                return
            if not lines:
                lines.append(ExperienceLines(configuration.get("monitor"), trainer.budget))
                console.print_line(lines[0].header, terminal)
            console.print_line(lines[0].line(result), terminal)

        calibrated = trainer.budget.share_of_full is not None
        new = islice(_new_experiences(stream, trainer.known), configuration.get("limit"))
        results = trainer.run(announced(new), on_result=show)
        n_known, run_id = len(trainer.known), trainer.run_id
    if follows:
        return
    if not results:
        console.print_line(f"Nothing new has arrived: the stream has had {n_known} experiences.")
        if n_known:
            console.print_next("explain", "--ledger", configuration.get("ledger"))
        return
    settled = None if configuration.get("shadow") else _settled(configuration, run_id)
    console.print_line(_closing(results, trainer.budget, settled, calibrated=calibrated))
    for path in _write_report(configuration, tracker):
        console.print_line(f"wrote {path}")
    shown = most_instructive(results).experience_id
    console.print_next("explain", "--ledger", configuration.get("ledger"), "--experience", shown)


def _follows() -> bool:
    """Return whether another process of this launch prints and writes: the one of rank 0."""
    from greentrain.launch import find_launch

    launch = find_launch()
    return launch is not None and launch.rank > 0


def _new_experiences(stream: Iterable[Experience], known: Collection[str]) -> Iterator[Experience]:
    from greentrain.streams import Experience

    for experience in stream:
        if not isinstance(experience, Experience):
            raise ConfigurationError(
                f"the stream yields a {type(experience).__name__}; it has to yield "
                "Experience(id, train, val)"
            )
        if experience.id not in known:
            yield experience


def _settled(configuration: Configuration, run_id: str | None) -> tuple[str, str] | None:
    """Read from the ledger what a closed run used, and what is left of its budget now.

    Returns:
        Both as texts; ``None`` if the ledger cannot be read, or the run has no decision.
    """
    from greentrain.ledger import Ledger

    try:
        ledger = Ledger(configuration.get("ledger"), create=False)
        try:
            decisions = ledger.rows("decision", run_id=run_id)
            if not decisions:
                return None
            windows = ledger.rows("window", run_id=run_id)
            status = ledger.status(decisions[-1]["budget_id"])
        finally:
            ledger.close()
    except LedgerError:  # its rows wait on disk
        return None
    left = format_energy(status.left) if status.unit == "J" else format_carbon(status.left)
    return format_energy(sum(row["energy_j"] or 0.0 for row in windows)), left


def _closing(
    results: Sequence[UpdateResult],
    budget: Budget,
    settled: tuple[str, str] | None,
    *,
    calibrated: bool,
) -> str:
    """Sum up the run: as the ledger has it after all payments, or else as the last result has it.

    The last result is too early: a baseline retraining after it is paid for from the same budget.
    """
    used = format_energy(sum(result.energy_j for result in results))
    used, left = settled or (used, format_energy(results[-1].left_j))
    overrun_j = sum(result.overrun_j for result in results)
    calibration = ", including the calibration of the budget" if calibrated else ""
    beyond = f", {format_energy(overrun_j)} of it beyond the reservations" if overrun_j else ""
    number = "1 experience" if len(results) == 1 else f"{len(results)} experiences"
    return f"{number}: {used} used{calibration}{beyond}; {left} are left of a budget of {budget}."


def _tracker(tracking_uri: str | None) -> MlflowTracker | None:
    if tracking_uri is None:
        return None
    from greentrain.demo import quiet_mlflow
    from greentrain.tracking import MlflowTracker

    quiet_mlflow()
    return MlflowTracker(tracking_uri)


def _write_report(configuration: Configuration, tracker: MlflowTracker | None) -> list[Path]:
    folder = configuration.get("report")
    if folder is None:
        return []
    from greentrain.ledger import Ledger
    from greentrain.report import build, write

    ledger = Ledger(configuration.get("ledger"), create=False)
    paths = write(build(ledger), Path(folder))
    ledger.close()
    if tracker is not None:
        tracker.attach(paths)
    return paths
