// One sample from its data to a verified answer, or to a derivative of it.
#pragma once

#include "dual.hpp"
#include "system.hpp"

namespace decigrad::DECIGRAD_ISA {

constexpr double MARGIN = 1e-12;         // relative violation that makes a constraint enter
constexpr double TIGHT = 1e-11;          // relative slack below which a constraint is met exactly
constexpr double WEAKLY_ACTIVE = 1e-10;  // multiplier, in units of the gradient, that counts as zero
constexpr double EXACT = 1e-11;          // largest relative residual of the optimality conditions
constexpr double LINEAR = 1e-10;         // backward error that a sensitivity may have
constexpr int REFINEMENTS = 4, PIVOTS = 40, PATIENCE = 3, PROXIMAL = 500;

/// The work space for samples with the same factors. What one leaves in it changes no bit of another's answer.
class Sample {
 public:
  /// Solves sample i, from the active set that `active` and `fixed` of `out` hold where `warm`. `start` is
  /// the minimum without inequalities, for the factors' H.
  void solve(const Programs& p, const Factors& f, size_t i, const double* start, bool warm, int limit, const Results& out) {
    bind(p, f, i);
    int32_t& verdict = out.verdict[i];
    verdict = Unsolved;
    out.iterations[i] = 0;
    bool* active = out.active + i * p.mi;
    int8_t* fixed = out.fixed + i * p.n;
    if (!valid()) {
      verdict = Unsuitable;
      return;
    }
    if (!sides()) return;
    mark(active, fixed, warm);
    const double *q = p.q.at(i), *b = p.b.at(i);
    cost_.assign(q, q + p.n);
    unit_ = 1.0;
    if (f.shift > 0.0) {  // without P nothing fixes the unit of the objective
      const double size = largest(q, p.n);
      if (linear_ && size > 0.0) unit_ = 1.0 / size;
      for (double& v : cost_) v *= unit_;
    }
    x_.assign(p.n, 0.0), y_.assign(p.me, 0.0);
    for (int round = 0; round < (f.shift > 0.0 ? PROXIMAL : 1); ++round) {
      if (round || unit_ != 1.0) {  // the proximal point method: P + εI around the last point
        for (int j = 0; j < p.n; ++j) cost_[j] = unit_ * q[j] - f.shift * x_[j];
        free_minimum(b);
        start = free_.data();
      }
      before_ = x_;
      if (!active_set(start, limit, out.iterations[i]) || !point(b)) return;
      double moved = 0.0;
      for (int j = 0; j < p.n; ++j) moved = std::max(moved, std::fabs(x_[j] - before_[j]));
      if (!(f.shift * moved > 1e-13 * std::max(unit_ * largest(q, p.n), 1e-300))) break;
    }
    verdict = judge(out);
  }

  /// v = K⁺ rhs at the active set of sample i (see `decigrad.kkt`): 1 where K is regular, 2 where constraints are
  /// dependent, 0 where they contradict each other or rounding leaves too much.
  int8_t sensitivity(const Programs& p, const Factors& f, size_t i, const bool* active, const int8_t* fixed, const double* rhs, double* v) {
    if (f.shift > 0.0) return 0;
    bind(p, f, i);
    const int n = p.n, me = p.me, mi = p.mi;
    set_.clear();
    for (int w = 0; w < mi; ++w)
      if (active[w]) set_.push_back(w);
    for (int j = 0; j < n; ++j)
      if (fixed[j]) set_.push_back(mi + j);
    factor_any();
    const int k = static_cast<int>(set_.size());
    const double *r1 = rhs, *r2 = rhs + n, *rz = r2 + me, *rw = rz + mi;
    target_.resize(k), x_.resize(n), y_.resize(me), lambda_.resize(k);
    for (int a = 0; a < k; ++a) target_[a] = set_[a] < mi ? rz[set_[a]] : rw[set_[a] - mi];
    system_.solve(r1, r2, target_.data(), x_.data(), y_.data(), lambda_.data());
    const double given = largest(rhs, 2 * n + me + mi);
    for (int round = 0;; ++round) {
      const double left = residual(r1, r2, target_.data());
      if (!(left < INFINITE)) return 0;
      const double size = std::max({largest(x_.data(), n), largest(y_.data(), me), largest(lambda_.data(), k)});
      if (left <= 1e-15 * (given + f.size * size)) break;
      if (round == REFINEMENTS) {
        if (!(left <= LINEAR * (given + f.size * size))) return 0;
        break;
      }
      correct();
    }
    std::copy(rhs, rhs + 2 * n + me + mi, v);  // what is let go keeps its right-hand side
    std::copy(x_.begin(), x_.end(), v);
    std::copy(y_.begin(), y_.end(), v + n);
    for (int a = 0; a < k; ++a) v[n + me + set_[a]] = lambda_[a];
    return system_.extra.empty() && f.spread.empty() ? 1 : 2;
  }

