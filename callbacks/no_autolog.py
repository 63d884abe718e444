"""Keep ``mlflow.autolog()`` from recording a training that only measures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_autolog() -> Iterator[None]:
    """Disable the automatic logging of MLflow in a block, if the process uses MLflow."""
    if "mlflow" not in sys.modules:
        yield
        return
    from mlflow.utils.autologging_utils import disable_autologging

    with disable_autologging():
        yield
