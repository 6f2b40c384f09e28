"""Sites: the tensors and weights of a vision transformer that Q-ViT quantizes, and how each is cut into heads.

Source: Q-ViT, sections 3 and 4, and the released code (zhexinli/Q-ViT-DeiT).  Heads are cut where they belong: outputs
of q, k and v, inputs of the projection.  The released code cuts the transposed axes of the weights (inputs of q, k and
v, outputs of the projection): `head_axis="code"`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from accelsim.ir import OpKind, Workload
from accelsim.problems import AccelsimError, Problem
from quant.learned.structure import Attention, attentions

STORED, WEIGHTS = "stored", "weights"
HEAD, LAYER = "head", "layer"
GRANULARITIES = (HEAD, LAYER)
BY_HEAD, BY_CODE = "head", "code"
HEAD_AXES = (BY_HEAD, BY_CODE)
OFFSET, UNSIGNED, SIGNED = "offset", "unsigned", "signed"
GELU_RANGES = (OFFSET, UNSIGNED, SIGNED)
END_BITS = 8
# What a study can leave in floating point: everything of the attentions, the values after GELU.
MSA, GELU = "msa", "gelu"
COMPONENTS = (MSA, GELU)


@dataclass(frozen=True)
class Site:
    """A quantized tensor ("stored/…", by the tensor) or weight ("weights/…", by the op).

    It has `tables` quantizers side by side (q, k and v of a qkv layer: 3), each with widths of `heads` equal parts; the
    parts of a quantizer share its scales.  Its last `dims` axes are seen as `tail` (all as they are: ()), against which
    a number per part broadcasts in the shape `parts`.  `end`: of the first or last layer, which has 8 bits at the
    start; `pinned`: it keeps them.
    """

    name: str
    kind: str
    of: str
    tables: int = 1
    heads: int = 1
    dims: int = 0
    tail: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    signed: bool = True
    offset: bool = False
    end: bool = False
    pinned: bool = False

    def seen(self, value: Tensor) -> Tensor:
        """A value with its parts on axes of their own."""
        return value.reshape(*value.shape[: value.dim() - self.dims], *self.tail) if self.tail else value


@dataclass(frozen=True)
class SiteOptions:
    """How a network is cut into sites.

    `granularity`: bits per "head" or per "layer" (a tensor).  `head_axis`: "head", or "code" as released.  `gelu`: the
    range of the values after GELU, with an "offset", "unsigned" or "signed".  `floating`: components that stay in
    floating point.  `ends_learned`: the first and the last layer learn bits too, from 8 (the code's `mixpre`).
    """

    granularity: str = HEAD
    head_axis: str = BY_HEAD
    gelu: str = OFFSET
    floating: tuple[str, ...] = field(default=())
    ends_learned: bool = False

    def __post_init__(self) -> None:
        known = {"granularity": GRANULARITIES, "head_axis": HEAD_AXES, "gelu": GELU_RANGES}
        wrong = [
            (name, getattr(self, name), names) for name, names in known.items() if getattr(self, name) not in names
        ]
        wrong += [("floating", one, COMPONENTS) for one in self.floating if one not in COMPONENTS]
        if wrong:
            raise AccelsimError(
                [Problem(f"learned bits: {a}", f"unknown {b!r}", f"one of {', '.join(c)}") for a, b, c in wrong]
            )


def sites_of(workload: Workload, options: SiteOptions | None = None) -> dict[str, Site]:
    """All sites by name, in the order of the ops.  Raises AccelsimError for a network without such attentions."""
    chosen = SiteOptions() if options is None else options
    found: dict[str, Site] = {}
    for one in attentions(workload):
        found |= {site.name: site for site in _of_attention(workload, one, chosen)}
    layers = [op for op in workload.ops if op.kind is OpKind.CONV]
    ends = (layers[0].name, layers[-1].name)
    for op in layers:
        end = op.name in ends
        pinned = end and not chosen.ends_learned
        roots = workload.storage_of(op.inputs[0])
        if len(roots) > 1:
            what = f"reads {' and '.join(roots)} as one tensor, whose steps would differ"
            raise AccelsimError(Problem(f"network {workload.name}: {op.name}", what, "layers that read one tensor"))
        for kind, of in ((STORED, roots[0]), (WEIGHTS, op.name)):
            found.setdefault(f"{kind}/{of}", Site(f"{kind}/{of}", kind, of, end=end, pinned=pinned))
    for of in _after_gelu(workload):
        if f"stored/{of}" in found:
            signed, offset = chosen.gelu == SIGNED, chosen.gelu == OFFSET
            found[f"stored/{of}"] = Site(f"stored/{of}", STORED, of, signed=signed, offset=offset)
    left_out = _floating(workload, chosen)
    return {name: site for name, site in found.items() if name not in left_out}


def _floating(workload: Workload, options: SiteOptions) -> set[str]:
    names: set[str] = set()
    if MSA in options.floating:
        for one in attentions(workload):
            ops = [workload.op_by_name[name] for name in (one.qkv, one.softmax, one.values)]
            roots = workload.storage_of(ops[0].inputs[0])
            names |= {f"stored/{of}" for of in (*roots, *(op.output for op in ops))}
            names |= {f"weights/{of}" for of in (one.qkv, one.proj)}
    if GELU in options.floating:
        names |= {f"stored/{of}" for of in _after_gelu(workload)}
    return names


def _after_gelu(workload: Workload) -> list[str]:
    """Tensors that a GELU makes, in the output stage or as an op of its own."""
    return [op.output for op in workload.ops if "gelu" in (op.activation, op.op_class)]


def _of_attention(workload: Workload, one: Attention, options: SiteOptions) -> list[Site]:
    heads, dim = one.heads, one.head_dim
    width = heads * dim
    qkv, softmax, values = (workload.op_by_name[name].output for name in (one.qkv, one.softmax, one.values))
    if options.granularity == LAYER:
        return [
            Site(f"stored/{qkv}", STORED, qkv, 3, 1, 1, (3, width), (3, 1)),
            Site(f"weights/{one.qkv}", WEIGHTS, one.qkv, 3, 1, 2, (3, width, width), (3, 1, 1)),
            Site(f"stored/{softmax}", STORED, softmax, signed=False),
            Site(f"stored/{values}", STORED, values),
            Site(f"weights/{one.proj}", WEIGHTS, one.proj),
        ]
    rows = Site(f"weights/{one.qkv}", WEIGHTS, one.qkv, 3, heads, 2, (3, heads, dim, width), (3, heads, 1, 1))
    columns = Site(f"weights/{one.proj}", WEIGHTS, one.proj, 1, heads, 1, (heads, dim), (heads, 1))
    if options.head_axis == BY_CODE:
        rows = Site(rows.name, WEIGHTS, one.qkv, 3, heads, 2, (3, width, heads, dim), (3, 1, heads, 1))
        columns = Site(columns.name, WEIGHTS, one.proj, 1, heads, 2, (heads, dim, width), (heads, 1, 1))
    return [
        Site(f"stored/{qkv}", STORED, qkv, 3, heads, 1, (3, heads, dim), (3, heads, 1)),
        rows,
        Site(f"stored/{softmax}", STORED, softmax, 1, heads, parts=(heads, 1, 1), signed=False),
        Site(f"stored/{values}", STORED, values, 1, heads, parts=(heads, 1, 1)),
        columns,
    ]
