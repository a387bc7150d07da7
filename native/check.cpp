// A program of its own for the sanitizers: drives the kernel on random and degenerate batches, cold and warm,
// with shared matrices and matrices by sample, on one thread and on four, and checks the optimality conditions.
//
//     c++ -std=c++17 -O1 -g -fsanitize=address,undefined -pthread native/check.cpp -o check && ./check
#define DECIGRAD_ISA baseline
#include <cstdio>
#include <random>

#include "kernel.cpp"

using namespace decigrad;
using namespace decigrad::baseline;

namespace {

std::mt19937_64 engine(1);
double normal() { return std::normal_distribution<double>()(engine); }
double uniform() { return std::uniform_real_distribution<double>()(engine); }
int up_to(int most) { return static_cast<int>(engine() % (most + 1)); }

/// The data of a batch. `whole`: small integers, so that constraints meet in one point.
struct Data {
  Programs p;
  Vector P, factor, weight, q, A, b, G, h, lb, ub;
  double shift = 0.0;

  Data(Kind kind, int n, int me, int mi, int rank, size_t batch, bool shared, bool whole, bool linear) {
    p.kind = kind, p.n = n, p.me = me, p.mi = mi, p.rank = rank, p.batch = batch;
    const size_t copies = shared ? 1 : batch;
    auto entry = [&] { return whole ? static_cast<double>(up_to(4) - 2) : normal(); };
    auto fill = [&](Vector& v, size_t rows, size_t size, auto make) {
      v.resize(std::max<size_t>(rows * size, 1));
      for (size_t k = 0; k < rows * size; ++k) v[k] = make();
    };
    fill(A, copies, static_cast<size_t>(me) * n, entry);
    fill(G, copies, static_cast<size_t>(mi) * n, entry);
    for (size_t c = 0; c < copies; ++c) {  // repeated rows
      if (me > 1) std::copy_n(A.data() + c * me * n, n, &A[(c * me + me - 1) * n]);
      if (mi > 1) std::copy_n(G.data() + c * mi * n, n, &G[(c * mi + mi - 1) * n]);
    }
    if (kind == Kind::Dense) {
      P.assign(copies * n * n, 0.0);
      for (size_t c = 0; c < copies; ++c)
        for (int k = 0; k < 2 * n; ++k) {
          Vector v(n);
          for (double& value : v) value = normal();
          for (int j = 0; j < n; ++j) axpy(v[j] / n, v.data(), &P[(c * n + j) * n], n);
        }
    } else {
      fill(P, copies, n, [&] { return linear ? 0.0 : 0.1 + uniform(); });
    }
    fill(factor, copies, static_cast<size_t>(rank) * n, normal);
    fill(weight, copies, rank, uniform);
    fill(q, batch, n, [&] { return 2 * entry(); });
    b.assign(std::max<size_t>(batch * me, 1), 0.0), h.assign(std::max<size_t>(batch * mi, 1), 0.0);
    lb.assign(batch * n, -INFINITE), ub.assign(batch * n, INFINITE);
    for (size_t i = 0; i < batch; ++i) {
      const size_t c = shared ? 0 : i;
      Vector x(n);
      for (int j = 0; j < n; ++j) {
        x[j] = whole ? up_to(2) : uniform();
        if (linear || up_to(2)) lb[i * n + j] = x[j] - (whole ? up_to(1) : uniform());
        if (linear || up_to(2)) ub[i * n + j] = x[j] + (whole ? up_to(1) : uniform());
      }
      rows_times(A.data() + c * me * n, me, n, x.data(), b.data() + i * me);
      rows_times(G.data() + c * mi * n, mi, n, x.data(), h.data() + i * mi);
      for (int w = 0; w < mi; ++w) h[i * mi + w] += whole ? up_to(1) : uniform();
    }
    auto leaf = [&](const Vector& v, size_t rows, size_t size) { return Leaf{v.data(), rows > 1 ? size : 0}; };
    p.P = leaf(P, copies, p.size_of_P()), p.factor = leaf(factor, copies, static_cast<size_t>(rank) * n);
    p.weight = leaf(weight, copies, rank), p.A = leaf(A, copies, static_cast<size_t>(me) * n);
    p.G = leaf(G, copies, static_cast<size_t>(mi) * n), p.q = leaf(q, batch, n), p.b = leaf(b, batch, me);
    p.h = leaf(h, batch, mi), p.lb = leaf(lb, batch, n), p.ub = leaf(ub, batch, n);
    shift = linear ? 1e-3 : 0.0;
  }
};

struct Answer {
  Vector x, y, z, w;
  std::vector<char> active;
  std::vector<int8_t> fixed;
  std::vector<int32_t> verdict, iterations;

