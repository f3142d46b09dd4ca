import signal
import threading

import pytest

from FoundationSegLib.commands.interrupts import interrupts_wait


def test_an_interrupt_counts_at_the_end_of_the_block():
    steps = []
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        signal.raise_signal(signal.SIGINT)
        steps.append("the block goes on")
    assert steps
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failure_of_the_block_comes_through():
    with pytest.raises(ZeroDivisionError), interrupts_wait():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_are_not_interrupted_anyway():
    done = []

    def work():
        with interrupts_wait():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
