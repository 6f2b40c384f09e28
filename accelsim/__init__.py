"""A cycle-level simulator of accelerators for quantized hybrid Vision Transformers.

Start with `accelsim.api.evaluate`.  Importing this package loads no torch, pandas or matplotlib.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hybrid-vit-codesign")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
