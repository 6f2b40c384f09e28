// Processing element of a shift-add array with one term per weight: two operand registers, shifter, accumulator.  The
// sign is folded into the accumulator: it adds the one's complement of a negative term, and 1 by its carry.
module shift_pe #(
    parameter int SUM_BITS = 24
) (
    input logic clk,
    input logic first,
    input logic signed [7:0] activation,
    input logic [3:0] code,
    output logic signed [SUM_BITS-1:0] sum
);
  logic signed [7:0] held_activation;
  logic [3:0] held_code;
  logic signed [15:0] term;
  logic carry;
  logic signed [SUM_BITS-1:0] base, wide;

  always_ff @(posedge clk) begin
    held_activation <= activation;
    held_code <= code;
  end

  folded_term slot (.activation(held_activation), .code(held_code), .term, .carry);
  assign base = first ? '0 : sum;
  assign wide = SUM_BITS'(term);
  always_ff @(posedge clk) sum <= base + wide + SUM_BITS'(carry);
endmodule
