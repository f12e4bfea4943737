// Opcodes whose family depends on their type.
#pragma once

#include "tests/cuda_simulator/decoder.h"

namespace sprocket::cuda_simulator {

// add, sub, mul, mad, div, rem, abs, neg, min, max; the type is taken from the modifiers already.
void decode_integer_arithmetic(Decoder& decoder, Modifiers& modifiers, Type type);
void decode_float_arithmetic(Decoder& decoder, Modifiers& modifiers, Type type);

// barrier.cluster.
void decode_cluster_barrier(Decoder& decoder, Modifiers& modifiers);
// The forms of cp.async.bulk, after "cp.async.bulk" or "cp.reduce.async.bulk" was taken.
void decode_bulk_copy(Decoder& decoder, Modifiers& modifiers, bool reduces);

}  // namespace sprocket::cuda_simulator
