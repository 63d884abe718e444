"""What ``greentrain run`` and ``greentrain init`` do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from greentrain.cli.rich_tables import open_console
from greentrain.configuration import TEMPLATE, Outputs, configure, override, read
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy

if TYPE_CHECKING:
    from rich.console import Console

    from greentrain.budget import Budget
    from greentrain.streams import Experience
    from greentrain.tracking import MlflowTracker
    from greentrain.training import UpdateResult


def run(config: Path, arguments: Sequence[str]) -> None:
    """Take a model through what is new of its stream, as a configuration says.

    Args:
        config: The YAML file.
        arguments: What the command line says in place of the file.

    Raises:
        ConfigurationError: If the configuration cannot be used; nothing is written then.
    """
    told = override(read(config), arguments)
    console = open_console()
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # the user's own modules, as with `python script.py`
    with console.status("loading torch and Lightning"):
        configuration = configure(told)
        stream = configuration.make_stream()
    tracker = _tracker(configuration.outputs)
    monitor = str(told["monitor"])

    def show(experience: Experience, result: UpdateResult) -> None:
        for line in _lines(result, monitor):
            _print(console, line)

    with configuration.make_trainer(tracker) as trainer:
        unsized = trainer.budget.share_of_full is not None
        new = _unknown(stream, trainer.known)
        results = trainer.run(islice(new, configuration.limit), on_result=show)
        had = len(trainer.known)
    if not results:
        _print(console, f"Nothing new has arrived: the stream has had {had} experiences.")
        return
    _print(console, _closing(results, trainer.budget, sized=unsized))
    for path in _report(configuration.outputs, tracker):
        _print(console, f"wrote {path}")


def init(out: Path) -> None:
    """Write a commented configuration that runs as it is.

    Args:
        out: The file.

    Raises:
        ConfigurationError: If it is there already, or cannot be written.
    """
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigurationError(
            f"{str(out)!r} is there already and is left as it is; name another file with --out"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {str(out)!r}: {error.strerror}") from None
    sys.stdout.write(f"wrote {out}; 'greentrain run {out}' works as it is\n")


def _unknown(stream: Iterable[Experience], known: Collection[str]) -> Iterator[Experience]:
    from greentrain.streams import Experience

    for experience in stream:
        if not isinstance(experience, Experience):
            raise ConfigurationError(
                f"the stream yields a {type(experience).__name__}; it has to yield "
                "Experience(id, train, val)"
            )
        if experience.id not in known:
            yield experience


def _lines(result: UpdateResult, monitor: str) -> Iterator[str]:
    yield f"{result.experience_id}: {result.decision.action}, because {result.reason}"
    figures = []
    if result.metric_before is not None and result.metric_after is not None:
        figures.append(f"{monitor} {result.metric_before:.3f} -> {result.metric_after:.3f}")
    figures.append(f"{format_energy(result.energy_j)} drawn")
    figures.append(f"{format_energy(result.left_j)} left")
    yield f"  {', '.join(figures)}{'' if result.kept else '; the update was not kept'}"


def _closing(results: Sequence[UpdateResult], budget: Budget, *, sized: bool) -> str:
    drawn_j = sum(result.energy_j for result in results)
    overrun_j = sum(result.overrun_j for result in results)
    sizing = ", what sizing the budget took included" if sized else ""
    beyond = f", {format_energy(overrun_j)} of it beyond what was reserved" if overrun_j else ""
    number = "1 experience" if len(results) == 1 else f"{len(results)} experiences"
    return (
        f"{number}: {format_energy(drawn_j)} drawn{sizing}{beyond}; "
        f"{format_energy(results[-1].left_j)} are left of a budget of {budget}."
    )


def _tracker(outputs: Outputs) -> MlflowTracker | None:
    if outputs.mlflow is None:
        return None
    from greentrain.tracking import MlflowTracker

    # MLflow tells of each table of a new database.
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowTracker(outputs.mlflow)


def _report(outputs: Outputs, tracker: MlflowTracker | None) -> list[Path]:
    if outputs.report is None:
        return []
    from greentrain.ledger import Ledger
    from greentrain.report import build, write

    ledger = Ledger(outputs.ledger, create=False)
    paths = write(build(ledger), Path(outputs.report))
    ledger.close()
    if tracker is not None:
        tracker.attach(paths)
    return paths


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
