"""Record a table: train every action of every experience, from every state of the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from pytorch_lightning import LightningModule

from greentrain.budget import Budget
from greentrain.control import SKIP, Action, UpdateMode
from greentrain.control.step_plan import STEP_FRACTIONS
from greentrain.energy import Meter, WindowRecorder, check_meter, detect
from greentrain.errors import ConfigurationError, MeterError
from greentrain.evaluation.comparison import MetricHistory
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.held_out import EvalOn, HeldOut
from greentrain.ledger import DEFAULT_URL, Ledger, environment
from greentrain.memory import Buffer
from greentrain.simulation.recorded_table import (
    Header,
    RecordedRow,
    RecordedTable,
    modelled_cost,
    read_table,
)
from greentrain.simulation.recording_budget import RecordingBudget
from greentrain.simulation.recording_files import TableFile, WeightsFolder
from greentrain.simulation.table_recorder import TableRecorder
from greentrain.streams import Experience, Stream
from greentrain.training.config import ModeConfig, open_buffer
from greentrain.training.data import StreamData
from greentrain.training.fit import ModelTrainer, trainer_options
from greentrain.training.stream_state import CurrentModel

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
    buffer: Buffer | Literal["all"] | None = "all",
    ledger: str = DEFAULT_URL,
    trainer: Mapping[str, Any] | None = None,
    loader: Mapping[str, Any] | None = None,
    meter: Meter | None = None,
    eval_on: EvalOn = "seen",
    modes: ModeConfig = ModeConfig(),  # noqa: B008 (frozen)
    seed: int = 0,
    name: str = "recording",
    on_row: Callable[[RecordedRow], None] = lambda row: None,
) -> RecordedTable:
    """Train every action at every experience, from every state of the model, into a table.

    Each line is written at once. An interrupted recording continues when it is called again with
    the same arguments. If the budget was too small, it continues with a larger one under another
    name.

    Args:
        make_model: Returns a ``LightningModule`` with fresh weights.
        stream: The experiences; has to end.
        out: File of the table. Weights are in a folder next to it until the recording is complete.
        budget: An energy such as ``"50 Wh"``; nothing starts that it cannot pay for.
        monitor: Name of the metric that the model logs in validation.
        mode: Whether more (``"max"``) or less (``"min"``) of it is better.
        exact: Whether places differ by all earlier updates. Otherwise they differ only by the
            experience of the last update. Its weights are those of a full retraining if it was one,
            else those of a model that was warm-started at each experience up to it.
        step_fractions: Step fractions to try; by default those of the update modes, or 1 alone if
            ``exact``.
        update_modes: Update modes to try, besides ``SKIP``.
        cost: Joules in the table: ``"measured"``, or ``"samples"`` for joules in proportion to the
            samples that were trained on, without noise.
        joules_per_sample: Joules per sample, for ``"samples"``.
        fixed_j: Joules of an update without its samples, for ``"samples"``.
        buffer: Past data that may be kept: ``"all"``, a buffer, or ``None`` for nothing.
        ledger: URL of the ledger.
        trainer: Options of each fresh Trainer, as for ``StreamTrainer``.
        loader: Options of each ``DataLoader``, likewise.
        meter: Source of joules; by default the best meter of this machine.
        eval_on: Data that models are evaluated on, as for ``EvaluationConfig``.
        modes: Work and weights of the update modes, as for ``StreamTrainer``.
        seed: Seed of weights, order and sampling.
        name: Name of the recording and of its budget in the ledger.
        on_row: Called after each new row.

    Returns:
        The table.

    Raises:
        BudgetExceeded: If the budget does not pay for the next training.
        ConfigurationError: If an argument cannot be used, or the file is of another recording.
        MeterError: If joules are to be measured and the meter cannot measure them.
    """
    experiences, path = list(stream), Path(out)
    if not experiences:
        raise ConfigurationError("the stream is empty; give at least one experience")
    options = trainer_options(trainer or {})
    tried = _tried(exact, step_fractions, update_modes)
    asked = Budget.parse(budget) if isinstance(budget, str) else budget
    if asked.energy_j is None:
        raise ConfigurationError(
            f"the budget of a recording is {asked}; give an energy, such as '50 Wh'"
        )
    price = _price(cost, joules_per_sample, fixed_j)
    check_meter(meter, "meter")
    model_trainer = ModelTrainer(
        make_model, options=options, loader=loader or {}, modes=modes, seed=seed
    )
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
            weights = WeightsFolder(path.with_name(f"{path.name}.weights"))
            TableRecorder(
                CurrentModel(model_trainer.fresh_model),
                model_trainer,
                Evaluator(monitor=monitor, options=options, loader=model_trainer.loader),
                StreamData(open_buffer(buffer, None, seed)),
                HeldOut(eval_on, seed=seed),
                MetricHistory(more_is_better=header.more_is_better),
                RecordingBudget(recorder, book.account(book.open_budget(name, asked), run), path),
                file=file,
                weights=weights,
                tried=tried,
                price=price,
                exact=exact,
                on_row=on_row,
                seed=seed,
            ).record(experiences)
    weights.remove()
    return read_table(path)


@contextmanager
def _started(meter: Meter) -> Iterator[Meter]:
    meter.start()
    try:
        yield meter
    finally:
        meter.close()


def _price(cost: str, joules_per_sample: float, fixed_j: float) -> dict[str, float] | None:
    """Return the joules of a sample and of an update; ``None`` if they are measured."""
    if cost not in get_args(Cost):
        raise ConfigurationError(f"cost is {cost!r}; set it to 'measured' or 'samples'")
    price = {"joules_per_sample": joules_per_sample, "fixed_j": fixed_j}
    modelled_cost(**price)  # for its check
    return price if cost == "samples" else None


def _tried(
    exact: bool, step_fractions: Sequence[float] | None, update_modes: Collection[UpdateMode]
) -> tuple[Action, ...]:
    if UpdateMode.FULL_RETRAIN not in update_modes:
        raise ConfigurationError(
            f"update_modes are {', '.join(map(str, update_modes)) or 'none'}; add FULL_RETRAIN, "
            "which trains the first model"
        )
    if step_fractions is not None and not step_fractions:
        raise ConfigurationError("step_fractions are empty; give one or more, such as 0.5 and 1.0")
    chosen = ((1.0,) if exact else STEP_FRACTIONS) if step_fractions is None else step_fractions
    trained = [mode for mode in UpdateMode if mode in update_modes and mode is not SKIP.mode]
    return tuple(
        Action(mode=mode, step_fraction=step_fraction)
        for mode in trained
        for step_fraction in sorted(set(chosen))
    )


def _methods(meter: Meter) -> str:
    try:
        return ", ".join(sorted({source.method for source in meter.sources})) or "without a source"
    except MeterError:
        return "unknown"
