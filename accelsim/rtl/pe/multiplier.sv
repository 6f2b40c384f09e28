// Signed multiplier: one slot of a multiplier array.
module multiplier #(
    parameter int A_BITS = 8,
    parameter int B_BITS = 8
) (
    input logic signed [A_BITS-1:0] a,
    input logic signed [B_BITS-1:0] b,
    output logic signed [A_BITS+B_BITS-1:0] product
);
  assign product = a * b;
endmodule
