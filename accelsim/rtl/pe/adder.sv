// Adder of an adder tree.
module adder #(
    parameter int BITS = 24
) (
    input logic signed [BITS-1:0] a,
    input logic signed [BITS-1:0] b,
    output logic signed [BITS-1:0] sum
);
  assign sum = a + b;
endmodule
