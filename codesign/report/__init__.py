"""A co-design study as one self-contained HTML page: the folder's data, its designs simulated again, and the page."""
