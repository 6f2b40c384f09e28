"""Pictures of studies and runs as PNG or SVG.  matplotlib is imported inside, on its Agg canvas: no display needed."""
