"""The ``greentrain`` command. Imports are inside each command, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from greentrain import __version__
from greentrain.cli import ledger_commands as cli_ledger
from greentrain.errors import ConfigurationError, GreentrainError

app = typer.Typer(
    name="greentrain",
    help="Keep models up to date inside an energy budget, and show what it took.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(cli_ledger.app, name="ledger")

LedgerOption = Annotated[
    str, typer.Option("--ledger", help="The ledger: a file or sqlite:///FILE.", metavar="URL")
]


def main() -> None:
    """Run the command: what greentrain refuses is one line and exit code 2."""
    try:
        app()
    except GreentrainError as error:
        sys.stderr.write(f"greentrain: {error}\n")
        sys.exit(2)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"greentrain {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo-out"),
    budget: Annotated[
        str | None,
        typer.Option(
            help="Energy budget, such as '0.05 Wh' or '40 % of full'.", show_default="25 % of full"
        ),
    ] = None,
    num_experiences: Annotated[
        int | None,
        typer.Option(help="Experiences that the budget has to last for.", show_default="8"),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Where the power comes from, such as 'DE': for grams.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of stream, weights and sampling.")] = 0,
) -> None:
    """Take a small model through eight experiences of digits under an energy budget."""
    from greentrain.budget import Budget

    if budget is not None:
        Budget.parse(
            budget, num_experiences=1 if num_experiences is None else num_experiences
        )  # before the slow imports
    from greentrain.cli import rich_tables as cli_tables

    cli_tables.demo(out, budget=budget, num_experiences=num_experiences, zone=zone, seed=seed)


@app.command()
def init(
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("stream.yaml"),
) -> None:
    """Write a commented configuration for 'greentrain run' that works as it is."""
    from greentrain.cli import run_command as cli_run

    cli_run.init(out)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    config: Annotated[
        Path, typer.Argument(help="The YAML file; 'init' writes one.", metavar="CONFIG.yaml")
    ],
) -> None:
    """Take your own model through what is new of your stream, as a YAML file says.

    Any key of the file can be given after it: greentrain run stream.yaml --budget "20 Wh"
    --trainer.max_epochs 3
    """
    from greentrain.cli import run_command as cli_run

    cli_run.run(config, context.args)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def record(
    context: typer.Context,
    config: Annotated[
        Path, typer.Argument(help="The YAML file, as for 'run'.", metavar="CONFIG.yaml")
    ],
    budget: Annotated[str, typer.Option(help="What recording may draw, such as '50 Wh'.")],
    out: Annotated[Path, typer.Option(help="The table to write.")] = Path("table.jsonl"),
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Branch on all that may have happened, not on the last update alone."
        ),
    ] = False,
    step_fractions: Annotated[
        str | None,
        typer.Option(
            help="Efforts to try, such as 0.25,0.5,1.",
            show_default="those of an update; 1 with --exact",
        ),
    ] = None,
    joules_per_sample: Annotated[
        float | None,
        typer.Option(
            help="Joules of each sample trained on, in place of measured ones.",
            show_default="joules are measured",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Name of the recording, and of its budget in the ledger.")
    ] = "recording",
) -> None:
    """Train every update that may be chosen, from wherever a model may stand, into a table.

    A recording that was broken off goes on where it was. Any key of the file can be given after it.
    """
    from greentrain.cli import simulate as cli_simulate

    cli_simulate.record(
        config,
        context.args,
        out=out,
        budget=budget,
        exact=exact,
        step_fractions=step_fractions,
        joules_per_sample=joules_per_sample,
        name=name,
    )


@app.command()
def simulate(
    tables: Annotated[
        list[Path], typer.Argument(help="Tables that 'record' wrote.", metavar="TABLE...")
    ],
    policies: Annotated[
        str, typer.Option(help="Policies, separated by commas: names, or module:Class(argument=1).")
    ] = "priced,greedy,always-replay,always-warm,always-full,oracle",
    budgets: Annotated[
        str, typer.Option(help="Shares of always retraining in full, or energies such as 0.5Wh.")
    ] = "2%,5%,10%,20%,50%",
    plot: Annotated[
        Path | None, typer.Option(help="Draw a chart, as SVG.", metavar="FILE.svg")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Judge policies on recorded tables, in seconds and with nothing to train."""
    from greentrain.cli import simulate as cli_simulate

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # policies of the user's own
    cli_simulate.simulate(tables, policies=policies, budgets=budgets, plot=plot, as_json=as_json)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    idle: Annotated[
        float | None,
        typer.Option(
            help="Measure what the machine draws doing nothing, for so long.",
            metavar="SECONDS",
            show_default="not measured",
        ),
    ] = None,
) -> None:
    """Show what can be measured on this machine, how, and what is missing."""
    from greentrain.cli.doctor import doctor as run_doctor

    run_doctor(as_json=as_json, idle_s=idle)


