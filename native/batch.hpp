// A batch over threads: what samples share is computed once, and each sample is solved alone.
#pragma once

#include <atomic>
#include <system_error>
#include <thread>

#include "sample.hpp"

namespace decigrad::DECIGRAD_ISA {

constexpr int CHUNK = 32;  // samples whose unconstrained minima are one matrix product

/// `body(first, last)` on parts of [0, count), by up to `threads` threads.
template <class Body>
void in_parts(size_t count, size_t part, int threads, Body body) {
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t first; (first = next.fetch_add(part)) < count;) body(first, std::min(first + part, count));
  };
  const size_t parts = (count + part - 1) / part;
  std::vector<std::thread> others;
  try {
    for (size_t t = 1; t < std::min<size_t>(std::max(threads, 1), parts); ++t) others.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads to be had: those that there are do it
  }
  work();
  for (std::thread& other : others) other.join();
}

inline Memory& memory() {
  static Memory kept;
  return kept;
}

inline bool any_bound(const Programs& p) {
  for (const Leaf* side : {&p.lb, &p.ub})
    for (size_t i = 0; i < (side->stride ? p.batch : 1); ++i)
      for (int j = 0; j < p.n; ++j)
        if (std::isfinite(side->at(i)[j])) return true;
  return false;
}

constexpr int SMALL = 16;  // variables up to which a factor costs no more than looking for it

/// Samples in an order that brings equal active sets together, so that they share one factor.
inline std::vector<size_t> ordered(const Programs& p, const bool* active, const int8_t* fixed) {
  std::vector<size_t> order(p.batch);
  for (size_t i = 0; i < p.batch; ++i) order[i] = i;
  if (p.n <= SMALL) return order;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    int c = p.n ? std::memcmp(fixed + a * p.n, fixed + b * p.n, p.n) : 0;
    if (!c && p.mi) c = std::memcmp(active + a * p.mi, active + b * p.mi, p.mi);
    return c ? c < 0 : a < b;
  });
  return order;
}

inline void refuse(size_t i, const Results& out) {
  out.verdict[i] = Unsuitable;
  out.iterations[i] = 0;
}

/// −S q + N b for the samples order[first], …, order[last − 1]; without an order, as they come.
inline void minima(const Programs& p, const Factors& f, size_t first, size_t last, Vector& out, const std::vector<size_t>& order = {}) {
  const size_t n = p.n, count = last - first;
  Vector costs(count * n);
  auto sample = [&](size_t k) { return order.empty() ? first + k : order[first + k]; };
  for (size_t k = 0; k < count; ++k) {
    const double* q = p.q.at(sample(k));
    for (size_t j = 0; j < n; ++j) costs[k * n + j] = std::isfinite(q[j]) ? -q[j] : 0.0;
  }
  product_nt(costs.data(), static_cast<int>(count), f.S.data(), p.n, p.n, out.data());
  for (size_t k = 0; k < count; ++k) add_transposed(f.Nt.data(), p.me, p.n, p.b.at(sample(k)), out.data() + k * n);
}

/// Solves all samples. `shift` > 0: P is semidefinite, by the proximal point method with that ε. `warm`:
/// `active` and `fixed` of `out` hold the sets to start from.
inline void solve_batch(const Programs& p, double shift, bool warm, int limit, int threads, const Results& out) {
  const bool bounded = any_bound(p);
  if (!p.shared()) {
    in_parts(p.batch, 1, threads, [&](size_t first, size_t) {
      Factors own(p, first, bounded, shift);
      if (!own.definite) return refuse(first, out);
      Sample sample;
      Vector start(p.n);
      minima(p, own, first, first + 1, start);
      sample.solve(p, own, first, start.data(), warm, limit, out);
    });
    return;
  }
  const auto factors = memory().find(p, bounded, shift);
  const std::vector<size_t> order = warm ? ordered(p, out.active, out.fixed) : std::vector<size_t>();
  in_parts(p.batch, CHUNK, threads, [&](size_t first, size_t last) {
    Sample sample;
    Vector starts((last - first) * p.n);
    if (factors->definite) minima(p, *factors, first, last, starts, order);
    for (size_t k = first; k < last; ++k) {
      const size_t i = warm ? order[k] : k;
      if (factors->definite)
        sample.solve(p, *factors, i, starts.data() + (k - first) * p.n, warm, limit, out);
      else
        refuse(i, out);
    }
  });
}

/// v = K⁻¹ rhs by sample at the active sets [B, mi] and [B, n]; `ok` as `Sample::sensitivity` says.
inline void sensitivities_batch(const Programs& p, const bool* active, const int8_t* fixed, const Leaf& rhs, int threads, double* v, int8_t* ok) {
  const size_t size = 2 * static_cast<size_t>(p.n) + p.me + p.mi;
  bool bounded = false;
  for (size_t k = 0; k < p.batch * p.n; ++k) bounded = bounded || fixed[k];
  std::shared_ptr<const Factors> factors;
  std::vector<size_t> order;
  if (p.shared()) {
    factors = memory().find(p, bounded, 0.0);
    order = ordered(p, active, fixed);
  }
  in_parts(p.batch, factors ? CHUNK : 1, threads, [&](size_t first, size_t last) {
    Sample sample;
    for (size_t k = first; k < last; ++k) {
      const size_t i = factors ? order[k] : k;
      const auto own = factors ? factors : std::make_shared<const Factors>(p, i, bounded, 0.0);
      ok[i] = !own->definite ? 0 : sample.sensitivity(p, *own, i, active + i * p.mi, fixed + i * p.n, rhs.at(i), v + i * size);
    }
  });
}

}  // namespace decigrad::DECIGRAD_ISA
