// Slot of a shift-add array as slot_array has it with two terms per pass: the format of the weights is chosen at run
// time.
//
// enable     which of the two terms of this pass the weight has
// narrow     exponents of 2 bits instead of 3
// single     weights have one term: the highest exponent is the code for zero
module shift_slot (
    input logic signed [7:0] activation,
    input logic [7:0] code,
    input logic [1:0] enable,
    input logic narrow,
    input logic single,
    output logic signed [17:0] total
);
  logic signed [17:0] terms[2];

  for (genvar k = 0; k < 2; k++) begin : g_term
    logic [2:0] exponent;
    logic negative, zero;
    logic signed [17:0] wide, moved;
    assign exponent = {code[4*k+2] & ~narrow, code[4*k+:2]};
    assign negative = narrow ? code[4*k+2] : code[4*k+3];
    assign zero = ~enable[k] | (single & (exponent == (narrow ? 3'd3 : 3'd7)));
    assign wide = {{10{activation[7]}}, activation};
    assign moved = wide <<< exponent;
    assign terms[k] = zero ? 18'sd0 : negative ? -moved : moved;
  end

  assign total = terms[0] + terms[1];
endmodule
