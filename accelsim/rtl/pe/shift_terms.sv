// Slot of a shift-add array for a fixed format: TERMS signed terms of sign and 3-bit exponent, `shift_term` of
// engine_pkg.  With one term the highest exponent is the code for zero.
//
// NEGATE_FIRST   0: shift, then negate, as engine_pkg writes it; 1: negate the 8-bit activation, then shift
// total          18 bits, of which the upper ones repeat the sign
module shift_terms #(
    parameter int TERMS = 1,
    parameter int NEGATE_FIRST = 0
) (
    input logic signed [7:0] activation,
    input logic [4*TERMS-1:0] code,
    output logic signed [17:0] total
);
  logic signed [17:0] terms[TERMS];

  for (genvar k = 0; k < TERMS; k++) begin : g_term
    logic [2:0] exponent;
    logic negative, zero;
    assign exponent = code[4*k+:3];
    assign negative = code[4*k+3];
    assign zero = TERMS == 1 && exponent == 3'd7;
    if (NEGATE_FIRST != 0) begin : g_negate_first
      logic signed [8:0] operand;
      logic signed [17:0] wide;
      assign operand = zero ? 9'sd0 : negative ? -{activation[7], activation} : {activation[7], activation};
      assign wide = {{9{operand[8]}}, operand};
      assign terms[k] = wide <<< exponent;
    end else begin : g_shift_first
      logic signed [17:0] wide, moved;
      assign wide = {{10{activation[7]}}, activation};
      assign moved = wide <<< exponent;
      assign terms[k] = zero ? 18'sd0 : negative ? -moved : moved;
    end
  end

  if (TERMS == 1) begin : g_one
    assign total = terms[0];
  end else begin : g_two
    assign total = terms[0] + terms[1];
  end
endmodule
