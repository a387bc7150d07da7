// A batch of programs as it comes from Python or XLA, and what is returned for it.
//
//     minimize ½xᵀPx + qᵀx   subject to   Ax = b,  Gx ≤ h,  lb ≤ x ≤ ub
//
// A leaf is shared by the batch (stride 0) or has a row for each sample.
#pragma once

#include <cstddef>
#include <cstdint>

namespace decigrad {

struct Leaf {
  const double* data = nullptr;
  size_t stride = 0;
  const double* at(size_t i) const { return data + i * stride; }
};

/// How P is given: a matrix, its diagonal, or diag(d) + Fᵀ diag(v) F with F [k, n].
enum class Kind : int { Dense = 0, Diagonal = 1, LowRank = 2 };

struct Programs {
  Kind kind = Kind::Dense;
  int n = 0, me = 0, mi = 0, rank = 0;
  size_t batch = 0;
  Leaf P, factor, weight;  // P is the matrix or the diagonal
  Leaf q, A, b, G, h, lb, ub;

  bool shared() const { return !(P.stride || factor.stride || weight.stride || A.stride || G.stride); }
  size_t size_of_P() const { return kind == Kind::Dense ? static_cast<size_t>(n) * n : n; }
};

/// What is said of a sample. All but Optimal go on to the caller, who settles them otherwise.
enum Verdict : int32_t {
  Optimal = 0,     // verified, and its active set is plainly that of the solution
  Unsettled = 1,   // verified, but constraints meet without a multiplier: which are active needs a closer look
  Unsolved = 2,    // infeasible, unbounded, cycling, or not accurate enough
  Unsuitable = 3,  // P is not positive definite, or the data are not numbers
};

struct Results {
  double *x, *y, *z, *w;   // [B, n], [B, me], [B, mi], [B, n]
  bool* active;            // [B, mi]
  int8_t* fixed;           // [B, n]
  int32_t *verdict, *iterations;
};

}  // namespace decigrad