 private:
  const Programs* p_ = nullptr;
  const Factors* f_ = nullptr;
  size_t i_ = 0;
  const double *A_ = nullptr, *G_ = nullptr;
  bool linear_ = false;
  double unit_ = 1.0;
  Sides sides_;
  Dual dual_;
  System system_, closer_;
  std::vector<int> set_, marks_, tight_, met_;
  Vector x_, y_, lambda_, target_, cost_, free_, values_, before_, inner_, gradient_, r1_, r2_, r3_, dx_, dy_, dl_, matrix_, negated_;
  const double* matrix_of_ = nullptr;
  std::vector<int> factored_set_;

  void bind(const Programs& p, const Factors& f, size_t i) {
    p_ = &p, f_ = &f, i_ = i;
    A_ = p.A.at(i), G_ = p.G.at(i);
    linear_ = p.kind == Kind::Diagonal && largest(p.P.at(i), p.n) == 0.0;
    inner_.resize(p.rank);
    // The matrix H, for the space of the free variables; made once where it is shared.
    if (matrix_of_ != p.P.at(i)) {
      factored_set_.assign(1, -1);
      matrix_.resize(static_cast<size_t>(p.n) * p.n);
      dense_P(p, i, matrix_.data());
      for (int j = 0; j < p.n; ++j) matrix_[static_cast<size_t>(j) * p.n + j] += f.shift;
      matrix_of_ = p.P.at(i);
    }
    system_.f = &f, system_.P = matrix_.data(), system_.A = A_, system_.G = G_;
  }

  /// The factor of `set_`, kept for the next sample of the same active set.
  bool factor() {
    if (factored_set_ == set_) return true;
    factored_set_.assign(1, -1);
    if (!system_.factor(set_)) return false;
    factored_set_ = set_;
    return true;
  }

  /// The factor of `set_`, whose constraints may be dependent; then these come last in `set_`.
  void factor_any() {
    if (factored_set_ != set_) {
      factored_set_ = set_;
      if (!system_.factor(set_)) system_.factor_any(set_);
    }
    set_ = system_.set;
    set_.insert(set_.end(), system_.extra.begin(), system_.extra.end());
  }

  bool valid() const {
    const Programs& p = *p_;
    if (!finite(p.q.at(i_), p.n) || !finite(p.b.at(i_), p.me)) return false;
    const double *h = p.h.at(i_), *lb = p.lb.at(i_), *ub = p.ub.at(i_);
    for (int w = 0; w < p.mi; ++w)
      if (!(h[w] > -INFINITE)) return false;
    for (int j = 0; j < p.n; ++j)
      if (!(lb[j] < INFINITE) || !(ub[j] > -INFINITE)) return false;
    return true;
  }

