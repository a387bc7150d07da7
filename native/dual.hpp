// The dual active-set method, for one sample.
//
// From the unconstrained minimum, or from an active set whose multipliers have the right signs, constraints that
// are violated enter one by one; those whose multiplier would change sign leave. The dual objective rises in
// every step, so no set comes twice.
//
// Source: D. Goldfarb and A. Idnani, "A numerically stable dual method for solving strictly convex quadratic
// programs", Mathematical Programming 27 (1983), doi:10.1007/BF02591962; D. Arnström, A. Bemporad,
// D. Axehill, "A dual active-set solver for embedded quadratic programming using recursive LDLᵀ updates", IEEE
// Transactions on Automatic Control (2022), doi:10.1109/TAC.2022.3176430.
#pragma once

#include <limits>

#include "factors.hpp"

namespace decigrad::DECIGRAD_ISA {

constexpr double INFINITE = std::numeric_limits<double>::infinity();

/// The sides of all constraints of a sample: l ≤ Cx ≤ u, and below and above what value they are violated.
struct Sides {
  Vector lower, upper, least, most;
};

class Dual {
 public:
  std::vector<int> set;   // active constraints, in the order of the factor
  std::vector<int> side;  // by constraint: +1 at its upper side, −1 at its lower, 0 inactive; 2: equal sides
  Vector lambda;          // by position in `set`
  int iterations = 0;

  /// Runs from the constraints that `side` marks; false where it finds no solution. `start` is Cx at the
  /// minimum without inequalities.
  bool run(const Factors& f, const Sides& sides, const Vector& start, int limit) {
    f_ = &f;
    sides_ = &sides;
    m_ = f.rows();
    most_ = std::min(m_, f.n - f.rank);
    L_.resize(static_cast<size_t>(most_ + 1) * (most_ + 1));
    t_.resize(most_ + 1);
    rho_.resize(most_ + 1);
    change_.resize(most_ + 1);
    begin(start);
    for (iterations = 0; iterations < limit;) {
      const int j = most_violated();
      if (j == NONE) return true;
      if (j == HOPELESS || !enter(j, limit)) return false;
    }
    return false;
  }

  const Vector& values() const { return r_; }

 private:
  static constexpr int NONE = -1, HOPELESS = -2;
  const Factors* f_ = nullptr;
  const Sides* sides_ = nullptr;
  int m_ = 0, most_ = 0;
  Vector L_, t_, rho_, change_, r_, columns_;
  std::vector<int> wrong_, keep_;

  double* row(int a) { return L_.data() + static_cast<size_t>(a) * (most_ + 1); }
  double target(int w) const { return side[w] < 0 ? sides_->lower[w] : sides_->upper[w]; }

  /// Makes the marked set independent and its multipliers right by leaving constraints out, and solves for it.
  void begin(const Vector& start) {
    for (int w = 0; w < m_; ++w)
      if (sides_->lower[w] == sides_->upper[w]) side[w] = 2;
    factor_marked();
    while (true) {
      const int k = static_cast<int>(set.size());
      lambda.assign(k, 0.0);
      for (int a = 0; a < k; ++a) lambda[a] = start[set[a]] - target(set[a]);
      solve_lower(L_.data(), k, most_ + 1, lambda.data());
      solve_upper(L_.data(), k, most_ + 1, lambda.data());
      wrong_.clear();
      for (int a = k - 1; a >= 0; --a)
        if (side[set[a]] != 2 && lambda[a] * side[set[a]] < 0) wrong_.push_back(a);
      if (wrong_.empty()) break;
      if (4 * static_cast<int>(wrong_.size()) < k) {
        for (int a : wrong_) leave(a);
      } else {
        for (int a : wrong_) side[set[a]] = 0;
        factor_marked();
      }
    }
    r_ = start;
    const int k = static_cast<int>(set.size());
    for (int a = 0; a < k; ++a) change_[a] = -lambda[a];
    add_rows(k, change_.data(), [&](int a) { return f_->gram(set[a]); }, r_.data(), m_);
  }

  /// `set` and its factor from the marked constraints; those that depend on others lose their mark.
  void factor_marked() {
    set.clear();
    for (int w = 0; w < m_; ++w)
      if (side[w]) set.push_back(w);
    const int k = static_cast<int>(set.size());
    if (k > most_) {
      set.clear();
      for (int w = 0; w < m_; ++w)
        if (side[w] && !append(w)) side[w] = 0;
      return;
    }
    for (int a = 0; a < k; ++a) {
      const double* gram = f_->gram(set[a]);
      for (int b = 0; b <= a; ++b) row(a)[b] = gram[set[b]];
    }
    bool whole = true;
    cholesky(L_.data(), k, most_ + 1, columns_, [&](int a, double) { return INDEPENDENT * f_->free[set[a]]; }, [&](int a) {
      side[set[a]] = 0;
      whole = false;
      return true;
    });
    if (whole) return;
    int kept = 0;
    for (int a = 0; a < k; ++a) {
      if (!side[set[a]]) continue;
      for (int b = 0, to = 0; b <= a; ++b)
        if (side[set[b]]) row(kept)[to++] = row(a)[b];
      keep_.push_back(set[a]);
      ++kept;
    }
    set.swap(keep_);
    keep_.clear();
  }

