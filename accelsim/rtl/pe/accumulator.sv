// Accumulator register: the first value of a sum loads it, the others are added.
module accumulator #(
    parameter int BITS = 24,
    parameter int VALUE_BITS = 16
) (
    input logic clk,
    input logic first,
    input logic signed [VALUE_BITS-1:0] value,
    output logic signed [BITS-1:0] sum
);
  logic signed [BITS-1:0] base, wide;
  assign base = first ? '0 : sum;
  assign wide = BITS'(value);
  always_ff @(posedge clk) sum <= base + wide;
endmodule
