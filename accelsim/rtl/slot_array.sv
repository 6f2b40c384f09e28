// Slot array: multipliers or shift-adders, an adder tree per position and lane, and the depthwise bypass.
//
// activations, weights, tag   an operand word (see operand_registers.sv)
// sums, sums_tag   registered, 1 + TREE_LEVELS cycles later: a sum per [position][channel], depthwise a product per
//                  [input][position]; the bypass is as long as the tree
module slot_array
  import engine_pkg::*;
#(
    parameter int SHIFT_ADD = 0,
    parameter int LANES = 2,
    parameter int LANE_WIDTH = 4,
    parameter int PIXEL_GROUPS = 2,
    parameter int PRODUCTS = 2,
    parameter int TERMS = 2,
    parameter int DEPTHWISE = 1,
    parameter int POSITIONS = 8,
    parameter int N_ACTIVATIONS = 32,
    parameter int N_SUMS = 32
) (
    input logic clk,
    input logic rst,
    input logic signed [ACTIVATION_BITS-1:0] activations[N_ACTIVATIONS],
    input logic [WEIGHT_BITS-1:0] weights[LANES*PRODUCTS*LANE_WIDTH],
    input tag_t tag,
    output logic signed [31:0] sums[N_SUMS],
    output tag_t sums_tag
);
  localparam int LEVELS = $clog2(LANE_WIDTH);
  localparam int LEAVES = 1 << LEVELS;
  localparam int TREES = PIXEL_GROUPS * LANES * PRODUCTS;

  // Stage 0 holds products, stage k what level k of the tree adds; bypass[k] delays depthwise products alike.
  logic signed [31:0] tree[LEVELS+1][TREES*LEAVES];
  logic signed [PRODUCT_BITS-1:0] bypass[LEVELS+1][N_SUMS];
  products_t products[PIXEL_GROUPS*LANES*LANE_WIDTH];  // by [position][lane][input]
  tag_t tags[LEVELS+1], next_tags[LEVELS+1];
  int first, at;
  logic [7:0] packed_weight;
  logic [WEIGHT_BITS-1:0] code;

  // verilator lint_off UNUSEDSIGNAL
  // Products of one slot; the weight register of a multiplier holds two fields when it is split.
  function automatic products_t slot(logic signed [7:0] low, logic signed [7:0] high, logic [7:0] weight,
                                     logic [WEIGHT_BITS-1:0] shift_code, tag_t t);
    // verilator lint_on UNUSEDSIGNAL
    logic signed [PRODUCT_BITS-1:0] total;
    slot = '0;
    if (SHIFT_ADD != 0) begin
      total = '0;
      for (int k = 0; k < TERMS; k++)
        if (int'(t.term_pass) * TERMS + k < int'(t.tile.terms))
          total = total + shift_term(low, 4'(shift_code >> (4 * (int'(t.term_pass) * TERMS + k))),
                                     t.tile.exponent_bits, t.tile.terms == 1);
      slot.low = total;
    end else slot = split_multiply(low, high, weight, t.tile.split);
  endfunction

  // Products of a multiplier.  Depthwise: one weight, neighbouring positions.  Else: one activation, neighbouring
  // channels.
  always_comb begin
    packed_weight = '0;
    code = '0;
    first = 0;
    at = 0;
    for (int n = 0; n < PIXEL_GROUPS * LANES * LANE_WIDTH; n++) products[n] = '0;
    if (tag.valid)
      for (int i = 0; i < PIXEL_GROUPS; i++)
        for (int l = 0; l < LANES; l++)
          for (int x = 0; x < LANE_WIDTH; x++) begin
            if (DEPTHWISE != 0 && tag.tile.depthwise) begin
              first = x * POSITIONS + (i * LANES + l) * (tag.tile.split ? 2 : 1);
              at = first + (tag.tile.split ? 1 : 0);
              code = weights[x];
              packed_weight = tag.tile.split ? {code[3:0], code[3:0]} : code[7:0];
            end else begin
              at = (tag.tile.split ? 2 * l : l) * LANE_WIDTH + x;
              code = weights[at];
              packed_weight = tag.tile.split ? {4'(weights[at+LANE_WIDTH]), code[3:0]} : code[7:0];
              first = i * LANE_WIDTH + x;
              at = first;
            end
            products[(i*LANES+l)*LANE_WIDTH+x] = slot(activations[first], activations[at], packed_weight, code, tag);
          end
  end

  always_comb begin
    next_tags[0] = tag;
    for (int k = 0; k < LEVELS; k++) next_tags[k+1] = tags[k];
    if (rst) for (int k = 0; k <= LEVELS; k++) next_tags[k].valid = 1'b0;
  end

  // A tree belongs to (position, lane, product); channel = lane · products in use + product.
  always_comb begin
    for (int n = 0; n < N_SUMS; n++) sums[n] = '0;
    if (DEPTHWISE != 0 && sums_tag.tile.depthwise) for (int n = 0; n < N_SUMS; n++) sums[n] = 32'(bypass[LEVELS][n]);
    else
      for (int i = 0; i < PIXEL_GROUPS; i++)
        for (int l = 0; l < LANES; l++)
          for (int p = 0; p < (sums_tag.tile.split ? 2 : 1); p++)
            sums[i*LANES*PRODUCTS+l*(sums_tag.tile.split?2 : 1)+p] = tree[LEVELS][((i*LANES+l)*PRODUCTS+p)*LEAVES];
  end
  assign sums_tag = tags[LEVELS];

  // Blocking, last stage first, because non-blocking loops over arrays are not supported; only this block and
  // combinational ones read these registers.
  // verilator lint_off BLKSEQ
  always_ff @(posedge clk) begin
    for (int k = LEVELS - 1; k >= 0; k--)
      if (tags[k].valid) begin
        if (DEPTHWISE != 0 && tags[k].tile.depthwise) for (int n = 0; n < N_SUMS; n++) bypass[k+1][n] = bypass[k][n];
        else
          for (int t = 0; t < TREES; t++)
            for (int x = 0; x < LEAVES >> (k + 1); x++)
              tree[k+1][t*LEAVES+x] = tree[k][t*LEAVES+2*x] + tree[k][t*LEAVES+2*x+1];
      end
    if (tag.valid)
      for (int i = 0; i < PIXEL_GROUPS * LANES; i++)
        for (int x = 0; x < LANE_WIDTH; x++)
          if (DEPTHWISE != 0 && tag.tile.depthwise) begin
            bypass[0][x*POSITIONS+i*(tag.tile.split?2 : 1)] = products[i*LANE_WIDTH+x].low;
            if (tag.tile.split) bypass[0][x*POSITIONS+2*i+1] = products[i*LANE_WIDTH+x].high;
          end else begin
            tree[0][i*PRODUCTS*LEAVES+x] = 32'(products[i*LANE_WIDTH+x].low);
            if (PRODUCTS == 2) tree[0][(i*PRODUCTS+PRODUCTS-1)*LEAVES+x] = 32'(products[i*LANE_WIDTH+x].high);
          end
    tags <= next_tags;
  end
  // verilator lint_on BLKSEQ
endmodule
