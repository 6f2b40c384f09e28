// One term of sign and 3-bit exponent for an accumulator with a carry input: the value is `term` + `carry`.
module folded_term (
    input logic signed [7:0] activation,
    input logic [3:0] code,
    output logic signed [15:0] term,
    output logic carry
);
  logic signed [15:0] wide, moved;
  assign carry = code[3];
  assign wide = {{8{activation[7]}}, activation};
  assign moved = code[2:0] == 3'd7 ? 16'sd0 : wide <<< code[2:0];
  assign term = carry ? ~moved : moved;
endmodule
