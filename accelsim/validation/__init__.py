"""Comparisons with closed forms, published silicon and the register-transfer models of others: `accelsim validate`."""
