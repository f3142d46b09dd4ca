"""Sessions under random operations. The full run does 10,000 of them."""

import pytest

from Testing.unit.session.session_machine import Machine

OPERATIONS_A_RUN = 50


@pytest.mark.parametrize("part", range(10))
def test_random_operations(part, full):
    runs = 20 if full else 2
    for run in range(runs):
        machine = Machine(1000 * part + run)
        if run % 2:  # so little that edits and the masks of older steps go all the time
            machine.session.history.undo_stack.budget_bytes = 300
        done = []
        for _ in range(OPERATIONS_A_RUN):
            done.append(machine.step())
        machine.check_replay()
        machine.check_undo_all()
        machine.check_replay()