  bool sides() {
    const Programs& p = *p_;
    const int m = f_->rows();
    for (Vector* part : {&sides_.lower, &sides_.upper, &sides_.least, &sides_.most}) part->resize(m);
    const double *h = p.h.at(i_), *lb = p.lb.at(i_), *ub = p.ub.at(i_);
    for (int w = 0; w < m; ++w) {
      double &l = sides_.lower[w], &u = sides_.upper[w];
      l = w < p.mi ? -INFINITE : lb[w - p.mi];
      u = w < p.mi ? h[w] : ub[w - p.mi];
      if (l > u) return false;
      // Each side has its own margin, so that a bound such as 1e9 does not blunt the other one.
      const double unit = w < p.mi ? std::min(1.0, f_->norm[w]) : 1.0;
      sides_.least[w] = std::isfinite(l) ? l - MARGIN * (unit + std::fabs(l)) : -INFINITE;
      sides_.most[w] = std::isfinite(u) ? u + MARGIN * (unit + std::fabs(u)) : INFINITE;
    }
    return true;
  }

  void mark(const bool* active, const int8_t* fixed, bool warm) {
    const int mi = p_->mi;
    dual_.side.assign(f_->rows(), 0);
    if (!warm) return;
    for (int w = 0; w < f_->rows(); ++w) {
      const int s = w < mi ? active[w] : fixed[w - mi];
      if (s && std::isfinite(s > 0 ? sides_.upper[w] : sides_.lower[w])) dual_.side[w] = s > 0 ? 1 : -1;
    }
  }

  /// −S q + N b for the present cost.
  void free_minimum(const double* b) {
    const int n = p_->n;
    free_.resize(n);
    rows_times(f_->S.data(), n, n, cost_.data(), free_.data());
    for (double& v : free_) v = -v;
    add_transposed(f_->Nt.data(), p_->me, n, b, free_.data());
  }

  /// Finds the active set, in ascending order in `set_`.
  bool active_set(const double* start, int limit, int32_t& iterations) {
    if (pivot(start, iterations)) return true;
    const int m = f_->rows(), mi = p_->mi;
    values_.resize(m);
    rows_times(G_, mi, p_->n, start, values_.data());
    if (f_->bounds) std::copy(start, start + p_->n, values_.begin() + mi);
    const bool found = dual_.run(*f_, sides_, values_, limit);
    iterations += dual_.iterations;
    set_ = dual_.set;
    std::sort(set_.begin(), set_.end());
    return found;
  }

  /// Block principal pivoting from the marked set: everything that is wrong changes at once, as long as that
  /// helps. Worth its while from a good guess, and where bounds dominate, since few variables then are free.
  bool pivot(const double* start, int32_t& iterations) {
    const int m = f_->rows(), mi = p_->mi;
    bool guess = false;
    for (int w = 0; w < m; ++w) {
      if (sides_.lower[w] == sides_.upper[w]) dual_.side[w] = 2;
      guess = guess || dual_.side[w];
    }
    if (!guess && !(f_->bounds && 4 * (p_->me + mi) <= p_->n)) return false;
    marks_ = dual_.side;
    int fewest = m + 1, patience = PATIENCE;
    for (int round = 0; round < PIVOTS; ++round) {
      set_.clear();
      for (int w = 0; w < m; ++w)
        if (marks_[w]) set_.push_back(w);
      ++iterations;
      if (!factor()) {
        if (round) return false;
        // A start may hold constraints that depend on others: see `complete`.
        system_.factor_any(set_, false);
        for (int w : system_.extra) marks_[w] = 0;
        system_.extra.clear();
        factored_set_ = set_ = system_.set;
      }
      const int k = static_cast<int>(set_.size());
      if (system_.primal) {
        solve_set(marks_);
      } else {
        aim(marks_);
        x_.resize(p_->n), lambda_.resize(k);
        system_.answer(start, target_.data(), x_.data(), lambda_.data());
      }
      int wrong = 0, a = 0;
      for (int w = 0; w < m; ++w) {
        if (marks_[w]) {
          if (marks_[w] != 2 && lambda_[a] * marks_[w] < 0.0) marks_[w] = 0, ++wrong;
          ++a;
          continue;
        }
        const double value = f_->value(w, x_.data(), G_);
        if (value > sides_.most[w])
          marks_[w] = 1, ++wrong;
        else if (value < sides_.least[w])
          marks_[w] = -1, ++wrong;
      }
      if (a != k) return false;
      if (!wrong) return true;
      if (wrong < fewest)
        fewest = wrong, patience = PATIENCE;
      else if (--patience < 0)
        return false;
      dual_.side = marks_;
    }
    return false;
  }

