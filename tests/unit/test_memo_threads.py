"""The memo of the exhaustive mapper, shared by the threads of an executor."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from accelsim.mappers.memo import Memo

THREADS, KEYS = 8, 3000


class SlowKey:
    """A key whose hash lets other threads run, as that of a long key does."""

    def __init__(self, text):
        self.text = text

    def __hash__(self):
        return hash(tuple(self.text))

    def __eq__(self, other):
        return self.text == other.text


@pytest.fixture(autouse=True)
def impatient():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_different_keys_have_different_names():
    memo = Memo()

    def named(thread):
        return {memo.name(SlowKey(f"{thread} {k}")) for k in range(KEYS)}

    with ThreadPoolExecutor(THREADS) as pool:
        names = set().union(*pool.map(named, range(THREADS)))
    assert names == set(range(THREADS * KEYS))


def test_it_forgets_while_others_look():
    memo = Memo(limit_bytes=20)

    def used(thread):
        for k in range(KEYS):
            key = SlowKey(str((k * 7 + thread) % 40))
            found = memo.get(key)
            assert found in (None, key.text)
            memo.put(key, key.text, 1)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(used, range(THREADS)))
    assert memo.bytes == len(memo._values) <= 20
    assert memo.hits + memo.misses == THREADS * KEYS


def test_a_key_that_is_kept_again_counts_once():
    memo = Memo()
    memo.put("a", 1, 10)
    memo.put("a", 2, 30)
    assert (memo.get("a"), memo.bytes) == (2, 30)
