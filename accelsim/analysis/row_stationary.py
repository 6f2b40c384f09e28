"""Row-stationary array with a register level: passes, processing cycles and buffer volume in closed form.

A processing element (PE) holds `filters × channels` filter rows and slides them over rows of as many input channels,
one MAC per cycle; `R` PEs in a column add their results to one output row, `strip_rows` columns make that many output
rows.  Such a set of PEs is copied for `channel_sets` more channels (its sums are added on the way) and for
`filter_sets` more filters.  One pass is what the registers of the PEs hold; a layer is a number of equal passes, one
after the other.

Cycles of a pass (derivation, nothing fitted):

* filters first: `filters × channels × R × S` words for each of `channel_sets × filter_sets` sets, `FILTER_WORDS` of
  them per cycle; registers are not doubled, so nothing is computed meanwhile;
* then the first windows: `S` words of every input row and channel that the sets need, one word per cycle on the
  input bus, before the last PE can begin;
* then `filters × channels × S` cycles per output column, for every output column and image of the pass.  The input bus
  brings one new window column meanwhile; where it needs longer than the MACs, it decides.

Buffer words: input rows once per pass; partial sums written and read once per pass.
Sources: Chen et al., Eyeriss, JSSC 52(1) 2017 (array, registers, buses); `step_pass` walks a pass event by event.
"""

from __future__ import annotations

from dataclasses import dataclass

FILTER_WORDS = 4  # 64-bit filter bus, 16-bit words


@dataclass(frozen=True)
class ConvShape:
    """A convolution of `images` images; channels and filters are those of one group, `in_edge` includes padding."""

    images: int
    groups: int
    channels: int
    filters: int
    in_edge: int
    kernel: int
    out_edge: int
    stride: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all images."""
        return self.images * self.groups * self.filters * self.channels * self.out_edge**2 * self.kernel**2


@dataclass(frozen=True)
class PassMapping:
    """What one pass holds: images, output rows of a strip, filters and channels of a PE, copies of the set of PEs."""

    images: int
    strip_rows: int
    filters: int
    channels: int
    channel_sets: int
    filter_sets: int


def active_pes(layer: ConvShape, mapping: PassMapping) -> int:
    """PEs that work in a full pass."""
    return layer.kernel * mapping.strip_rows * mapping.channel_sets * mapping.filter_sets


def input_rows(layer: ConvShape, strip_rows: int) -> int:
    """Input rows under a strip of output rows."""
    return (strip_rows - 1) * layer.stride + layer.kernel


def strips(layer: ConvShape, mapping: PassMapping) -> list[int]:
    """Output rows of every strip; the last may be shorter."""
    full, rest = divmod(layer.out_edge, mapping.strip_rows)
    return [mapping.strip_rows] * full + [rest] * (rest > 0)


def passes(layer: ConvShape, mapping: PassMapping) -> int:
    """Passes of the layer per strip: groups × filter blocks × channel blocks × image blocks."""
    filter_blocks = -(-layer.filters // (mapping.filters * mapping.filter_sets))
    channel_blocks = -(-layer.channels // (mapping.channels * mapping.channel_sets))
    return layer.groups * filter_blocks * channel_blocks * -(-layer.images // mapping.images)


def pass_cycles(layer: ConvShape, mapping: PassMapping, strip_rows: int) -> int:
    """Cycles of one pass over a strip (see the module's text)."""
    k, fed = layer.kernel, mapping.channels * mapping.channel_sets * input_rows(layer, strip_rows)
    words = mapping.filters * mapping.channels * k * k * mapping.channel_sets * mapping.filter_sets
    column = max(mapping.filters * mapping.channels * k, fed * layer.stride)
    last = mapping.filters * mapping.channels * k
    return -(-words // FILTER_WORDS) + fed * k + (layer.out_edge * mapping.images - 1) * column + last


def step_pass(layer: ConvShape, mapping: PassMapping, strip_rows: int) -> int:
    """Cycles of one pass, walked word by word and MAC by MAC: the check of `pass_cycles`.

    The input bus delivers one word per cycle and runs at most one window column ahead; a PE needs its whole window
    before it starts a column and one cycle per MAC.
    """
    words = mapping.filters * mapping.channels * layer.kernel**2 * mapping.channel_sets * mapping.filter_sets
    now = 0
    while words > 0:
        words -= FILTER_WORDS
        now += 1
    fed = mapping.channels * mapping.channel_sets * input_rows(layer, strip_rows)
    arrived = now
    for _word in range(fed * layer.kernel):
        arrived += 1
    free = now
    for column in range(layer.out_edge * mapping.images):
        begin = max(arrived, free)
        if column < layer.out_edge * mapping.images - 1:
            # A new image begins with a whole window, which the bus has brought under the last columns of the old one.
            arrived = begin + sum(1 for _word in range(fed * layer.stride))
        free = begin
        for _mac in range(mapping.filters * mapping.channels * layer.kernel):
            free += 1
    return free


def layer_cycles(layer: ConvShape, mapping: PassMapping) -> int:
    """Processing cycles of the layer; DRAM is assumed to be overlapped entirely."""
    return passes(layer, mapping) * sum(pass_cycles(layer, mapping, rows) for rows in strips(layer, mapping))


def buffer_words(layer: ConvShape, mapping: PassMapping) -> int:
    """Words between global buffer and array: inputs once per pass, partial sums written and read once per pass."""
    inputs = mapping.channels * mapping.channel_sets * layer.in_edge
    sums = 2 * mapping.filters * mapping.filter_sets * layer.out_edge
    per_image = sum(input_rows(layer, rows) * inputs + rows * sums for rows in strips(layer, mapping))
    return passes(layer, mapping) * mapping.images * per_image


def streamed_words(layer: ConvShape, mapping: PassMapping) -> int:
    """DRAM words if every pass fetched its inputs and filters again and every output were written once."""
    filter_words = mapping.filters * mapping.channels * layer.kernel**2 * mapping.channel_sets * mapping.filter_sets
    inputs = mapping.channels * mapping.channel_sets * layer.in_edge * mapping.images
    per_strip = sum(input_rows(layer, rows) * inputs + filter_words for rows in strips(layer, mapping))
    outputs = layer.images * layer.groups * layer.filters * layer.out_edge**2
    return passes(layer, mapping) * per_strip + outputs