  /// The sides at which the constraints of `set_` hold.
  void aim(const std::vector<int>& marks) {
    const int k = static_cast<int>(set_.size());
    target_.resize(k);
    for (int a = 0; a < k; ++a) target_[a] = marks[set_[a]] < 0 ? sides_.lower[set_[a]] : sides_.upper[set_[a]];
  }

  /// The point of `set_` and its multipliers, before refinement.
  void solve_set(const std::vector<int>& marks) {
    aim(marks);
    lambda_.resize(set_.size()), y_.resize(p_->me), x_.resize(p_->n);
    r1_.resize(p_->n);
    for (int j = 0; j < p_->n; ++j) r1_[j] = -cost_[j];
    system_.solve(r1_.data(), p_->b.at(i_), target_.data(), x_.data(), y_.data(), lambda_.data());
  }

  /// x, y and the multipliers of `set_`, refined against the data.
  bool point(const double* b) {
    const std::vector<int>& marks = dual_.side;
    if (!factor()) return false;
    solve_set(marks);
    const double force = std::max(largest(cost_.data(), p_->n), 1e-300);
    negated_.resize(p_->n);
    for (int j = 0; j < p_->n; ++j) negated_[j] = -cost_[j];
    for (int round = 0; round < REFINEMENTS; ++round) {
      const double left = residual(negated_.data(), b, target_.data());
      if (!(left < INFINITE)) return false;
      if (left <= 2e-15 * (force + f_->size * largest(x_.data(), p_->n))) break;
      correct();
    }
    return true;
  }

  /// What (x, y, λ) leave of a system's right-hand side, in r1_, r2_, r3_; its largest entry.
  double residual(const double* r1, const double* r2, const double* r3) {
    const Programs& p = *p_;
    const int n = p.n, k = static_cast<int>(set_.size());
    r1_.resize(n), r2_.resize(p.me), r3_.resize(k);
    Vector& Px = dx_;
    Px.resize(n);
    times_P(p, i_, x_.data(), Px.data(), inner_.data());
    for (int j = 0; j < n; ++j) r1_[j] = r1[j] - Px[j] - f_->shift * x_[j];
    for (int e = 0; e < p.me; ++e) {
      const double* row = A_ + static_cast<size_t>(e) * n;
      r2_[e] = r2[e] - dot(row, x_.data(), n);
      axpy(-y_[e], row, r1_.data(), n);
    }
    for (int a = 0; a < k; ++a) {
      const int w = set_[a];
      r3_[a] = r3[a] - f_->value(w, x_.data(), G_);
      if (w < p.mi)
        axpy(-lambda_[a], G_ + static_cast<size_t>(w) * n, r1_.data(), n);
      else
        r1_[w - p.mi] -= lambda_[a];
    }
    double found = 0.0;
    for (const Vector* part : {&r1_, &r2_, &r3_})
      for (double v : *part) {
        if (!std::isfinite(v)) return INFINITE;
        found = std::max(found, std::fabs(v));
      }
    return found;
  }

  void correct() {
    const int n = p_->n, me = p_->me, k = static_cast<int>(set_.size());
    dx_.resize(n), dy_.resize(me), dl_.resize(k);
    system_.solve(r1_.data(), r2_.data(), r3_.data(), dx_.data(), dy_.data(), dl_.data());
    axpy(1.0, dx_.data(), x_.data(), n);
    axpy(1.0, dy_.data(), y_.data(), me);
    axpy(1.0, dl_.data(), lambda_.data(), k);
  }

