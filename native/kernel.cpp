// The kernel, compiled once for each set of instructions (DECIGRAD_ISA).
#include "kernel.hpp"

#include "batch.hpp"

namespace decigrad::DECIGRAD_ISA {

void solve(const Programs& p, double shift, bool warm, int limit, int threads, const Results& out) {
  solve_batch(p, shift, warm, limit, threads, out);
}

void sensitivities(const Programs& p, const bool* active, const int8_t* fixed, const Leaf& rhs, int threads, double* v, int8_t* ok) {
  sensitivities_batch(p, active, fixed, rhs, threads, v, ok);
}

void forget() { memory().clear(); }

}  // namespace decigrad::DECIGRAD_ISA