  explicit Answer(const Programs& p)
      : x(p.batch * p.n), y(p.batch * p.me + 1), z(p.batch * p.mi + 1), w(p.batch * p.n), active(p.batch * p.mi + 1),
        fixed(p.batch * p.n), verdict(p.batch), iterations(p.batch) {}
  bool* rows() { return reinterpret_cast<bool*>(active.data()); }
  void solve(const Data& d, bool warm, int threads) {
    baseline::solve(d.p, d.shift, warm, 10000, threads,
                    {x.data(), y.data(), z.data(), w.data(), rows(), fixed.data(), verdict.data(), iterations.data()});
  }
};

/// The largest violation of the optimality conditions by sample i, relative to the data and the forces.
double violation(const Programs& p, const Answer& s, size_t i) {
  const double *x = &s.x[i * p.n], *y = &s.y[i * p.me], *z = &s.z[i * p.mi], *w = &s.w[i * p.n];
  Vector force(p.n), inner(p.rank + 1);
  times_P(p, i, x, force.data(), inner.data());
  double worst = 0.0, size = 1.0 + largest(x, p.n), unit = 1.0 + largest(p.q.at(i), p.n) + largest(force.data(), p.n);
  for (int j = 0; j < p.n; ++j) force[j] += p.q.at(i)[j] + w[j];
  for (int e = 0; e < p.me; ++e) {
    const double* row = p.A.at(i) + static_cast<size_t>(e) * p.n;
    axpy(y[e], row, force.data(), p.n);
    worst = std::max(worst, std::fabs(dot(row, x, p.n) - p.b.at(i)[e]) / (size + std::fabs(p.b.at(i)[e])));
  }
  unit += largest(y, p.me) + largest(z, p.mi) + largest(w, p.n);
  for (int v = 0; v < p.mi; ++v) {
    const double* row = p.G.at(i) + static_cast<size_t>(v) * p.n;
    axpy(z[v], row, force.data(), p.n);
    const double slack = p.h.at(i)[v] - dot(row, x, p.n);
    worst = std::max({worst, -z[v] / unit, -slack / size, std::fabs(z[v] * slack) / (unit * size)});
  }
  for (int j = 0; j < p.n; ++j) {
    const double below = x[j] - p.lb.at(i)[j], above = p.ub.at(i)[j] - x[j];
    worst = std::max({worst, -below / size, -above / size, std::fabs(force[j]) / (unit * p.n)});
    if (w[j]) worst = std::max(worst, std::fabs(w[j]) * (w[j] > 0 ? above : below) / (unit * size));
  }
  return worst;
}

int failures = 0;

void expect(bool right, const char* what, int round) {
  if (right) return;
  ++failures;
  std::printf("round %d: %s\n", round, what);
}

}  // namespace

int main(int count, char** given) {
  const int rounds = count > 1 ? std::atoi(given[1]) : 300;
  size_t solved = 0, all = 0;
  for (int round = 0; round < rounds; ++round) {
    const Kind kind = static_cast<Kind>(round % 3);
    const bool shared = round / 3 % 2, whole = round / 6 % 2, linear = kind == Kind::Diagonal && round / 12 % 2;
    const int n = 1 + up_to(24), me = up_to(std::min(4, n)), mi = up_to(12), rank = kind == Kind::LowRank ? 1 + up_to(3) : 0;
    const size_t batch = 1 + up_to(70);
    const Data d(kind, n, me, mi, rank, batch, shared, whole, linear);
    Answer cold(d.p), again(d.p), warm(d.p);
    cold.solve(d, false, 4);
    again.solve(d, false, 1);
    expect(cold.x == again.x && cold.z == again.z && cold.verdict == again.verdict && cold.fixed == again.fixed, "threads change the answer", round);
    warm.active = cold.active, warm.fixed = cold.fixed;
    for (size_t i = 0; i < batch; ++i) {
      if (cold.verdict[i] >= Unsolved) {  // no set to start from: any
        for (int v = 0; v < mi; ++v) warm.active[i * mi + v] = up_to(1);
        for (int j = 0; j < n; ++j) warm.fixed[i * n + j] = static_cast<int8_t>(up_to(2) - 1);
      }
    }
    if (round % 4 == 3) {
      for (char& a : warm.active) a = static_cast<char>(up_to(1));
      for (int8_t& f : warm.fixed) f = static_cast<int8_t>(up_to(2) - 1);
    }
    warm.solve(d, true, 4);
    for (size_t i = 0; i < batch; ++i) {
      ++all;
      if (cold.verdict[i] <= Unsettled) ++solved, expect(violation(d.p, cold, i) < 1e-10, "cold: not optimal", round);
      if (warm.verdict[i] <= Unsettled) expect(violation(d.p, warm, i) < 1e-10, "warm: not optimal", round);
    }
    if (d.shift > 0.0) continue;
    const size_t size = 2 * static_cast<size_t>(n) + me + mi;
    Vector rhs(batch * size), v(batch * size), one(batch * size);
    for (double& value : rhs) value = normal();
    std::vector<int8_t> ok(batch), same(batch);
    sensitivities(d.p, cold.rows(), cold.fixed.data(), {rhs.data(), size}, 4, v.data(), ok.data());
    sensitivities(d.p, cold.rows(), cold.fixed.data(), {rhs.data(), size}, 1, one.data(), same.data());
    expect(ok == same, "threads change what is said of a sensitivity", round);
    for (size_t i = 0; i < batch; ++i) {
      if (!ok[i]) continue;
      const double* found = &v[i * size];
      expect(std::equal(found, found + size, &one[i * size]), "threads change a sensitivity", round);
      const double unit = 1.0 + largest(found, static_cast<int>(size));
      double worst = 0.0;
      Vector left(n), inner(d.p.rank + 1);
      times_P(d.p, i, found, left.data(), inner.data());
      for (int j = 0; j < n; ++j) left[j] -= rhs[i * size + j];
      add_transposed(d.p.A.at(i), me, n, found + n, left.data());
      for (int r = 0; r < mi; ++r)
        if (cold.active[i * mi + r]) axpy(found[n + me + r], d.p.G.at(i) + static_cast<size_t>(r) * n, left.data(), n);
      for (int j = 0; j < n; ++j) {
        if (cold.fixed[i * n + j]) left[j] += found[n + me + mi + j];
        worst = std::max(worst, std::fabs(left[j]));
      }
      expect(worst < 1e-7 * unit, "a sensitivity leaves a force", round);
    }
    if (round % 16 == 0) forget();
  }
  std::printf("%zu samples, %zu solved by the kernel, %d failures\n", all, solved, failures);
  return failures > 0 || 2 * solved < all;
}
