// What depends on P, A and G alone, computed once for all samples that share them.
//
// With H = P (or P + εI where P is only semidefinite) the equalities are eliminated:
//
//     S = H⁻¹ − H⁻¹Aᵀ(AH⁻¹Aᵀ)⁻¹AH⁻¹   (what a force moves within Ax = b),     AS = 0,  SHS = S
//     N = H⁻¹Aᵀ(AH⁻¹Aᵀ)⁻¹            (the right inverse of A in the metric of H),  AN = I
//
// so that x = −Sq + Nb without inequalities, and for the constraints C = [G; I] the dual program has the
// Hessian K = CSCᵀ. Dependent rows of A are left out of the elimination; their multipliers are then spread so
// that all of them together are least in norm.
#pragma once

#include <algorithm>
#include <list>
#include <memory>
#include <mutex>

#include "linalg.hpp"
#include "program.hpp"

namespace decigrad::DECIGRAD_ISA {

/// P x for one sample.
inline void times_P(const Programs& p, size_t i, const double* x, double* out, double* inner) {
  const double* P = p.P.at(i);
  if (p.kind == Kind::Dense) {
    rows_times(P, p.n, p.n, x, out);
    return;
  }
  for (int j = 0; j < p.n; ++j) out[j] = P[j] * x[j];
  if (p.kind == Kind::Diagonal) return;
  const double *F = p.factor.at(i), *v = p.weight.at(i);
  rows_times(F, p.rank, p.n, x, inner);
  for (int k = 0; k < p.rank; ++k) axpy(v[k] * inner[k], F + static_cast<size_t>(k) * p.n, out, p.n);
}

/// P as a matrix [n, n].
inline void dense_P(const Programs& p, size_t i, double* out) {
  const size_t n = p.n;
  const double* P = p.P.at(i);
  if (p.kind == Kind::Dense) {
    std::memcpy(out, P, n * n * sizeof(double));
    return;
  }
  std::memset(out, 0, n * n * sizeof(double));
  for (size_t j = 0; j < n; ++j) out[j * n + j] = P[j];
  if (p.kind == Kind::Diagonal) return;
  const double *F = p.factor.at(i), *v = p.weight.at(i);
  for (int k = 0; k < p.rank; ++k) {
    const double* row = F + k * n;
    for (size_t j = 0; j < n; ++j) axpy(v[k] * row[j], row, out + j * n, p.n);
  }
}

constexpr double DEFINITE = 1e-8;      // least squared pivot of P with unit diagonal
constexpr double INDEPENDENT = 1e-11;  // squared sine of an angle that counts as zero

struct Factors {
  int n = 0, me = 0, mi = 0, bounds = 0, rank = 0;
  double shift = 0.0;     // ε
  Vector S, Nt, Y, K, V;  // S [n, n], Nᵀ [me, n], NᵀHN [me, me], K [M, M], GS [mi, n]
  Vector NC;              // CN [M, me]
  Vector spread;          // projector onto the range of A [me, me], where its rows are dependent
  Vector free;            // |C_i|² in H⁻¹, without the equalities: the unit of K_ii
  Vector norm;            // largest entry of each row of G, in absolute value
  double size = 1.0;      // largest entry of H, A and G
  bool definite = false;

  int rows() const { return mi + bounds; }
  /// NᵀC_w [me]: what constraint w asks of the equalities.
  const double* pull(int w) const { return NC.data() + static_cast<size_t>(w) * me; }
  /// Row w of CS: how x answers to constraint w.
  const double* answer(int w) const {
    return w < mi ? V.data() + static_cast<size_t>(w) * n : S.data() + static_cast<size_t>(w - mi) * n;
  }
  const double* gram(int w) const {
    return (K.empty() ? S.data() : K.data()) + static_cast<size_t>(w) * rows();
  }
  /// C_w · x
  double value(int w, const double* x, const double* Gi) const {
    return w < mi ? dot(Gi + static_cast<size_t>(w) * n, x, n) : x[w - mi];
  }

