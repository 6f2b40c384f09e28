"""Searchers: ways to choose the next designs of a space.  One file each; `@searcher(NAME)` makes one known."""
