// The KKT system of a fixed active set, and its solution for any right-hand side:
//
//     P dx + Aᵀdy + C_Wᵀdλ = ρ₁,     A dx = ρ₂,     C_W dx = ρ₃
//
// One routine serves the primal solution, its refinement, and forward and adjoint sensitivities. It works in
// the space of the active constraints (K_WW), or, where fewer variables are free than constraints are active, in
// that of the free variables (P_FF and the Schur complement of the rows on it).
#pragma once

#include <limits>

#include "factors.hpp"

namespace decigrad::DECIGRAD_ISA {

struct System {
  const Factors* f = nullptr;
  const double *P = nullptr, *A = nullptr, *G = nullptr;  // P: H as a matrix
  std::vector<int> set;    // independent active constraints
  std::vector<int> extra;  // active constraints that depend on those: C_e = Σ α C_w + Σ β A
  bool primal = false;

  /// Factors the system of `active`, in ascending order; false where its constraints are dependent.
  bool factor(const std::vector<int>& active) {
    set = active;
    extra.clear();
    const int k = static_cast<int>(set.size()), n = f->n;
    if (k > n - f->rank) return false;
    int held = 0;
    for (int w : set) held += w >= f->mi;
    const int open = n - held, rows = f->rank + (k - held);
    primal = f->rank == f->me && open >= rows && 2 * (open + rows) < k;
    return primal ? factor_free(held) : factor_active();
  }

  /// The same for constraints that may be dependent: those that depend on earlier ones become `extra`.
  /// `shares`: as `solve` and `shorten` need where there are any.
  void factor_any(const std::vector<int>& active, bool shares = true) {
    const int all = static_cast<int>(active.size()), most = f->n - f->rank;
    set = active;
    extra.clear();
    primal = false;
    load_gram();
    // Beyond `most` constraints depend on those before, whatever rounding makes of the pivot.
    auto least = [&](int a, double) {
      return a - static_cast<int>(extra.size()) < most ? INDEPENDENT * f->free[active[a]] : std::numeric_limits<double>::infinity();
    };
    cholesky(L_.data(), all, all, columns_, least, [&](int a) { return extra.push_back(active[a]), true; });
    if (extra.empty()) return;
    set.clear();
    kept_.clear();
    for (int a = 0, e = 0; a < all; ++a) {
      if (e < static_cast<int>(extra.size()) && extra[e] == active[a]) {
        ++e;
        continue;
      }
      set.push_back(active[a]);
      kept_.push_back(a);
    }
    const int k = static_cast<int>(set.size());
    for (int a = 0; a < k; ++a)
      for (int b = 0; b <= a; ++b) L_[static_cast<size_t>(a) * k + b] = L_[static_cast<size_t>(kept_[a]) * all + kept_[b]];
    if (shares) find_null();
  }

  /// The factor of `known`, whose constraints are independent, and of `more`, which may depend on them.
  void extend(const System& known, const std::vector<int>& more) {
    int k = static_cast<int>(known.set.size());
    const int all = k + static_cast<int>(more.size()), most = f->n - f->rank;
    set = known.set;
    extra.clear();
    primal = false;
    L_.resize(static_cast<size_t>(all) * all);
    for (int a = 0; a < k; ++a) std::copy_n(known.L_.data() + static_cast<size_t>(a) * k, a + 1, L_.data() + static_cast<size_t>(a) * all);
    for (int w : more) {
      double* row = L_.data() + static_cast<size_t>(k) * all;
      const double* gram = f->gram(w);
      for (int a = 0; a < k; ++a) row[a] = gram[set[a]];
      solve_lower(L_.data(), k, all, row);
      const double rest = gram[w] - dot(row, row, k);
      if (k == most || !(rest > INDEPENDENT * f->free[w])) {
        extra.push_back(w);
        continue;
      }
      row[k++] = std::sqrt(rest);
      set.push_back(w);
    }
    for (int a = 1; a < k; ++a) std::copy_n(L_.data() + static_cast<size_t>(a) * all, a + 1, L_.data() + static_cast<size_t>(a) * k);
    if (!extra.empty()) find_null();
  }

  /// dx and dλ of the system whose solution without active constraints is `start`, with C_W dx = ρ₃. After
  /// `factor`, and where the system is not `primal`.
  void answer(const double* start, const double* r3, double* dx, double* dl) {
    const int k = static_cast<int>(set.size());
    for (int a = 0; a < k; ++a) dl[a] = f->value(set[a], start, G) - r3[a];
    solve_lower(L_.data(), k, k, dl);
    solve_upper(L_.data(), k, k, dl);
    pull_.resize(k);
    for (int a = 0; a < k; ++a) pull_[a] = -dl[a];
    std::copy(start, start + f->n, dx);
    add_rows(k, pull_.data(), [&](int a) { return f->answer(set[a]); }, dx, f->n);
  }

