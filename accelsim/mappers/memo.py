"""The slice memo: what the exhaustive mapper found for a chain of ops, kept for equal layers and for other designs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Any

DEFAULT_BYTES = 512 * 1024 * 1024
MAX_NAMES = 100_000


class Memo:
    """A dictionary that forgets what was used longest ago when it holds more than `limit_bytes`.

    Long keys are named by small numbers (`name`), so that a look-up does not hash them again and again.  Threads of an
    executor may share it.
    """

    def __init__(self, limit_bytes: int = DEFAULT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.hits = self.misses = self.bytes = 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._names: dict[Hashable, int] = {}
        self._named = 0
        self._lock = Lock()

    def name(self, key: Hashable) -> int:
        """A number that stands for a key, the same for equal keys, until there are too many: then all get new ones."""
        with self._lock:
            if key not in self._names:
                if len(self._names) >= MAX_NAMES:
                    self._names.clear()
                self._names[key] = self._named
                self._named += 1
            return self._names[key]

    def get(self, key: Hashable) -> Any:
        """The value of a key, or None."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Any, size_bytes: int) -> None:
        """Keep a value; forgets older ones when there is too much."""
        with self._lock:
            _, replaced = self._values.pop(key, (None, 0))
            self._values[key] = (value, size_bytes)
            self.bytes += size_bytes - replaced
            while self.bytes > self.limit_bytes and len(self._values) > 1:
                _, (_, freed) = self._values.popitem(last=False)
                self.bytes -= freed
