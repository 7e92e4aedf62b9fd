//! Tests of placement: vectors that another language reproduces, movement, weights, the order of alternatives.
