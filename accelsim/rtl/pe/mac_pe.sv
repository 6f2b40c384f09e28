// Processing element of a multiplier array: two operand registers, multiplier, accumulator.
module mac_pe #(
    parameter int A_BITS = 8,
    parameter int B_BITS = 8,
    parameter int SUM_BITS = 24
) (
    input logic clk,
    input logic first,
    input logic signed [A_BITS-1:0] a,
    input logic signed [B_BITS-1:0] b,
    output logic signed [SUM_BITS-1:0] sum
);
  logic signed [A_BITS-1:0] held_a;
  logic signed [B_BITS-1:0] held_b;
  logic signed [A_BITS+B_BITS-1:0] product;

  always_ff @(posedge clk) begin
    held_a <= a;
    held_b <= b;
  end

  multiplier #(.A_BITS(A_BITS), .B_BITS(B_BITS)) slot (.a(held_a), .b(held_b), .product(product));
  accumulator #(.BITS(SUM_BITS), .VALUE_BITS(A_BITS + B_BITS)) total (.clk, .first, .value(product), .sum);
endmodule
