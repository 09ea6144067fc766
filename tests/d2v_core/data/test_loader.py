"""The background thread keeps order and hides nothing."""

import threading

import pytest

from d2v_core.data.loader import prefetch


def test_order_is_kept_and_work_happens_in_another_thread():
    threads = set()

    def double(item):
        threads.add(threading.current_thread().name)
        return 2 * item

    assert list(prefetch(double, range(50))) == list(range(0, 100, 2))
    assert threading.current_thread().name not in threads


def test_an_error_reaches_the_consumer_at_its_place():
    batches = prefetch(lambda item: 1 / (3 - item), range(10))
    assert [next(batches) for _ in range(3)] == [1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(batches)
