// Accumulators: two banks, one filling while the other drains.
//
// sums, tag     sums of one operand word; added at the edge that ends the cycle, loaded by the first word of a block
// drained       the output stage has taken the last slot of `bank_drained` in this cycle
// blocks        registered, per bank: tag of the finished block that waits for the output stage
// hazard        sticky: a word arrived for a bank that was still draining
module accumulators
  import engine_pkg::*;
#(
    parameter int N_SUMS = 32
) (
    input logic clk,
    input logic rst,
    input logic signed [31:0] sums[N_SUMS],
    input tag_t tag,
    input logic drained,
    input logic bank_drained,
    output logic signed [31:0] bank0[N_SUMS],
    output logic signed [31:0] bank1[N_SUMS],
    output tag_t blocks[2],
    output logic hazard
);
  tag_t next_blocks[2];

  always_comb begin
    next_blocks = blocks;
    if (drained) next_blocks[bank_drained].valid = 1'b0;
    if (tag.valid && tag.last) next_blocks[tag.bank] = tag;
    if (rst) begin
      next_blocks[0].valid = 1'b0;
      next_blocks[1].valid = 1'b0;
    end
  end

  always_ff @(posedge clk) begin
    // Blocking, because non-blocking loops over arrays are not supported; only combinational blocks read the banks.
    // verilator lint_off BLKSEQ
    if (tag.valid)
      for (int n = 0; n < N_SUMS; n++)
        if (tag.bank) bank1[n] = tag.first ? sums[n] : bank1[n] + sums[n];
        else bank0[n] = tag.first ? sums[n] : bank0[n] + sums[n];
    // verilator lint_on BLKSEQ
    blocks <= next_blocks;
    if (rst) hazard <= 1'b0;
    // The last slot of a block may leave in the cycle in which its bank is loaded again.
    else if (tag.valid && blocks[tag.bank].valid && !(drained && bank_drained == tag.bank)) hazard <= 1'b1;
  end
endmodule