@app.command(context_settings={"allow_interspersed_args": False})
def measure(
    command: Annotated[
        list[str],
        typer.Argument(help="The command and its arguments.", metavar="COMMAND [ARGS]..."),
    ],
    ledger: LedgerOption = "greentrain.db",
    name: Annotated[
        str | None,
        typer.Option(help="What to call it in the report.", show_default="the command's file name"),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Where the power comes from, such as 'DE': for grams.")
    ] = None,
    pue: Annotated[
        float | None, typer.Option(help="The building's power usage effectiveness, such as 1.2.")
    ] = None,
    pue_source: Annotated[
        str | None,
        typer.Option(help="Where the PUE comes from.", show_default="given by the user"),
    ] = None,
) -> None:
    """Run a command, measure what is drawn meanwhile, and return its exit code.

    For example: greentrain measure --name "prepare data" --zone DE -- python prepare.py --all
    """
    from greentrain.measuring import run_command

    try:
        measured, code = run_command(
            command, name=name, ledger=ledger, zone=zone, pue=pue, pue_source=pue_source
        )
    except OSError as error:
        reason = error.strerror or error
        typer.echo(f"greentrain: cannot start {command[0]!r}: {reason}", err=True)
        raise typer.Exit(127) from None
    typer.echo(f"greentrain: {measured}", err=True)
    raise typer.Exit(code)


@app.command()
def explain(
    ledger: LedgerOption = "greentrain.db",
    stream: Annotated[
        str | None,
        typer.Option(
            help="Name of the stream.", metavar="NAME", show_default="that of the newest run"
        ),
    ] = None,
    experience: Annotated[
        str | None,
        typer.Option(
            help="Everything about one experience.", metavar="ID", show_default="a table of all"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what was decided about each experience, why, and what came of it."""
    from greentrain.cli import explain as cli_explain

    cli_explain.explain(ledger, stream=stream, experience=experience, as_json=as_json)


@app.command()
def report(
    ledgers: Annotated[
        list[str] | None,
        typer.Option(
            "--ledger",
            help="A ledger, or a pattern such as 'runs/*.db'; may be given several times.",
            metavar="LEDGER",
            show_default="greentrain.db",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="What to write, separated by commas: html, json, csv, md, hf, boamps, sci, xlsx, "
            "pdf, cyclonedx, spdx, esrs, gpai.",
        ),
    ] = "html,json",
    card: Annotated[
        Path | None,
        typer.Option(help="A Hugging Face model card to put the emissions into.", metavar="README"),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Id of the one run to report on.")] = None,
    project: Annotated[
        str | None,
        typer.Option(help="Only runs whose name is like this, such as 'digits*'.", metavar="NAME"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only what ended from then on: a date (its midnight in UTC), or a time with its "
            "zone.",
            metavar="MOMENT",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only what ended before then.", metavar="MOMENT")
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option(help="What only you know, as YAML: whose hardware, which electricity, ..."),
    ] = None,
) -> None:
    """Write a report of what was measured, decided and spent."""
    from greentrain.ledger import close_ledgers, open_ledgers
    from greentrain.report import build, missing, write
    from greentrain.report.disclosures import read_given
    from greentrain.report.exports import write_card

    stated = None if given is None else read_given(given)
    opened = open_ledgers(ledgers or ["greentrain.db"])
    try:
        document = build(opened, run=run, project=project, since=since, until=until, given=stated)
    finally:
        close_ledgers(opened)
    wanted = tuple(name.strip() for name in formats.split(","))
    for path in write(document, out, wanted):
        typer.echo(f"wrote {path}")
    for name, sentences in missing(document, wanted).items():
        for sentence in sentences:
            typer.echo(f"{name} lacks {sentence}", err=True)
    if card is not None:
        write_card(card, document)
        typer.echo(f"wrote co2_eq_emissions into {card}")


@cli_ledger.app.command("verify")
@app.command()
def verify(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="The ledgers: files, patterns such as 'runs/*.db', URLs; or one report.json.",
            metavar="LEDGER...|REPORT",
        ),
    ],
    heads: Annotated[
        Path | None,
        typer.Option(
            help="Compare with the heads in this file (or report.json); written if missing.",
            metavar="FILE",
        ),
    ] = None,
    ledgers: Annotated[
        list[str] | None,
        typer.Option(
            "--ledger",
            help="A ledger of the report.json; may be given several times.",
            metavar="LEDGER",
        ),
    ] = None,
) -> None:
    """Recompute the chains and sums of ledgers, or every figure of a report from its ledgers.

    Exit code 1 if a row was altered, removed, inserted or reordered, or something in the report
    does not follow; 3 if a run of a ledger has no closing row and no exported head shows that there
    was none.
    """
    if ledgers or targets[0].endswith(".json"):
        from greentrain.report.recheck import check_file

        if len(targets) != 1 or not ledgers or heads is not None:
            raise ConfigurationError(
                "to check a report, give it alone with its ledger: greentrain verify report.json "
                "--ledger LEDGER"
            )
        lines, code = check_file(Path(targets[0]), ledgers)
    else:
        from greentrain.ledger.multi import verify_all

        lines, code = verify_all(targets, heads)
    for line in lines:
        typer.echo(line)
    raise typer.Exit(code)
