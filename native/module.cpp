// The compiled active-set solver, for Python (NumPy arrays, without the GIL) and for XLA (`jax.ffi`).
//
// One batch function serves both: every array has a leading axis of size B, or of size 1 where it is shared.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <limits>

#include "kernel.hpp"
#include "xla/ffi/api/ffi.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;
using namespace decigrad;

namespace {

/// Whether the processor has AVX2 and fused multiply-add, for which the kernel is compiled a second time.
bool wide() {
#if defined(DECIGRAD_X86)
  static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return found;
#else
  return false;
#endif
}

#if defined(DECIGRAD_X86)
#define DISPATCH(CALL) (wide() ? avx2::CALL : baseline::CALL)
#else
#define DISPATCH(CALL) baseline::CALL
#endif

// ------------------------------------------------------------------------------------------ from Python

using Given = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
template <class T>
using Taken = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

Leaf leaf(const Given& a) {
  size_t size = 1;
  for (size_t d = 1; d < a.ndim(); ++d) size *= a.shape(d);
  return {a.data(), a.shape(0) == 1 ? 0 : size};
}

void check(bool right, const char* what) {
  if (!right) throw nb::value_error(what);
}

Programs programs(int kind, const Given& P, const Given& factor, const Given& weight, const Given& A, const Given& G, size_t batch) {
  Programs p;
  p.kind = static_cast<Kind>(kind);
  check(A.ndim() == 3 && G.ndim() == 3 && A.shape(2) == G.shape(2), "A and G must be [B or 1, rows, n]");
  p.n = static_cast<int>(A.shape(2)), p.me = static_cast<int>(A.shape(1)), p.mi = static_cast<int>(G.shape(1));
  check(P.ndim() == (kind ? 2u : 3u) && P.shape(1) == static_cast<size_t>(p.n), "P must be [B or 1, n, n] or [B or 1, n]");
  p.rank = kind == 2 ? static_cast<int>(weight.shape(1)) : 0;
  p.batch = batch;
  p.P = leaf(P), p.factor = leaf(factor), p.weight = leaf(weight), p.A = leaf(A), p.G = leaf(G);
  for (const Given* a : {&P, &factor, &weight, &A, &G}) check(a->shape(0) == 1 || a->shape(0) == batch, "leading axes must be B or 1");
  return p;
}

void solve_arrays(int kind, Given P, Given factor, Given weight, Given q, Given A, Given b, Given G, Given h, Given lb, Given ub,
                  Taken<double> x, Taken<double> y, Taken<double> z, Taken<double> w, Taken<bool> active, Taken<int8_t> fixed,
                  Taken<int32_t> verdict, Taken<int32_t> iterations, double shift, bool warm, int limit, int threads) {
  const size_t B = x.shape(0);
  Programs p = programs(kind, P, factor, weight, A, G, B);
  const size_t sizes[] = {size_t(p.n), size_t(p.me), size_t(p.mi), size_t(p.n), size_t(p.n)};
  const Given* given[] = {&q, &b, &h, &lb, &ub};
  for (int k = 0; k < 5; ++k)
    check(given[k]->ndim() == 2 && given[k]->shape(1) == sizes[k] && (given[k]->shape(0) == 1 || given[k]->shape(0) == B),
          "q, b, h, lb, ub must be [B or 1, size]");
  check(y.shape(0) == B && z.shape(0) == B && w.shape(0) == B && active.shape(0) == B && fixed.shape(0) == B && verdict.shape(0) == B &&
            iterations.shape(0) == B && x.shape(1) == sizes[0] && y.shape(1) == sizes[1] && z.shape(1) == sizes[2] &&
            w.shape(1) == sizes[0] && active.shape(1) == sizes[2] && fixed.shape(1) == sizes[0],
        "results must be [B, size]");
  p.q = leaf(q), p.b = leaf(b), p.h = leaf(h), p.lb = leaf(lb), p.ub = leaf(ub);
  Results out{x.data(), y.data(), z.data(), w.data(), active.data(), fixed.data(), verdict.data(), iterations.data()};
  nb::gil_scoped_release released;
  DISPATCH(solve(p, shift, warm, limit, threads, out));
}

void sensitivity_arrays(int kind, Given P, Given factor, Given weight, Given A, Given G, nb::ndarray<const bool, nb::c_contig, nb::device::cpu> active,
                        nb::ndarray<const int8_t, nb::c_contig, nb::device::cpu> fixed, Given rhs, Taken<double> v, Taken<int8_t> ok, int threads) {
  const size_t B = v.shape(0);
  Programs p = programs(kind, P, factor, weight, A, G, B);
  const size_t size = 2 * static_cast<size_t>(p.n) + p.me + p.mi;
  check(active.shape(0) == B && fixed.shape(0) == B && ok.shape(0) == B && active.shape(1) == size_t(p.mi) && fixed.shape(1) == size_t(p.n),
        "active sets must be [B, size]");
  check(rhs.ndim() == 2 && rhs.shape(1) == size && v.shape(1) == size && (rhs.shape(0) == 1 || rhs.shape(0) == B), "rhs must be [B or 1, 2n + me + mi]");
  nb::gil_scoped_release released;
  DISPATCH(sensitivities(p, active.data(), fixed.data(), leaf(rhs), threads, v.data(), ok.data()));
}

// --------------------------------------------------------------------------------------------- from XLA

using F64 = ffi::Buffer<ffi::F64>;

Leaf leaf(const F64& a) {
  const auto dims = a.dimensions();
  const size_t rows = dims[0];
  return {a.typed_data(), rows <= 1 ? 0 : a.element_count() / rows};
}

Programs programs(int64_t kind, const F64& P, const F64& factor, const F64& weight, const F64& A, const F64& G, size_t batch) {
  Programs p;
  p.kind = static_cast<Kind>(kind);
  p.n = static_cast<int>(A.dimensions()[2]), p.me = static_cast<int>(A.dimensions()[1]), p.mi = static_cast<int>(G.dimensions()[1]);
  p.rank = kind == 2 ? static_cast<int>(weight.dimensions()[1]) : 0;
  p.batch = batch;
  p.P = leaf(P), p.factor = leaf(factor), p.weight = leaf(weight), p.A = leaf(A), p.G = leaf(G);
  return p;
}

ffi::Error solve_buffers(int64_t kind, double shift, bool warm, int64_t limit, int64_t threads, F64 P, F64 factor, F64 weight, F64 q, F64 A,
                         F64 b, F64 G, F64 h, F64 lb, F64 ub, ffi::Buffer<ffi::PRED> active0, ffi::Buffer<ffi::S8> fixed0,
                         ffi::ResultBuffer<ffi::F64> x, ffi::ResultBuffer<ffi::F64> y, ffi::ResultBuffer<ffi::F64> z,
                         ffi::ResultBuffer<ffi::F64> w, ffi::ResultBuffer<ffi::PRED> active, ffi::ResultBuffer<ffi::S8> fixed,
                         ffi::ResultBuffer<ffi::S32> verdict, ffi::ResultBuffer<ffi::S32> iterations) {
  Programs p = programs(kind, P, factor, weight, A, G, x->dimensions()[0]);
  p.q = leaf(q), p.b = leaf(b), p.h = leaf(h), p.lb = leaf(lb), p.ub = leaf(ub);
  if (warm) {
    const size_t sets = active0.dimensions()[0] == 1 && p.batch > 1 ? 0 : 1;
    for (size_t i = 0; i < p.batch; ++i) {
      std::copy_n(active0.typed_data() + sets * i * p.mi, p.mi, active->typed_data() + i * p.mi);
      std::copy_n(fixed0.typed_data() + sets * i * p.n, p.n, fixed->typed_data() + i * p.n);
    }
  }
  Results out{x->typed_data(), y->typed_data(), z->typed_data(), w->typed_data(), active->typed_data(), fixed->typed_data(), verdict->typed_data(),
              iterations->typed_data()};
  DISPATCH(solve(p, shift, warm, static_cast<int>(limit), static_cast<int>(threads), out));
  return ffi::Error::Success();
}

ffi::Error sensitivity_buffers(int64_t kind, int64_t threads, F64 P, F64 factor, F64 weight, F64 A, F64 G, ffi::Buffer<ffi::PRED> active,
                               ffi::Buffer<ffi::S8> fixed, F64 rhs, ffi::ResultBuffer<ffi::F64> v, ffi::ResultBuffer<ffi::S8> ok) {
  Programs p = programs(kind, P, factor, weight, A, G, v->dimensions()[0]);
  DISPATCH(sensitivities(p, active.typed_data(), fixed.typed_data(), leaf(rhs), static_cast<int>(threads), v->typed_data(), ok->typed_data()));
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(SolveHandler, solve_buffers,
                       ffi::Ffi::Bind()
                           .Attr<int64_t>("kind")
                           .Attr<double>("shift")
                           .Attr<bool>("warm")
                           .Attr<int64_t>("limit")
                           .Attr<int64_t>("threads")
                           .Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>()
                           .Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>()
                           .Arg<ffi::Buffer<ffi::PRED>>()
                           .Arg<ffi::Buffer<ffi::S8>>()
                           .Ret<F64>().Ret<F64>().Ret<F64>().Ret<F64>()
                           .Ret<ffi::Buffer<ffi::PRED>>()
                           .Ret<ffi::Buffer<ffi::S8>>()
                           .Ret<ffi::Buffer<ffi::S32>>()
                           .Ret<ffi::Buffer<ffi::S32>>());

XLA_FFI_DEFINE_HANDLER(SensitivityHandler, sensitivity_buffers,
                       ffi::Ffi::Bind()
                           .Attr<int64_t>("kind")
                           .Attr<int64_t>("threads")
                           .Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>().Arg<F64>()
                           .Arg<ffi::Buffer<ffi::PRED>>()
                           .Arg<ffi::Buffer<ffi::S8>>()
                           .Arg<F64>()
                           .Ret<F64>()
                           .Ret<ffi::Buffer<ffi::S8>>());

}  // namespace

NB_MODULE(_active_set, m) {
  m.def("solve", &solve_arrays);
  m.def("sensitivity", &sensitivity_arrays);
  m.def("forget", [] { DISPATCH(forget()); });
  m.def("instructions", [] { return wide() ? "AVX2" : "baseline"; });
  m.def("targets", [] {
    nb::dict found;
    found["decigrad_active_set_solve"] = nb::capsule(reinterpret_cast<void*>(SolveHandler));
    found["decigrad_active_set_sensitivity"] = nb::capsule(reinterpret_cast<void*>(SensitivityHandler));
    return found;
  });
}
