"""The examples run as a user runs them, and leave the ledgers that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from greentrain.ledger import Ledger, verify
from tests import prepared

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
# An action with its step fraction, and the beginning of its reason.
DECISION = r"(?:SKIP|(?:REPLAY|WARM_START|FULL_RETRAIN)(?: at \d+%)?): [A-Z]"


def run(name: str, *arguments: str, cwd: Path) -> str:
    done = prepared.python(EXAMPLES / name, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_script_is_measured(tmp_path: Path) -> None:
    output = run("existing_script.py", "--quick", cwd=tmp_path)
    assert "train_epoch  1" in output
    assert "68 steps, and the cap of 0.5 Wh was not reached" in output
    ledger = Ledger(str(tmp_path / "greentrain.db"), create=False)
    phases = [row["phase"] for row in ledger.rows("window")]
    assert (phases.count("train_epoch"), phases.count("validation")) == (2, 2)
    assert verify(ledger).ok
    ledger.close()


@pytest.mark.slow
def test_a_script_is_stopped(tmp_path: Path) -> None:
    output = run("existing_script.py", "--quick", "--cap", "0.001 Wh", cwd=tmp_path)
    # A machine that stalls may use a cap of 3.6 J before the energy of a step is known.
    assert re.search("J of its cap of 3.6 J in|more than its cap of 3.6 J", output)


def test_a_training_waits_for_the_night(tmp_path: Path) -> None:
    output = run("wait_for_the_night.py", "--quick", cwd=tmp_path)
    assert "paused: a start at 2026-12-02T22:00+00:00 saves 40% of the rest" in output
    assert "1 pause, 3.2 h of waiting at 30 W; used 0 Wh pausing, 95 Wh waiting" in output
    assert "finished before 2026-12-03 08:00 UTC" in output


@pytest.mark.slow
def test_updates_wait_for_the_night(tmp_path: Path) -> None:
    output = run("waiting_stream.py", "--quick", cwd=tmp_path)
    assert "0-first: waited 0.0 h\n  the first training does not wait" in output
    assert "1-more: waited 1.5 h, 128 g shifted\n  the chosen start has come" in output
    ledger = Ledger(str(tmp_path / "waiting.db"), create=False)
    assert [row["topic"] for row in ledger.rows("event")] == ["waiting"]
    assert verify(ledger).ok
    ledger.close()


@pytest.mark.slow
def test_a_stream_is_decided_about(tmp_path: Path) -> None:
    output = run("digits_stream.py", "--quick", cwd=tmp_path)
    assert "FULL_RETRAIN" in output
    assert len(re.findall(rf"(?m)^  {DECISION}", output)) == 3
    assert output.count(" used, ") == 3
    ledger = Ledger(str(tmp_path / "digits.db"), create=False)
    assert len(ledger.rows("outcome")) == 3
    assert verify(ledger).ok
    ledger.close()


@pytest.mark.slow
def test_shadow_mode_decides_next_to_a_job(tmp_path: Path) -> None:
    output = run("shadow_mode.py", "--quick", cwd=tmp_path)
    assert len(re.findall(rf": greentrain would choose {DECISION}", output)) == 3
    assert len(re.findall(r"(?m)^  the job used .*; its val_acc is ", output)) == 3
    ledger = Ledger(str(tmp_path / "shadow.db"), create=False)
    assert all(row["reservation_id"] is None for row in ledger.rows("decision"))
    assert len(ledger.rows("outcome")) == 3
    assert verify(ledger).ok
    ledger.close()


def test_an_example_is_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert lengths
    assert all(length < 70 for length in lengths.values())


@pytest.mark.slow
def test_policies_are_judged_on_a_table(tmp_path: Path) -> None:
    output = run("simulate_policies.py", "--quick", cwd=tmp_path)
    assert "anytime val_acc: trained once" in output
    assert output.count("of full's joules:") == 9
    assert (tmp_path / "table.jsonl").exists()


def test_informative_subset_compares_five_choices(tmp_path) -> None:
    output = run("informative_subset.py", "--quick", cwd=tmp_path)
    names = [line.split(":")[0].strip() for line in output.splitlines() if " % (" in line]
    assert names == ["all", "random", "forgetting", "margin", "loss"]


@pytest.mark.slow
def test_each_method_leaves_samples_out(tmp_path: Path) -> None:
    output = run("selective_training.py", "--quick", cwd=tmp_path)
    names = ("all samples", "batch_loss", "infobatch", "selective_backprop")
    shares = dict(re.findall(r"(?m)^(\w[\w ]*): (\d+) % of the samples, .* J, accuracy", output))
    assert tuple(shares) == names
    assert int(shares["all samples"]) == 100
    assert all(int(shares[name]) < 100 for name in names[1:])


@pytest.mark.slow
def test_digits_leave_early(tmp_path: Path) -> None:
    output = run("early_exit.py", "--quick", cwd=tmp_path)
    assert len(re.findall(r"(?m)^ +[\d.]+ +[01]\.\d{3} +[\d.]+$", output)) == 15
    [share] = re.findall(r"(?m)^chosen .*: (\d+) % of the operations$", output)
    assert int(share) < 100


@pytest.mark.slow
def test_digits_are_routed(tmp_path: Path) -> None:
    output = run("routing.py", "--quick", cwd=tmp_path)
    found = re.findall(r"(?m)^([\w ]+): accuracy ([\d.]+), ([\d,]+) operations", output)
    operations = {name: int(number.replace(",", "")) for name, _, number in found}
    assert operations["dense"] == 2 * (64 * 64 + 3 * 2 * 64 * 256 + 64 * 10)
    assert operations["skipped blocks"] < operations["dense"]
    assert operations["experts"] < operations["dense"]


@pytest.mark.slow
def test_a_model_is_shrunk(tmp_path: Path) -> None:
    output = run("frugal.py", "--quick", cwd=tmp_path)
    shares = re.findall(r"(?m)^[\w ]+: (\d+) % of the operations, .*: (?:kept|refused)$", output)
    assert len(shares) == 2
    assert max(map(int, shares)) < 100
    assert len(re.findall(r"(?m)^[\w ]+: [\d.]+ m?[JW]h? per step$", output)) == 3


@pytest.mark.slow
def test_scenes_are_segmented_within_a_budget(tmp_path: Path) -> None:
    output = run("segmentation/run.py", "--quick", cwd=tmp_path)
    assert re.search(r"mIoU 0\.\d+ of the classes that were trained on, [\d.]+ J per image", output)
    assert re.search(r"frugality score -?[\d.]+ .*\nzero-shot IoU of the unseen class 0", output)
    [weights] = re.findall(r"(?m)^(\d+) weights; budget ", output)
    assert int(weights) < 1_000_000


def test_looked_up_features_train_the_same_head(tmp_path: Path) -> None:
    output = run("feature_cache.py", "--quick", cwd=tmp_path)
    assert re.findall(r"(?m)^(\d+) of (\d+) samples", output) == [("0", "3198"), ("2243", "3198")]
    assert float(output.split()[-1]) < 1e-4


@pytest.mark.slow
def test_methods_are_offered(tmp_path: Path) -> None:
    output = run("offered_methods.py", "--quick", cwd=tmp_path)
    assert output.count("offered methods: cached, selective\n") == 2


@pytest.mark.slow
def test_samples_without_labels_are_trained_on(tmp_path: Path) -> None:
    output = run("partial_labels.py", "--quick", cwd=tmp_path)
    assert output.count(": accuracy ") == 3
    assert re.search(r"\d+ % of the others had a pseudo-label", output)


@pytest.mark.slow
def test_labels_come_after_the_decision(tmp_path: Path) -> None:
    output = run("late_labels.py", "--quick", cwd=tmp_path)
    assert len(re.findall(r"(?m)^  the labels of \S+ arrive$", output)) == 3
    assert len(re.findall(rf"(?m)^  {DECISION}", output)) == 3
