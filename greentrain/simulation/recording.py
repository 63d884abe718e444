"""Record what every action would cost and bring: train each, from wherever a model may stand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from pytorch_lightning import LightningModule

from greentrain.budget import Budget
from greentrain.control import SKIP, Action, UpdateMode
from greentrain.energy import Meter, WindowRecorder, detect
from greentrain.errors import ConfigurationError, MeterError
from greentrain.evaluation.held_out import EvalOn, HeldOut
from greentrain.evaluation.metric_history import MetricHistory
from greentrain.ledger import DEFAULT_URL, Ledger, environment
from greentrain.memory import Buffer, FullBuffer
from greentrain.simulation.branching import Branching
from greentrain.simulation.recorded_table import (
    Header,
    RecordedRow,
    RecordedTable,
    modelled_cost,
    read_table,
)
from greentrain.simulation.recording_budget import RecordingBudget
from greentrain.simulation.recording_files import Branches, TableFile
from greentrain.streams import Experience, Stream
from greentrain.training import fit as trainers
from greentrain.training import modes
from greentrain.training.data import StreamData
from greentrain.training.modes import ModeConfig
from greentrain.training.updater import Updater

Cost = Literal["measured", "samples"]


def record(
    make_model: Callable[[], LightningModule],
    stream: Iterable[Experience],
    *,
    out: str | Path,
    budget: str | Budget,
    monitor: str,
    mode: Literal["max", "min"] = "max",
    exact: bool = False,
    step_fractions: Sequence[float] | None = None,
    update_modes: Collection[UpdateMode] = tuple(UpdateMode),
    cost: Cost = "measured",
    joules_per_sample: float = 1e-3,
    fixed_j: float = 0.0,
    memory: Buffer | Literal["all"] | None = "all",
    ledger: str = DEFAULT_URL,
    trainer: Mapping[str, Any] | None = None,
    loader: Mapping[str, Any] | None = None,
    meter: Meter | None = None,
    objective: EvalOn = "seen",
    seed: int = 0,
    name: str = "recording",
    on_row: Callable[[RecordedRow], None] = lambda row: None,
    **meaning: float,
) -> RecordedTable:
    """Train every action at every experience, from wherever a model may stand, into a table.

    Every line is written as it is made. A recording that was broken off goes on where it was when
    it is called again with the same arguments; so does one whose budget did not suffice, with a
    larger one under another name.

    Args:
        make_model: Returns a ``LightningModule`` with fresh weights.
        stream: The experiences; has to end.
        out: The table's file. Weights are in a folder beside it until the recording is complete.
        budget: An energy such as ``"50 Wh"``; nothing starts that it does not pay for.
        monitor: Name of the metric that the model logs in validation.
        mode: Whether more (``"max"``) or less (``"min"``) of it is better.
        exact: Whether to branch on all that may have happened. Otherwise only on which experience
            the model was last updated at: with the weights of a full retraining if it was one, else
            with those of the model that was warm-started at each experience up to it.
        step_fractions: Efforts to try; those of the update modes, or 1 alone where ``exact``.
        update_modes: Update modes to try; ``SKIP`` always is.
        cost: Whether joules in the table are ``"measured"``, or ``"samples"``: so many joules for
            each sample that was trained on, which no noise touches.
        joules_per_sample: Joules per sample, for ``"samples"``.
        fixed_j: Joules of an update besides, for ``"samples"``.
        memory: What may be kept of past data: ``"all"``, a buffer, or ``None`` for nothing.
        ledger: URL of the ledger.
        trainer: Options of each fresh Trainer, as ``StreamTrainer`` takes them.
        loader: Options of each ``DataLoader``, likewise.
        meter: Where joules come from; by default the best that this machine has.
        objective: What a new model is judged on, as ``StreamTrainer`` takes it.
        seed: Seed of weights, order and sampling.
        name: Name of the recording and of its budget in the ledger.
        on_row: Called after each row that is made.
        **meaning: What the update modes mean, as :class:`ModeConfig` takes it.

    Returns:
        The table.

    Raises:
        BudgetExceeded: If the budget does not pay for the next training.
        ConfigurationError: If an argument cannot be used, or the file is of another recording.
        MeterError: If joules are to be measured and the meter does not know them.
    """
    experiences, path = list(stream), Path(out)
    if not experiences:
        raise ConfigurationError("the stream is empty; a table needs one experience or more")
    options = trainers.check_options(trainer or {})
    loader = {"batch_size": 32, **(loader or {})}
    tried = _tried(exact, step_fractions, update_modes)
    asked = Budget.parse(budget) if isinstance(budget, str) else budget
    if asked.energy_j is None:
        raise ConfigurationError(
            f"the budget of a recording is {asked}; it is an energy, such as '50 Wh'"
        )
    price = _price(cost, joules_per_sample, fixed_j)
    updater = Updater(
        make_model,
        monitor=monitor,
        options=options,
        loader=loader,
        modes=ModeConfig(epochs=options["max_epochs"], batch_size=loader["batch_size"], **meaning),
        seed=seed,
    )
    kept = FullBuffer(seed=seed) if isinstance(memory, str) else memory
    with _started(detect() if meter is None else meter) as metered, closing(Ledger(ledger)) as book:
        header = Header(
            stream=stream.name if isinstance(stream, Stream) else "stream",
            num_experiences=len(experiences),
            seed=seed,
            keys="exact" if exact else "merged",
            monitor=monitor,
            more_is_better=mode == "max",
            cost=f"measured: {_methods(metered)}" if price is None else modelled_cost(**price),
            environment=environment(),
        )
        recorder = WindowRecorder(metered)
        with (
            closing(TableFile(path, header)) as file,
            book.open_run(
                "measure",
                name,
                environment=dict(header.environment),
                sources=lambda: metered.sources,
                beat=recorder.open_windows,
            ) as run,
        ):
            recorder.sinks.append(run.record)
            branches = Branches(path.with_name(f"{path.name}.weights"))
            Branching(
                updater,
                StreamData(kept),
                HeldOut(objective, seed=seed),
                MetricHistory(more_is_better=header.more_is_better),
                RecordingBudget(recorder, book.account(book.open_budget(name, asked), run), path),
                file=file,
                branches=branches,
                tried=tried,
                price=price,
                exact=exact,
                on_row=on_row,
                seed=seed,
            ).take(experiences)
    branches.remove()
    return read_table(path)


@contextmanager
def _started(meter: Meter) -> Iterator[Meter]:
    meter.start()
    try:
        yield meter
    finally:
        meter.close()


def _price(cost: str, joules_per_sample: float, fixed_j: float) -> dict[str, float] | None:
    """Return what a sample and an update cost; ``None`` where that is measured."""
    if cost not in get_args(Cost):
        raise ConfigurationError(f"cost is {cost!r}; allowed are 'measured' and 'samples'")
    price = {"joules_per_sample": joules_per_sample, "fixed_j": fixed_j}
    modelled_cost(**price)  # which checks it
    return price if cost == "samples" else None


def _tried(
    exact: bool, step_fractions: Sequence[float] | None, update_modes: Collection[UpdateMode]
) -> tuple[Action, ...]:
    if UpdateMode.FULL_RETRAIN not in update_modes:
        raise ConfigurationError(
            f"update_modes are {', '.join(map(str, update_modes)) or 'none'}; FULL_RETRAIN has to "
            "be among them, as nothing else can train a model first"
        )
    if step_fractions is not None and not step_fractions:
        raise ConfigurationError("step_fractions are none; give one or more, such as 0.5 and 1.0")
    chosen = (
        ((1.0,) if exact else modes.STEP_FRACTIONS) if step_fractions is None else step_fractions
    )
    trained = [mode for mode in UpdateMode if mode in update_modes and mode is not SKIP.mode]
    return tuple(
        Action(mode=mode, step_fraction=step_fraction)
        for mode in trained
        for step_fraction in sorted(set(chosen))
    )


def _methods(meter: Meter) -> str:
    try:
        return ", ".join(sorted({source.method for source in meter.sources})) or "by nothing"
    except MeterError:
        return "unknown"
