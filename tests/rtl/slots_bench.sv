// Every operand of the slots in rtl/pe against the functions of engine_pkg that slot_array calls.
module slots_bench;
  import engine_pkg::*;
  logic [7:0] a, b, weight;
  logic split, narrow, single;
  logic [1:0] enable;
  logic signed [15:0] low;
  logic signed [11:0] high;
  logic signed [PRODUCT_BITS-1:0] one, one_early, two, two_early, any_format;
  products_t expected;
  logic signed [PRODUCT_BITS-1:0] total;
  int differ, cases;

  split_multiplier multiplier_slot (.activation_low(a), .activation_high(b), .weight, .split, .low, .high);
  shift_terms #(.TERMS(1), .NEGATE_FIRST(0)) one_slot (.activation(a), .code(weight[3:0]), .total(one));
  shift_terms #(.TERMS(1), .NEGATE_FIRST(1)) one_early_slot (.activation(a), .code(weight[3:0]), .total(one_early));
  shift_terms #(.TERMS(2), .NEGATE_FIRST(0)) two_slot (.activation(a), .code(weight), .total(two));
  shift_terms #(.TERMS(2), .NEGATE_FIRST(1)) two_early_slot (.activation(a), .code(weight), .total(two_early));
  shift_slot any_slot (.activation(a), .code(weight), .enable, .narrow, .single, .total(any_format));

  function automatic logic signed [PRODUCT_BITS-1:0] sum(int terms, logic [1:0] bits, logic one_term);
    sum = '0;
    for (int k = 0; k < 2; k++)
      if (k < terms) sum = sum + shift_term(a, 4'(weight >> (4 * k)), bits, one_term);
  endfunction

  task automatic compare(logic same);
    cases = cases + 1;
    if (!same) differ = differ + 1;
  endtask

  initial begin
    {differ, cases} = '0;
    for (int x = 0; x < 256; x++)
      for (int w = 0; w < 256; w++) begin
        {a, weight} = {8'(x), 8'(w)};
        for (int s = 0; s < 2; s++)
          for (int y = 0; y < 256; y += 4) begin
            split = s != 0;
            b = split ? 8'(y + (x & 3)) : a;
            #1;
            expected = split_multiply(a, b, weight, split);
            compare(PRODUCT_BITS'(low) == expected.low && PRODUCT_BITS'(high) == expected.high);
          end
        compare(one == sum(1, 2'd3, 1'b1));
        compare(one_early == one);
        compare(two == sum(2, 2'd3, 1'b0));
        compare(two_early == two);
        for (int f = 0; f < 16; f++) begin
          {single, narrow} = 2'(f);
          enable = f[3] ? 2'b11 : f[2] ? 2'b01 : 2'b00;
          #1;
          total = sum(f[3] ? 2 : f[2] ? 1 : 0, narrow ? 2'd2 : 2'd3, single);
          compare(any_format == total);
        end
      end
    $display("differ %0d of %0d", differ, cases);
    $finish;
  end
endmodule