  /// The factors of sample i of a batch. `bounded`: any variable has a bound. `shift` > 0 where P is only
  /// semidefinite.
  Factors(const Programs& p, size_t i, bool bounded, double epsilon)
      : n(p.n), me(p.me), mi(p.mi), bounds(bounded ? p.n : 0), shift(epsilon) {
    Vector H(static_cast<size_t>(n) * n), U(H.size(), 0.0);
    dense_P(p, i, H.data());
    for (int j = 0; j < n; ++j) H[static_cast<size_t>(j) * n + j] += shift;
    const double* G = p.G.at(i);
    size = std::max({1.0, largest(H.data(), n * n), largest(p.A.at(i), me * n), largest(G, mi * n)});
    for (int v = 0; v < mi; ++v) norm.push_back(largest(G + static_cast<size_t>(v) * n, n));
    if (!finite(p.A.at(i), static_cast<size_t>(me) * n) || !finite(G, static_cast<size_t>(mi) * n)) return;
    Vector columns;
    if (!cholesky(H.data(), n, n, columns, DEFINITE)) return;
    for (int j = 0; j < n; ++j) {  // row j of U is L⁻¹eⱼ
      double* u = U.data() + static_cast<size_t>(j) * n;
      u[j] = 1.0;
      for (int k = j; k < n; ++k) {
        const double* row = H.data() + static_cast<size_t>(k) * n;
        u[k] = ((k == j) - dot(row + j, u + j, k - j)) / row[k];
      }
    }
    eliminate(p.A.at(i), H, U);
    S.resize(U.size());
    product_nt(U.data(), n, U.data(), n, n, S.data());
    const int m = rows();
    free.resize(m);
    V.resize(static_cast<size_t>(mi) * n);
    product_nt(G, mi, S.data(), n, n, V.data());
    if (mi) gram_of_rows(G);
    NC.resize(static_cast<size_t>(m) * me);
    product_nt(G, mi, Nt.data(), me, n, NC.data());
    for (int j = 0; j < bounds; ++j)
      for (int e = 0; e < me; ++e) NC[static_cast<size_t>(mi + j) * me + e] = Nt[static_cast<size_t>(e) * n + j];
    for (int w = 0; w < m; ++w) free[w] = gram(w)[w] + held_[w];
    definite = true;
  }

 private:
  Vector held_;        // the part of |C_i|² that the equalities hold
  Vector eliminated_;  // L⁻ᵀ basisᵀ [n, rank]

  /// Takes the equalities out of U, and finds N, NᵀHN and the rank of A.
  void eliminate(const double* A, const Vector& L, Vector& U) {
    std::vector<int> kept;
    Vector basis, triangle(static_cast<size_t>(me) * me, 0.0);  // orthonormal rows; A_kept L⁻ᵀ = triangle · basis
    Vector row(n), weight(me);
    for (int e = 0; e < me; ++e) {
      std::copy(A + static_cast<size_t>(e) * n, A + static_cast<size_t>(e + 1) * n, row.begin());
      solve_lower(L.data(), n, n, row.data());
      const double before = dot(row.data(), row.data(), n);
      const int have = static_cast<int>(kept.size());
      std::fill(weight.begin(), weight.end(), 0.0);
      for (int pass = 0; pass < 2; ++pass)
        for (int k = 0; k < have; ++k) {
          const double share = dot(basis.data() + static_cast<size_t>(k) * n, row.data(), n);
          weight[k] += share;
          axpy(-share, basis.data() + static_cast<size_t>(k) * n, row.data(), n);
        }
      const double after = dot(row.data(), row.data(), n);
      if (!(after > INDEPENDENT * before)) continue;
      const double length = std::sqrt(after);
      for (double& v : row) v /= length;
      basis.insert(basis.end(), row.begin(), row.end());
      std::copy(weight.begin(), weight.begin() + have, triangle.data() + static_cast<size_t>(have) * me);
      triangle[static_cast<size_t>(have) * me + have] = length;
      kept.push_back(e);
    }
    rank = static_cast<int>(kept.size());
    // With E = L⁻ᵀ basisᵀ, Nᵀ = triangle⁻ᵀ Eᵀ.
    Vector& E = eliminated_;
    E.resize(static_cast<size_t>(n) * rank);
    product_nt(U.data(), n, basis.data(), rank, n, E.data());
    held_.assign(mi + n, 0.0);
    for (int j = 0; j < n; ++j) {
      const double* e = E.data() + static_cast<size_t>(j) * rank;
      for (int k = 0; k < rank; ++k) axpy(-e[k], basis.data() + static_cast<size_t>(k) * n, U.data() + static_cast<size_t>(j) * n, n);
      held_[mi + j] = dot(e, e, rank);
    }
    Nt.assign(static_cast<size_t>(me) * n, 0.0);
    Y.assign(static_cast<size_t>(me) * me, 0.0);
    Vector column(rank);
    for (int j = 0; j < n; ++j) {
      std::copy(E.data() + static_cast<size_t>(j) * rank, E.data() + static_cast<size_t>(j) * rank + rank, column.begin());
      solve_upper(triangle.data(), rank, me, column.data());
      for (int k = 0; k < rank; ++k) Nt[static_cast<size_t>(kept[k]) * n + j] = column[k];
    }
    for (int k = 0; k < rank; ++k) {  // NᵀHN = (triangle triangleᵀ)⁻¹
      std::fill(column.begin(), column.end(), 0.0);
      column[k] = 1.0;
      solve_lower(triangle.data(), rank, me, column.data());
      solve_upper(triangle.data(), rank, me, column.data());
      for (int l = 0; l < rank; ++l) Y[static_cast<size_t>(kept[l]) * me + kept[k]] = column[l];
    }
    if (rank < me) spread_over(A);
  }