  /// Verifies the optimality conditions as `solvers/verification.py` states them, and writes the answer.
  Verdict judge(const Results& out) {
    const Programs& p = *p_;
    const int n = p.n, me = p.me, mi = p.mi, k = static_cast<int>(set_.size());
    double *x = out.x + i_ * n, *y = out.y + i_ * me, *z = out.z + i_ * mi, *w = out.w + i_ * n;
    bool* active = out.active + i_ * mi;
    int8_t* fixed = out.fixed + i_ * n;
    const double *q = p.q.at(i_), *b = p.b.at(i_), *h = p.h.at(i_), *lb = p.lb.at(i_), *ub = p.ub.at(i_);
    std::fill(z, z + mi, 0.0), std::fill(w, w + n, 0.0);
    for (int a = 0; a < k; ++a) (set_[a] < mi ? z[set_[a]] : w[set_[a] - mi]) = lambda_[a] / unit_;
    for (int e = 0; e < me; ++e) y[e] = y_[e] / unit_;
    std::copy(x_.begin(), x_.end(), x);
    for (int j = 0; j < n; ++j) x[j] = std::min(std::max(x[j], lb[j]), ub[j]);
    for (int a = 0; a < k; ++a)
      if (set_[a] >= mi) x[set_[a] - mi] = dual_.side[set_[a]] < 0 ? lb[set_[a] - mi] : ub[set_[a] - mi];
    gradient_.resize(n);
    times_P(p, i_, x, gradient_.data(), inner_.data());
    const double scale = std::max(largest(gradient_.data(), n), largest(q, n)) + 2.2e-308, size = 1.0 + largest(x, n);
    double force = scale, worst = 0.0, rhs = largest(b, me);
    Vector &Aty = r1_, &Gtz = dx_;
    Aty.assign(n, 0.0), Gtz.assign(n, 0.0);
    add_transposed(A_, me, n, y, Aty.data());
    add_transposed(G_, mi, n, z, Gtz.data());
    force = std::max({force, largest(Aty.data(), n), largest(Gtz.data(), n), largest(w, n)});
    for (int j = 0; j < n; ++j) worst = std::max(worst, std::fabs(gradient_[j] + q[j] + Aty[j] + Gtz[j] + w[j]) / force);
    for (int e = 0; e < me; ++e)
      worst = std::max(worst, std::fabs(dot(A_ + static_cast<size_t>(e) * n, x, n) - b[e]) / (size + rhs));
    const double threshold = WEAKLY_ACTIVE * scale;
    bool touching_rows = false, touching = false;
    int shown = f_->rank;
    for (int v = 0; v < mi; ++v) {
      const double* row = G_ + static_cast<size_t>(v) * n;
      const double norm = f_->norm[v];
      active[v] = z[v] * norm > threshold;
      shown += active[v];
      if (z[v] < 0) worst = std::max(worst, -z[v] / force), z[v] = 0.0;
      if (!std::isfinite(h[v])) continue;
      const double slack = h[v] - dot(row, x, n), unit = size + std::fabs(h[v]);
      worst = std::max({worst, -slack / unit, std::fabs(z[v] * slack) / (unit * force)});
      if (!active[v] && norm > 0 && slack <= TIGHT * unit) touching_rows = true;
    }
    for (int j = 0; j < n; ++j) {
      const bool held = lb[j] == ub[j] || std::fabs(w[j]) > threshold;
      fixed[j] = !held ? 0 : w[j] < 0 ? -1 : 1;
      shown += held && dual_.side[mi + j];  // a variable that other constraints fix shows nothing new
      if (w[j] != 0.0) {
        const double distance = w[j] > 0 ? ub[j] - x[j] : x[j] - lb[j];
        worst = std::max(worst, std::isfinite(distance) ? std::fabs(w[j] * distance) / (force * size) : std::fabs(w[j]) / force);
      }
      if (!held && (x[j] - lb[j] <= TIGHT * size || ub[j] - x[j] <= TIGHT * size)) touching = true;
    }
    if (!(worst <= EXACT)) return Unsolved;
    if (linear_ || !(touching_rows || (touching && shown != n))) return Optimal;
    return complete(out, scale, size);
  }

