// Dense kernels on row-major doubles: what the solver spends its time in.
//
// Sums run in one fixed order whatever the number of threads, so results are reproducible to the last bit.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

namespace decigrad::DECIGRAD_ISA {

using Vector = std::vector<double>;
typedef double Lanes __attribute__((vector_size(32)));

inline Lanes load(const double* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline double total(const Lanes& v) { return (v[0] + v[1]) + (v[2] + v[3]); }

/// a·b
inline double dot(const double* a, const double* b, int n) {
  double tail = 0.0;
  int i = 0;
  if (n >= 16) {
    Lanes s0{}, s1{}, s2{}, s3{};
    for (; i + 16 <= n; i += 16) {
      s0 += load(a + i) * load(b + i);
      s1 += load(a + i + 4) * load(b + i + 4);
      s2 += load(a + i + 8) * load(b + i + 8);
      s3 += load(a + i + 12) * load(b + i + 12);
    }
    tail = total((s0 + s1) + (s2 + s3));
  }
  if (i + 4 <= n) {
    Lanes s{};
    for (; i + 4 <= n; i += 4) s += load(a + i) * load(b + i);
    tail += total(s);
  }
  for (; i < n; ++i) tail += a[i] * b[i];
  return tail;
}

/// y += a x
inline void axpy(double a, const double* __restrict x, double* __restrict y, int n) {
  for (int i = 0; i < n; ++i) y[i] += a * x[i];
}

/// out[t] = rows[t]·x for four rows
inline void dot4(const double* const* rows, const double* x, int n, double* out) {
  Lanes s0{}, s1{}, s2{}, s3{};
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    const Lanes v = load(x + i);
    s0 += v * load(rows[0] + i);
    s1 += v * load(rows[1] + i);
    s2 += v * load(rows[2] + i);
    s3 += v * load(rows[3] + i);
  }
  out[0] = total(s0), out[1] = total(s1), out[2] = total(s2), out[3] = total(s3);
  for (; i < n; ++i)
    for (int t = 0; t < 4; ++t) out[t] += rows[t][i] * x[i];
}

/// y += Σₜ a[t] rows[t] for four rows
inline void axpy4(const double* a, const double* const* rows, double* __restrict y, int n) {
  const double a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
  const double *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  for (int i = 0; i < n; ++i) y[i] += (a0 * r0[i] + a1 * r1[i]) + (a2 * r2[i] + a3 * r3[i]);
}

/// y += Σₜ a[t] row(t) for `count` rows
template <class Row>
inline void add_rows(int count, const double* a, Row row, double* y, int n) {
  int t = 0;
  for (; t + 4 <= count; t += 4) {
    const double* rows[4] = {row(t), row(t + 1), row(t + 2), row(t + 3)};
    axpy4(a + t, rows, y, n);
  }
  for (; t < count; ++t) axpy(a[t], row(t), y, n);
}

/// y[i] = M[i]·x for the m rows of M
inline void rows_times(const double* M, int m, int n, const double* x, double* y) {
  int i = 0;
  for (; i + 4 <= m; i += 4) {
    const double* at = M + static_cast<size_t>(i) * n;
    const double* rows[4] = {at, at + n, at + 2 * n, at + 3 * n};
    dot4(rows, x, n, y + i);
  }
  for (; i < m; ++i) y[i] = dot(M + static_cast<size_t>(i) * n, x, n);
}

/// y += Mᵀ x for the m rows of M
inline void add_transposed(const double* M, int m, int n, const double* x, double* y) {
  add_rows(m, x, [&](int i) { return M + static_cast<size_t>(i) * n; }, y, n);
}

/// C = A Bᵀ with A [p, k], B [q, k], C [p, q]; every entry is a sum in the same order wherever it stands.
inline void product_nt(const double* A, int p, const double* B, int q, int k, double* C) {
  const int whole = k & ~3;
  for (int j = 0; j < q; j += 4) {
    const int width = q - j < 4 ? q - j : 4;
    const double* b[4];
    for (int t = 0; t < 4; ++t) b[t] = B + static_cast<size_t>(j + (t < width ? t : 0)) * k;
    for (int i = 0; i < p; ++i) {
      const double* a = A + static_cast<size_t>(i) * k;
      Lanes s0{}, s1{}, s2{}, s3{};
      for (int l = 0; l < whole; l += 4) {
        const Lanes v = load(a + l);
        s0 += v * load(b[0] + l);
        s1 += v * load(b[1] + l);
        s2 += v * load(b[2] + l);
        s3 += v * load(b[3] + l);
      }
      double sum[4] = {total(s0), total(s1), total(s2), total(s3)};
      for (int l = whole; l < k; ++l)
        for (int t = 0; t < 4; ++t) sum[t] += a[l] * b[t][l];
      for (int t = 0; t < width; ++t) C[static_cast<size_t>(i) * q + j + t] = sum[t];
    }
  }
}

/// Lower Cholesky factor of M [n, n] in place (its lower half is read), in panels of four columns. A pivot j that
/// is not above `least(j, M_jj)` is given to `skip(j)`: true leaves row and column j out of the factor, false ends
/// the factorization, which is then false. `columns` is work space.
template <class Least, class Skip>
inline bool cholesky(double* M, int n, int stride, Vector& columns, Least least, Skip skip) {
  columns.resize(static_cast<size_t>(5) * n);
  double *given = columns.data() + static_cast<size_t>(4) * n, *column[4];
  for (int t = 0; t < 4; ++t) column[t] = columns.data() + static_cast<size_t>(t) * n;
  for (int j = 0; j < n; ++j) given[j] = M[static_cast<size_t>(j) * stride + j];
  for (int first = 0; first < n; first += 4) {
    const int count = n - first < 4 ? n - first : 4, next = first + count;
    double inverse[4] = {0.0, 0.0, 0.0, 0.0}, corner[4][4] = {};
    for (int t = 0; t < count; ++t) {
      const int j = first + t;
      double* row = M + static_cast<size_t>(j) * stride + first;
      double pivot = row[t];
      for (int u = 0; u < t; ++u) {
        double v = row[u];
        for (int s = 0; s < u; ++s) v -= corner[t][s] * corner[u][s];
        corner[t][u] = row[u] = v * inverse[u];
        pivot -= row[u] * row[u];
      }
      if (pivot > least(j, given[j])) {
        row[t] = std::sqrt(pivot);
        inverse[t] = 1.0 / row[t];
      } else if (!skip(j)) {
        return false;
      }
    }
    for (int i = next; i < n; ++i) {
      double* row = M + static_cast<size_t>(i) * stride + first;
      for (int t = 0; t < count; ++t) {
        double v = row[t];
        for (int s = 0; s < t; ++s) v -= row[s] * corner[t][s];
        column[t][i] = row[t] = v * inverse[t];
      }
    }
    for (int i = next; i < n; ++i) {
      double* row = M + static_cast<size_t>(i) * stride;
      const double w[4] = {-row[first], -row[first + 1], -row[first + 2], -row[first + 3]};  // next < n: count is 4
      const double* rows[4] = {column[0] + next, column[1] + next, column[2] + next, column[3] + next};
      axpy4(w, rows, row + next, i + 1 - next);
    }
  }
  return true;
}

/// The same, false at the first pivot that is not above `share` times the diagonal entry that it came from.
inline bool cholesky(double* M, int n, int stride, Vector& columns, double share) {
  return cholesky(M, n, stride, columns, [&](int, double before) { return share * before; }, [](int) { return false; });
}

/// L t = t, forwards, in place
inline void solve_lower(const double* L, int n, int stride, double* t) {
  for (int i = 0; i < n; ++i) {
    const double* row = L + static_cast<size_t>(i) * stride;
    t[i] = (t[i] - dot(row, t, i)) / row[i];
  }
}

/// Lᵀ t = t, backwards, in place
inline void solve_upper(const double* L, int n, int stride, double* t) {
  for (int i = n - 1; i >= 0; --i) {
    const double* row = L + static_cast<size_t>(i) * stride;
    t[i] /= row[i];
    axpy(-t[i], row, t, i);
  }
}

inline double largest(const double* x, int n) {
  double found = 0.0;
  for (int i = 0; i < n; ++i) {
    const double size = std::fabs(x[i]);
    if (size > found && std::isfinite(size)) found = size;
  }
  return found;
}

inline bool finite(const double* x, size_t n) {
  for (size_t i = 0; i < n; ++i)
    if (!std::isfinite(x[i])) return false;
  return true;
}

}  // namespace decigrad::DECIGRAD_ISA
