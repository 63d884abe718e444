"""Record a table of digits, and compare policies on it at several budgets.

Run ``python examples/simulate_policies.py``; ``--quick`` records three experiences.
"""

from __future__ import annotations

import argparse

from greentrain.control import Always, PricedPolicy, UpdateMode
from greentrain.demo import DigitsModel
from greentrain.simulation import Oracle, always_full, record, share_of_gap, simulate, train_once
from greentrain.streams import digits_stream

SHARES = (0.1, 0.2, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three experiences, 3 epochs")
    options = parser.parse_args()

    table = record(
        DigitsModel,
        digits_stream()[: 3 if options.quick else 6],
        out="table.jsonl",
        budget="5 Wh",
        monitor="val_acc",
        step_fractions=(0.5, 1.0),
        cost="samples",
        ledger="sqlite:///recording.db",
        trainer={"max_epochs": 3 if options.quick else 15, "accelerator": "auto", "devices": 1},
        loader={"batch_size": 16},
    )
    once, full = train_once(table).anytime, always_full(table).anytime
    print(f"anytime val_acc: trained once {once:.3f}, always retrained in full {full:.3f}")
    policies = {
        "priced": PricedPolicy(),
        "always warm": Always(mode=UpdateMode.WARM_START),
        "oracle": Oracle(table),
    }
    for name, policy in policies.items():
        for share in SHARES:
            outcome = simulate(table, policy, share * table.full_j)
            closed = share_of_gap(outcome.anytime, once, full)
            gap = "no gap to close" if closed is None else f"{closed:.0%} of the gap closed"
            print(f"{name} at {share:.0%} of full's joules: {outcome.anytime:.3f}, {gap}")


if __name__ == "__main__":
    main()
