"""SIGTERM waits until an update has settled."""

from __future__ import annotations

import os
import signal

import pytest

from greentrain.training.held_sigterm import held_sigterm


def test_sigterm_ends_the_program_after_the_block():
    done = []
    with pytest.raises(SystemExit) as ended, held_sigterm() as check:
        check()
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("settled")
        with pytest.raises(SystemExit):
            check()
    assert ended.value.code == 143 and done == ["settled"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_error_of_the_block_and_a_handler_of_the_user_stay():
    with pytest.raises(RuntimeError, match="lost"), held_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("lost")
    came = []
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with held_sigterm() as check:
            os.kill(os.getpid(), signal.SIGTERM)
            check()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert came == [signal.SIGTERM]