  /// Where constraints meet that have no multiplier, those of least norm may show that all are active: see
  /// `solvers/degeneracy.py`, which is asked where some depend on the active ones and others do not.
  Verdict complete(const Results& out, double scale, double size) {
    const Programs& p = *p_;
    const int n = p.n, me = p.me, mi = p.mi;
    double *x = out.x + i_ * n, *y = out.y + i_ * me, *z = out.z + i_ * mi, *w = out.w + i_ * n;
    bool* active = out.active + i_ * mi;
    int8_t* fixed = out.fixed + i_ * n;
    const double *h = p.h.at(i_), *lb = p.lb.at(i_), *ub = p.ub.at(i_);
    tight_.clear(), met_.clear();
    for (int v = 0; v < mi; ++v) {
      if (active[v])
        tight_.push_back(v);
      else if (std::isfinite(h[v]) && f_->norm[v] > 0 && h[v] - dot(G_ + static_cast<size_t>(v) * n, x, n) <= TIGHT * (size + std::fabs(h[v])))
        met_.push_back(v);
    }
    for (int j = 0; j < n; ++j) {
      if (fixed[j])
        tight_.push_back(mi + j);
      else if (x[j] - lb[j] <= TIGHT * size || ub[j] - x[j] <= TIGHT * size)
        met_.push_back(mi + j);
    }
    closer_.f = f_, closer_.P = matrix_.data(), closer_.A = A_, closer_.G = G_;
    if (tight_ == system_.set && !system_.primal) {
      closer_.extend(system_, met_);
    } else {
      tight_.insert(tight_.end(), met_.begin(), met_.end());
      closer_.factor_any(tight_);
    }
    if (closer_.extra.empty()) return Optimal;  // independent: the multipliers are the only ones
    if (closer_.set.empty() || std::find(met_.begin(), met_.end(), closer_.set.back()) != met_.end()) return Unsettled;
    tight_ = closer_.set;
    tight_.insert(tight_.end(), closer_.extra.begin(), closer_.extra.end());
    const int k = static_cast<int>(tight_.size());
    lambda_.resize(k);
    for (int a = 0; a < k; ++a) lambda_[a] = tight_[a] < mi ? z[tight_[a]] : w[tight_[a] - mi];
    std::copy(y, y + me, y_.begin());
    closer_.shorten(y_.data(), lambda_.data());
    auto upper = [&](int j) { return ub[j] - x[j] <= TIGHT * size && !(x[j] - lb[j] <= TIGHT * size && !fixed[j]); };
    for (int a = 0; a < k; ++a) {
      const int v = tight_[a], j = v - mi;
      if (v >= mi && lb[j] == ub[j]) continue;
      const double sign = v < mi ? 1.0 : fixed[j] ? fixed[j] : upper(j) ? 1.0 : -1.0;
      if (!(lambda_[a] * sign > WEAKLY_ACTIVE * scale)) return Optimal;  // the active ones imply the others
    }
    std::copy(y_.begin(), y_.end(), y);
    for (int a = 0; a < k; ++a) {
      const int v = tight_[a], j = v - mi;
      if (v < mi) {
        z[v] = lambda_[a], active[v] = true;
        continue;
      }
      w[j] = lambda_[a];
      if (lb[j] < ub[j]) fixed[j] = w[j] < 0 ? -1 : 1;
      x[j] = fixed[j] < 0 ? lb[j] : ub[j];
    }
    return Optimal;
  }
};

}  // namespace decigrad::DECIGRAD_ISA