  /// Adds the row of constraint w to the factor unless it depends on the set.
  bool append(int w) {
    const int k = static_cast<int>(set.size());
    if (k >= most_) return false;
    const double* gram = f_->gram(w);
    double* out = row(k);
    for (int a = 0; a < k; ++a) out[a] = gram[set[a]];
    solve_lower(L_.data(), k, most_ + 1, out);
    const double rest = gram[w] - dot(out, out, k);
    if (!(rest > INDEPENDENT * f_->free[w])) return false;
    out[k] = std::sqrt(rest);
    set.push_back(w);
    return true;
  }

  int most_violated() const {
    int found = NONE;
    double worst = 0.0;
    for (int w = 0; w < m_; ++w) {
      if (side[w]) continue;
      if (!(r_[w] > sides_->most[w] || r_[w] < sides_->least[w])) continue;
      const double out = std::max(r_[w] - sides_->upper[w], sides_->lower[w] - r_[w]);
      const double unit = f_->gram(w)[w];
      if (!(unit > INDEPENDENT * f_->free[w])) return HOPELESS;  // the equalities alone say what it is
      const double measure = out * out / unit;
      if (measure > worst) worst = measure, found = w;
    }
    return found;
  }

  /// Brings constraint j into the set; false where it clashes with the set, or steps run out.
  bool enter(int j, int limit) {
    const double* gram = f_->gram(j);
    double mine = 0.0;
    const double sign = r_[j] > sides_->upper[j] ? 1.0 : -1.0;
    const double goal = sign > 0 ? sides_->upper[j] : sides_->lower[j];
    while (iterations++ < limit) {
      const int k = static_cast<int>(set.size());
      for (int a = 0; a < k; ++a) t_[a] = gram[set[a]];
      solve_lower(L_.data(), k, most_ + 1, t_.data());
      const double rest = gram[j] - dot(t_.data(), t_.data(), k);
      const bool independent = k < most_ && rest > INDEPENDENT * f_->free[j];
      std::copy(t_.begin(), t_.begin() + k, rho_.begin());
      solve_upper(L_.data(), k, most_ + 1, rho_.data());
      double step = INFINITE;
      int leaving = -1;
      for (int a = 0; a < k; ++a) {
        const int s = side[set[a]];
        const double fall = sign * rho_[a] * s;
        if (s == 2 || !(fall > 1e-13)) continue;
        const double until = std::max(lambda[a] * s, 0.0) / fall;
        if (until < step) step = until, leaving = a;
      }
      const double full = independent ? std::max(sign * (r_[j] - goal), 0.0) / rest : INFINITE;
      const bool whole = full <= step;
      if (whole) step = full;
      if (!(step < INFINITE)) return false;
      for (int a = 0; a < k; ++a) lambda[a] -= sign * step * rho_[a];
      mine += sign * step;
      if (independent) {
        for (int a = 0; a < k; ++a) change_[a] = sign * step * rho_[a];
        axpy(-sign * step, gram, r_.data(), m_);
        add_rows(k, change_.data(), [&](int a) { return f_->gram(set[a]); }, r_.data(), m_);
      }
      if (whole) {
        std::copy(t_.begin(), t_.begin() + k, row(k));
        row(k)[k] = std::sqrt(rest);
        set.push_back(j);
        lambda.push_back(mine);
        side[j] = sign > 0 ? 1 : -1;
        return true;
      }
      leave(leaving);
    }
    return false;
  }

  /// Takes position p out of the set and restores the triangle by rotations.
  void leave(int p) {
    const int k = static_cast<int>(set.size());
    side[set[p]] = 0;
    for (int a = p + 1; a < k; ++a) std::copy(row(a), row(a) + a + 1, row(a - 1));
    for (int a = p; a < k - 1; ++a) {
      double *mine = row(a), length = std::hypot(mine[a], mine[a + 1]);
      const double c = mine[a] / length, s = mine[a + 1] / length;
      mine[a] = length;
      for (int b = a + 1; b < k - 1; ++b) {
        double* other = row(b);
        const double left = other[a], right = other[a + 1];
        other[a] = c * left + s * right;
        other[a + 1] = c * right - s * left;
      }
    }
    set.erase(set.begin() + p);
    lambda.erase(lambda.begin() + p);
  }
};

}  // namespace decigrad::DECIGRAD_ISA
