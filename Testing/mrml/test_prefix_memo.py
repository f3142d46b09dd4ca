from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.mrml.prompt_records import PrefixMemo, common_start

_ITEMS = [[n] for n in range(5)]  # equal ones would not be the same


@given(st.lists(st.lists(st.sampled_from(_ITEMS), max_size=6), max_size=8))
def test_it_is_always_what_was_asked_for(lists):
    memo = PrefixMemo(lambda item: item[0] * 2)
    for items in lists:
        assert memo.of(items) == [item[0] * 2 for item in items]


def test_only_what_is_new_is_worked_out():
    asked = []
    memo = PrefixMemo(lambda item: asked.append(item[0]))
    a, b, c = _ITEMS[:3]
    memo.of((a, b))
    memo.of((a, b, c))
    memo.of((a, b))
    memo.of((a, c))
    assert asked == [0, 1, 2, 2]


def test_another_object_is_another_item():
    assert common_start(([1],), ([1],)) == 0 and common_start((_ITEMS[0],), (_ITEMS[0], _ITEMS[1])) == 1