  /// (dx, dy, dλ) for (ρ₁, ρ₂, ρ₃); ρ₃ and dλ are in the order of `set` and then `extra`. Where constraints are
  /// dependent, dy and dλ are together least in norm.
  void solve(const double* r1, const double* r2, const double* r3, double* dx, double* dy, double* dl) {
    primal ? solve_free(r1, r2, r3, dx, dy, dl) : solve_active(r1, r2, r3, dx, dy, dl);
    std::fill_n(dl + set.size(), extra.size(), 0.0);
    shorten(dy, dl);
  }

  /// Takes from multipliers what no force comes of, so that they are least in norm.
  void shorten(double* dy, double* dl) {
    const int me = f->me, k = static_cast<int>(set.size() + extra.size()), e = static_cast<int>(extra.size());
    if (!f->spread.empty()) {
      part_.resize(me);
      rows_times(f->spread.data(), me, me, dy, part_.data());
      std::copy(part_.begin(), part_.end(), dy);
    }
    if (!e) return;
    part_.resize(e);
    for (int t = 0; t < e; ++t) {
      const double* row = null_.data() + static_cast<size_t>(t) * (me + k);
      part_[t] = dot(row, dy, me) + dot(row + me, dl, k);
    }
    solve_lower(null_gram_.data(), e, e, part_.data());
    solve_upper(null_gram_.data(), e, e, part_.data());
    for (int t = 0; t < e; ++t) {
      const double* row = null_.data() + static_cast<size_t>(t) * (me + k);
      axpy(-part_[t], row, dy, me);
      axpy(-part_[t], row + me, dl, k);
    }
  }

 private:
  Vector L_, rows_, T_, part_, rhs_, pull_, columns_;
  std::vector<int> free_, position_, general_, kept_;

  Vector null_, null_gram_;  // rows (β, α, −1 of one extra), and the factor of their products

  void find_null() {
    const int me = f->me, k = static_cast<int>(set.size()), e = static_cast<int>(extra.size());
    null_.assign(static_cast<size_t>(e) * (me + k + e), 0.0);
    for (int t = 0; t < e; ++t) {
      double *beta = null_.data() + static_cast<size_t>(t) * (me + k + e), *alpha = beta + me;
      const double* gram = f->gram(extra[t]);
      for (int a = 0; a < k; ++a) alpha[a] = gram[set[a]];
      solve_lower(L_.data(), k, k, alpha);
      solve_upper(L_.data(), k, k, alpha);
      std::copy_n(f->pull(extra[t]), me, beta);
      for (int a = 0; a < k; ++a) axpy(-alpha[a], f->pull(set[a]), beta, me);
      if (!f->spread.empty()) {
        part_.resize(me);
        rows_times(f->spread.data(), me, me, beta, part_.data());
        std::copy(part_.begin(), part_.end(), beta);
      }
      alpha[k + t] = -1.0;
    }
    null_gram_.resize(static_cast<size_t>(e) * e);
    product_nt(null_.data(), e, null_.data(), e, me + k + e, null_gram_.data());
    cholesky(null_gram_.data(), e, e, columns_, 0.0);
  }

  void add_normal(double weight, int w) {
    if (w < f->mi)
      axpy(weight, G + static_cast<size_t>(w) * f->n, rhs_.data(), f->n);
    else
      rhs_[w - f->mi] += weight;
  }

  void load_gram() {
    const int k = static_cast<int>(set.size());
    L_.resize(static_cast<size_t>(k) * k);
    for (int a = 0; a < k; ++a) {
      const double* gram = f->gram(set[a]);
      for (int b = 0; b <= a; ++b) L_[static_cast<size_t>(a) * k + b] = gram[set[b]];
    }
  }

  bool factor_active() {
    const int k = static_cast<int>(set.size());
    load_gram();
    // A pivot is judged against the constraint's own length, of which the equalities may hold a part.
    auto least = [&](int a, double) { return INDEPENDENT * f->free[set[a]]; };
    return cholesky(L_.data(), k, k, columns_, least, [](int) { return false; });
  }

