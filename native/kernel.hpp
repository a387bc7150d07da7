// What the kernel offers, once for each set of instructions that it is compiled for.
#pragma once

#include "program.hpp"

#define DECIGRAD_KERNEL(ISA)                                                                                           \
  namespace decigrad::ISA {                                                                                            \
  /* Solves all samples. shift > 0: P is semidefinite, by the proximal point method with that epsilon. warm: */        \
  /* `active` and `fixed` of the results hold the sets to start from. */                                               \
  void solve(const Programs&, double shift, bool warm, int limit, int threads, const Results&);                        \
  /* v = K+ rhs by sample, [B, 2n + me + mi], at the active sets [B, mi] and [B, n]; `ok`: 0 not solved, 1, 2 dependent. */ \
  void sensitivities(const Programs&, const bool* active, const int8_t* fixed, const Leaf& rhs, int threads, double* v, \
                     int8_t* ok);                                                                                        \
  void forget();                                                                                                       \
  }

DECIGRAD_KERNEL(baseline)
DECIGRAD_KERNEL(avx2)
