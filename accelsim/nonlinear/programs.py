"""Every method's program is registered by importing this module."""

from __future__ import annotations
