"""The endless sequence of a cell: every epoch has each row once, and any part of it can be asked for."""

import numpy as np

from training.data.cell import Cell, UsableRows


def cell(seed: int = 0) -> Cell:
    groups = [UsableRows(n, n % 2, np.arange(5 + n, dtype=np.int16)) for n in range(6)]
    return Cell(groups, [(n % 2,) for n in range(6)], (seed, "cell"), window=2, run=4)


def test_every_epoch_has_every_row_once_in_another_order():
    one = cell()
    epochs = [one.take(n * one.rows, (n + 1) * one.rows) for n in range(3)]
    wanted = {(n, n % 2, r) for n in range(6) for r in range(5 + n)}
    assert one.rows == len(wanted) and all(set(e) == wanted and len(e) == one.rows for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_part_is_the_same_however_it_is_asked_for():
    whole = cell().take(0, 100)
    assert [item for n in range(100) for item in cell().take(n, n + 1)] == whole
    assert cell().take(17, 83) == whole[17:83] and cell(1).take(0, 100) != whole


def test_rows_that_are_drawn_more_often_take_no_more_room_and_come_in_the_same_order():
    rows, times = np.arange(3, 67, dtype=np.int16), np.array([0, 1, 1000, 7] * 16)
    few = UsableRows.repeated(5, 1, rows, times)
    assert len(few.rows) == 48 and few.ends.nbytes <= 2 * 48 and few.draws == times.sum()
    long = UsableRows(5, 1, np.repeat(rows, times))
    mine, theirs = (Cell([g], [(1,)], (0, "cell"), window=2, run=4) for g in (few, long))
    assert mine.take(0, 3 * few.draws) == theirs.take(0, 3 * few.draws)
    assert UsableRows.repeated(5, 1, rows, np.zeros(64, np.int64)).draws == 0


def test_rows_come_in_runs_of_one_layout():
    one = cell()
    layouts = [shard % 2 for shard, _, _ in one.take(0, one.rows)]
    changes = sum(a != b for a, b in zip(layouts, layouts[1:]))
    assert changes < one.rows / 2
