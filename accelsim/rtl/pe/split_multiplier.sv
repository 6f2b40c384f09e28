// Multiplier of 8 × 8 bits that splits into two of 8 × 4: `split_multiply` of engine_pkg with ports as narrow as its
// values.  Split: `low` and `high` are products of their own.  Whole: `low` is the product, `high` is 0.
module split_multiplier (
    input logic signed [7:0] activation_low,
    input logic signed [7:0] activation_high,
    input logic [7:0] weight,
    input logic split,
    output logic signed [15:0] low,
    output logic signed [11:0] high
);
  logic signed [4:0] field_low;
  logic signed [3:0] field_high;
  logic signed [15:0] product_low, product_high;

  assign field_low = {split & weight[3], weight[3:0]};
  assign field_high = weight[7:4];
  assign product_low = activation_low * field_low;
  assign product_high = activation_high * field_high;
  assign low = split ? product_low : product_low + (product_high <<< 4);
  assign high = split ? product_high[11:0] : 12'sd0;
endmodule