  /// The orthogonal projector onto the range of A, from an orthonormal basis of its columns.
  void spread_over(const double* A) {
    Vector columns, column(me);
    int have = 0;
    for (int j = 0; j < n && have < rank; ++j) {
      for (int e = 0; e < me; ++e) column[e] = A[static_cast<size_t>(e) * n + j];
      const double before = dot(column.data(), column.data(), me);
      for (int pass = 0; pass < 2; ++pass)
        for (int k = 0; k < have; ++k) {
          const double* other = columns.data() + static_cast<size_t>(k) * me;
          axpy(-dot(other, column.data(), me), other, column.data(), me);
        }
      const double after = dot(column.data(), column.data(), me);
      if (!(after > INDEPENDENT * before)) continue;
      for (double& v : column) v /= std::sqrt(after);
      columns.insert(columns.end(), column.begin(), column.end());
      ++have;
    }
    spread.assign(static_cast<size_t>(me) * me, 0.0);
    for (int k = 0; k < have; ++k) {
      const double* c = columns.data() + static_cast<size_t>(k) * me;
      for (int e = 0; e < me; ++e) axpy(c[e], c, spread.data() + static_cast<size_t>(e) * me, me);
    }
  }

  /// K from its blocks, and what the equalities hold of the rows of G.
  void gram_of_rows(const double* G) {
    const int m = rows();
    K.resize(static_cast<size_t>(m) * m);
    Vector GG(static_cast<size_t>(mi) * mi);
    product_nt(V.data(), mi, G, mi, n, GG.data());
    for (int a = 0; a < m; ++a) {
      double* row = K.data() + static_cast<size_t>(a) * m;
      for (int b = 0; b < mi; ++b)
        row[b] = a < mi ? GG[static_cast<size_t>(a) * mi + b] : V[static_cast<size_t>(b) * n + (a - mi)];
      if (bounds) std::copy(answer(a), answer(a) + n, row + mi);
    }
    for (int w = 0; w < mi; ++w)
      for (int k = 0; k < rank; ++k) {
        double share = 0.0;
        for (int j = 0; j < n; ++j) share += G[static_cast<size_t>(w) * n + j] * eliminated_[static_cast<size_t>(j) * rank + k];
        held_[w] += share * share;
      }
    eliminated_.clear();
  }
};

/// The factors that recent calls have used, found by their data: what is shared by all steps of a training is
/// factored once. Equal data give equal factors, so no answer depends on it.
class Memory {
 public:
  std::shared_ptr<const Factors> find(const Programs& p, bool bounded, double shift) {
    const size_t doubles = p.size_of_P() + static_cast<size_t>(p.rank) * (p.n + 1) + static_cast<size_t>(p.me + p.mi) * p.n;
    const int facts[6] = {static_cast<int>(p.kind), p.n, p.me, p.mi, p.rank, bounded};
    {
      std::lock_guard<std::mutex> guard(lock_);
      for (auto it = entries_.begin(); it != entries_.end(); ++it)
        if (std::equal(facts, facts + 6, it->facts) && it->shift == shift && same(p, it->data)) {
          entries_.splice(entries_.begin(), entries_, it);
          return entries_.front().factors;
        }
    }
    auto made = std::make_shared<const Factors>(p, 0, bounded, shift);
    const size_t bytes = 8 * (doubles + made->S.size() + made->K.size() + made->V.size());
    if (bytes > LARGEST) return made;
    Entry entry;
    std::copy(facts, facts + 6, entry.facts);
    entry.shift = shift;
    entry.factors = made;
    entry.data.reserve(doubles);
    each(p, [&](const double* data, size_t size) { entry.data.insert(entry.data.end(), data, data + size); });
    std::lock_guard<std::mutex> guard(lock_);
    entries_.push_front(std::move(entry));
    if (entries_.size() > KEPT) entries_.pop_back();
    return made;
  }

  void clear() {
    std::lock_guard<std::mutex> guard(lock_);
    entries_.clear();
  }

 private:
  static constexpr size_t KEPT = 8, LARGEST = 256u << 20;
  struct Entry {
    int facts[6];
    double shift;
    Vector data;
    std::shared_ptr<const Factors> factors;
  };
  std::list<Entry> entries_;
  std::mutex lock_;

  template <class Visit>
  static void each(const Programs& p, Visit visit) {
    visit(p.P.data, p.size_of_P());
    if (p.kind == Kind::LowRank) {
      visit(p.factor.data, static_cast<size_t>(p.rank) * p.n);
      visit(p.weight.data, static_cast<size_t>(p.rank));
    }
    visit(p.A.data, static_cast<size_t>(p.me) * p.n);
    visit(p.G.data, static_cast<size_t>(p.mi) * p.n);
  }

  static bool same(const Programs& p, const Vector& kept) {
    size_t at = 0;
    bool equal = true;
    each(p, [&](const double* data, size_t size) {
      equal = equal && std::memcmp(data, kept.data() + at, size * sizeof(double)) == 0;
      at += size;
    });
    return equal;
  }
};

}  // namespace decigrad::DECIGRAD_ISA