  void solve_active(const double* r1, const double* r2, const double* r3, double* dx, double* dy, double* dl) {
    const int k = static_cast<int>(set.size()), n = f->n, me = f->me;
    rows_times(f->S.data(), n, n, r1, dx);
    if (r2) add_transposed(f->Nt.data(), me, n, r2, dx);
    for (int a = 0; a < k; ++a) dl[a] = f->value(set[a], dx, G) - (r3 ? r3[a] : 0.0);
    solve_lower(L_.data(), k, k, dl);
    solve_upper(L_.data(), k, k, dl);
    rhs_.assign(r1, r1 + n);
    pull_.resize(k);
    for (int a = 0; a < k; ++a) pull_[a] = -dl[a];
    add_rows(k, pull_.data(), [&](int a) { return f->answer(set[a]); }, dx, n);
    for (int a = 0; a < k; ++a) add_normal(pull_[a], set[a]);
    rows_times(f->Nt.data(), me, n, rhs_.data(), dy);
    if (r2)
      for (int e = 0; e < me; ++e) dy[e] -= dot(f->Y.data() + static_cast<size_t>(e) * me, r2, me);
  }

  bool factor_free(int held) {
    const int n = f->n, k = static_cast<int>(set.size()), open = n - held, m = f->me + k - held;
    position_.assign(n, -1);
    general_.clear();
    for (int a = 0; a < k; ++a)
      if (set[a] < f->mi)
        general_.push_back(set[a]);
      else
        position_[set[a] - f->mi] = a;
    free_.clear();
    for (int j = 0; j < n; ++j)
      if (position_[j] < 0) free_.push_back(j);
    L_.resize(static_cast<size_t>(open) * open);
    for (int a = 0; a < open; ++a) {
      const double* row = P + static_cast<size_t>(free_[a]) * n;
      for (int b = 0; b <= a; ++b) L_[static_cast<size_t>(a) * open + b] = row[free_[b]];
    }
    if (!cholesky(L_.data(), open, open, columns_, INDEPENDENT)) return false;
    rows_.resize(static_cast<size_t>(m) * open);
    T_.resize(static_cast<size_t>(m) * m);
    for (int e = 0; e < m; ++e) {
      const double* row = row_of(e);
      double* out = rows_.data() + static_cast<size_t>(e) * open;
      for (int a = 0; a < open; ++a) out[a] = row[free_[a]];
      solve_lower(L_.data(), open, open, out);
      for (int d = 0; d <= e; ++d) T_[static_cast<size_t>(e) * m + d] = dot(out, rows_.data() + static_cast<size_t>(d) * open, open);
    }
    return cholesky(T_.data(), m, m, columns_, INDEPENDENT);
  }

  const double* row_of(int e) const {
    return e < f->me ? A + static_cast<size_t>(e) * f->n : G + static_cast<size_t>(general_[e - f->me]) * f->n;
  }

  void solve_free(const double* r1, const double* r2, const double* r3, double* dx, double* dy, double* dl) {
    const int n = f->n, open = static_cast<int>(free_.size()), m = f->me + static_cast<int>(general_.size());
    const int before = static_cast<int>(general_.size());  // rows come before bounds in `set`
    for (int j = 0; j < n; ++j) dx[j] = position_[j] < 0 || !r3 ? 0.0 : r3[position_[j]];
    part_.resize(m);
    for (int e = 0; e < m; ++e) {
      const double target = e < f->me ? (r2 ? r2[e] : 0.0) : (r3 ? r3[e - f->me] : 0.0);
      part_[e] = (r3 ? dot(row_of(e), dx, n) : 0.0) - target;  // what the held variables leave, negated
    }
    rhs_.resize(open);
    for (int a = 0; a < open; ++a)
      rhs_[a] = r1[free_[a]] - (r3 ? dot(P + static_cast<size_t>(free_[a]) * n, dx, n) : 0.0);
    solve_lower(L_.data(), open, open, rhs_.data());
    for (int e = 0; e < m; ++e) part_[e] += dot(rows_.data() + static_cast<size_t>(e) * open, rhs_.data(), open);
    solve_lower(T_.data(), m, m, part_.data());
    solve_upper(T_.data(), m, m, part_.data());
    for (int e = 0; e < m; ++e) axpy(-part_[e], rows_.data() + static_cast<size_t>(e) * open, rhs_.data(), open);
    solve_upper(L_.data(), open, open, rhs_.data());
    for (int a = 0; a < open; ++a) dx[free_[a]] = rhs_[a];
    std::copy(part_.begin(), part_.begin() + f->me, dy);
    for (int e = 0; e < before; ++e) dl[e] = part_[f->me + e];
    gather_.assign(r1, r1 + n);
    for (int e = 0; e < m; ++e) axpy(-part_[e], row_of(e), gather_.data(), n);
    for (int a = before; a < static_cast<int>(set.size()); ++a) {
      const int j = set[a] - f->mi;
      dl[a] = gather_[j] - dot(P + static_cast<size_t>(j) * n, dx, n);
    }
  }

  Vector gather_;
};

}  // namespace decigrad::DECIGRAD_ISA
