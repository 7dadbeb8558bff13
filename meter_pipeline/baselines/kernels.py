"""The compiled loops of a city's fit.

Every kernel frees the interpreter lock and runs on one core: city.py deals chunks of meters to threads. numba's own
parallel loops are not used since their default threading layer aborts the process when two Python threads enter it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NO_VALUE = np.iinfo(np.int64).min


@njit(cache=True, nogil=True)
def prepare(values, days, zero_is_missing, out, missing_at, missing, mean, total):  # type: ignore[no-untyped-def]
    """Copy the usable days of float usage (meters, all days) to ``out`` (meters, days), zero where missing, with means
    and centred squares."""
    for i in range(values.shape[0]):
        gone, total_y = 0, 0.0
        for j in range(days.size):
            y = values[i, days[j]]
            if np.isfinite(y) and not (zero_is_missing and y == 0.0):
                out[i, j] = y
                total_y += y
            else:
                out[i, j] = 0.0
                missing_at[i, gone] = j
                gone += 1
        _moments(out[i], missing_at[i], gone, total_y, i, missing, mean, total)


@njit(cache=True, nogil=True)
def prepare_micro(values, days, zero_is_missing, out, missing_at, missing, mean, total):  # type: ignore[no-untyped-def]
    """As prepare, from int64 micro units with NO_VALUE where missing; ``out`` is in whole units."""
    for i in range(values.shape[0]):
        gone, total_y = 0, 0.0
        for j in range(days.size):
            v = values[i, days[j]]
            if v != NO_VALUE and not (zero_is_missing and v == 0):
                y = v * 1e-6
                out[i, j] = y
                total_y += y
            else:
                out[i, j] = 0.0
                missing_at[i, gone] = j
                gone += 1
        _moments(out[i], missing_at[i], gone, total_y, i, missing, mean, total)


@njit(cache=True, nogil=True)
def _moments(row, missing_at, gone, total_y, i, missing, mean, total):  # type: ignore[no-untyped-def]
    n = row.size - gone
    missing[i] = gone
    mean[i] = total_y / n if n else 0.0
    squares = 0.0
    for j in range(row.size):
        squares += (row[j] - mean[i]) ** 2
    # the zeros that stand for missing days were counted with the rest
    total[i] = max(squares - gone * mean[i] ** 2, 0.0)


@njit(cache=True, nogil=True, fastmath=True)
def _most(inverse, first, width, gh, g):  # type: ignore[no-untyped-def]
    """The largest sum of squares that a row of pairs explains, to the last digits; nothing here is NaN."""
    most = 0.0
    for a in range(width):
        q = first + a
        x = gh[a]
        explained = inverse[0, q] * x * x + 2.0 * inverse[1, q] * x * g + inverse[2, q] * g * g
        most = max(most, explained)
    return most


@njit(cache=True, nogil=True, fastmath=True)
def _most_own(cross, sh, shh, gh, s, cc, g, need, width):  # type: ignore[no-untyped-def]
    """Above zero where some pair of the row may explain more than ``need``, from a meter's own moments; without a
    division."""
    most = 0.0
    for a in range(width):
        hc = cross[a] - sh[a] * s
        x = gh[a]
        beyond = cc * x * x - 2.0 * hc * x * g + shh[a] * g * g - need * (shh[a] * cc - hc * hc)
        most = max(most, beyond)
    return most


@njit(cache=True, nogil=True)
def search(  # type: ignore[no-untyped-def]
    XY,
    H,
    C,
    Sh,
    Shh,
    Nh,
    Sc,
    Scc,
    Nc,
    K,
    daily,
    starts,
    inverse,
    complete_h,
    complete_c,
    missing_at,
    missing,
    mean,
    total,
    min_days,
    min_degree_days,
    tie,
    model,
    at_h,
    at_c,
):
    """Choose each meter's model and balance points by adjusted R2.

    XY (meters, bases of both kinds) holds the sums of feature times usage. H, C (bases, days) are the features, S, SS,
    N their sums, sums of squares and counts of non-zero days, K (bases, bases) the sums of heating times cooling, which
    ``daily`` degree days never have since no mean lies on both sides. Admissible pairs stand in CalTRACK's order,
    cooling outside: those of cooling base b are starts[b] to starts[b + 1], with heating bases from the first on.
    ``inverse`` (3, pairs) is the inverse of each pair's centred moments over all days, zero where the pair fails a
    gate. Meters with missing days get their own moments: the sums less what the missing days put in, exactly. Results:
    model index, base indices (-1 where absent).
    """
    days = H.shape[1]
    bases_h, bases_c = H.shape[0], C.shape[0]
    sh, shh, nh = np.empty(bases_h), np.empty(bases_h), np.empty(bases_h, np.int64)
    sc, scc, nc = np.empty(bases_c), np.empty(bases_c), np.empty(bases_c, np.int64)
    gh, gc = np.empty(bases_h), np.empty(bases_c)
    ok_h, ok_c = np.empty(bases_h, np.bool_), np.empty(bases_c, np.bool_)
    cross = np.zeros((bases_c, bases_h))
    for i in range(XY.shape[0]):
        gone = missing[i]
        n = days - gone
        model[i], at_h[i], at_c[i] = -1, -1, -1
        if n < 2:
            continue
        y_mean, y_total = mean[i], total[i]
        best = -np.inf
        if y_mean >= 0.0:
            best, model[i] = 0.0, 0
        if y_total <= 0.0 or n < 4:
            continue
        if gone:
            for b in range(bases_h):
                s, ss, c = Sh[b], Shh[b], Nh[b]
                for k in range(gone):
                    x = H[b, missing_at[i, k]]
                    s -= x
                    ss -= x * x
                    if x > 0.0:
                        c -= 1
                sh[b], shh[b], nh[b] = s, ss - s * s / n, c
                ok_h[b] = c >= min_days and s >= min_degree_days and shh[b] > 1e-9 * ss
            for b in range(bases_c):
                s, ss, c = Sc[b], Scc[b], Nc[b]
                for k in range(gone):
                    x = C[b, missing_at[i, k]]
                    s -= x
                    ss -= x * x
                    if x > 0.0:
                        c -= 1
                sc[b], scc[b], nc[b] = s, ss - s * s / n, c
                ok_c[b] = c >= min_days and s >= min_degree_days and scc[b] > 1e-9 * ss
            if not daily:
                for a in range(bases_h):
                    for b in range(bases_c):
                        x = K[a, b]
                        for k in range(gone):
                            x -= H[a, missing_at[i, k]] * C[b, missing_at[i, k]]
                        cross[b, a] = x
        else:
            for b in range(bases_h):
                sh[b], shh[b], ok_h[b] = Sh[b], Shh[b] - Sh[b] * Sh[b] / n, complete_h[b]
            for b in range(bases_c):
                sc[b], scc[b], ok_c[b] = Sc[b], Scc[b] - Sc[b] * Sc[b] / n, complete_c[b]

        one = (n - 2.0) / (n - 1.0)
        need = y_total * (1.0 - (1.0 - best - tie) * one) if best > -np.inf else -np.inf
        for b in range(bases_h):
            gh[b] = XY[i, b] - y_mean * sh[b]
            if ok_h[b]:
                beta = gh[b] / shh[b]
                explained = beta * gh[b]
                if explained > need and beta >= 0.0 and y_mean - beta * sh[b] / n >= 0.0:
                    best = 1.0 - (1.0 - explained / y_total) / one
                    need = y_total * (1.0 - (1.0 - best - tie) * one)
                    model[i], at_h[i], at_c[i] = 1, b, -1
        for b in range(bases_c):
            gc[b] = XY[i, bases_h + b] - y_mean * sc[b]
            if ok_c[b]:
                beta = gc[b] / scc[b]
                explained = beta * gc[b]
                if explained > need and beta >= 0.0 and y_mean - beta * sc[b] / n >= 0.0:
                    best = 1.0 - (1.0 - explained / y_total) / one
                    need = y_total * (1.0 - (1.0 - best - tie) * one)
                    model[i], at_h[i], at_c[i] = 2, -1, b
        two = (n - 3.0) / (n - 1.0)
        need = y_total * (1.0 - (1.0 - best - tie) * two) if best > -np.inf else -np.inf
        for b in range(bases_c):
            # a row of pairs is first asked whether any beats the best so far, in loops the processor runs four at a
            # time
            first, width = starts[b], starts[b + 1] - starts[b]
            if not gone:
                if _most(inverse, first, width, gh, gc[b]) <= need:
                    continue
                for a in range(width):
                    q = first + a
                    b_h = inverse[0, q] * gh[a] + inverse[1, q] * gc[b]
                    b_c = inverse[1, q] * gh[a] + inverse[2, q] * gc[b]
                    explained = b_h * gh[a] + b_c * gc[b]
                    if (
                        explained > need
                        and inverse[0, q] > 0.0
                        and b_h >= 0.0
                        and b_c >= 0.0
                        and y_mean - (b_h * sh[a] + b_c * sc[b]) / n >= 0.0
                    ):
                        best = 1.0 - (1.0 - explained / y_total) / two
                        need = y_total * (1.0 - (1.0 - best - tie) * two)
                        model[i], at_h[i], at_c[i] = 3, a, b
            elif ok_c[b] and (
                need == -np.inf or _most_own(cross[b], sh, shh, gh, sc[b] / n, scc[b], gc[b], need, width) > 0.0
            ):
                for a in range(width):
                    if not ok_h[a]:
                        continue
                    hc = cross[b, a] - sh[a] * sc[b] / n
                    determinant = shh[a] * scc[b] - hc * hc
                    if determinant <= 1e-9 * shh[a] * scc[b]:
                        continue
                    b_h = (scc[b] * gh[a] - hc * gc[b]) / determinant
                    b_c = (shh[a] * gc[b] - hc * gh[a]) / determinant
                    explained = b_h * gh[a] + b_c * gc[b]
                    if (
                        explained > need
                        and b_h >= 0.0
                        and b_c >= 0.0
                        and y_mean - (b_h * sh[a] + b_c * sc[b]) / n >= 0.0
                    ):
                        best = 1.0 - (1.0 - explained / y_total) / two
                        need = y_total * (1.0 - (1.0 - best - tie) * two)
                        model[i], at_h[i], at_c[i] = 3, a, b


@njit(cache=True, nogil=True)
def _solve(G, g, p, x):  # type: ignore[no-untyped-def]
    """Cholesky solution of the leading p x p normal equations into x; False where a column depends on the others."""
    L = np.zeros((p, p))
    for r in range(p):
        for c in range(r + 1):
            s = G[r, c]
            for k in range(c):
                s -= L[r, k] * L[c, k]
            if r == c:
                if s <= 1e-10 * G[r, r] or G[r, r] <= 0.0:
                    return False
                L[r, r] = np.sqrt(s)
            else:
                L[r, c] = s / L[c, c]
    for r in range(p):
        s = g[r]
        for k in range(r):
            s -= L[r, k] * x[k]
        x[r] = s / L[r, r]
    for r in range(p - 1, -1, -1):
        s = x[r]
        for k in range(r + 1, p):
            s -= L[k, r] * x[k]
        x[r] = s / L[r, r]
    return True


@njit(cache=True, nogil=True)
def _select(v, size, k):  # type: ignore[no-untyped-def]
    """The k-th smallest of the first ``size`` of v, in place, everything before it no larger. The partition never
    branches on a value: on residuals, which are noise, a processor guesses every second comparison wrong."""
    low, high = 0, size - 1
    while low < high:
        first, middle, last = v[low], v[(low + high) // 2], v[high]
        at = (low + high) // 2
        if (first < middle) != (first < last):
            at = low
        elif (last < first) != (last < middle):
            at = high
        pivot = v[at]
        v[at], v[high] = v[high], pivot
        edge = low
        for i in range(low, high):
            x = v[i]
            v[i] = v[edge]
            v[edge] = x
            edge += x < pivot
        v[high], v[edge] = v[edge], pivot
        if k < edge:
            high = edge - 1
        elif k > edge:
            if (
                edge == low
            ):  # nothing is smaller: step over all that are equal, or a constant meter takes the square of its days
                for i in range(low + 1, high + 1):
                    if v[i] == pivot:
                        edge += 1
                        v[i] = v[edge]
                        v[edge] = pivot
                if k <= edge:
                    break
            low = edge + 1
        else:
            break
    return v[k]


@njit(cache=True, nogil=True)
def _median(v, size):  # type: ignore[no-untyped-def]
    upper = _select(v, size, size // 2)
    if size % 2:
        return upper
    lower = v[0]
    for k in range(1, size // 2):  # the lower half now stands before it
        if v[k] > lower:
            lower = v[k]
    return 0.5 * (lower + upper)


@njit(cache=True, nogil=True)
def finish(  # type: ignore[no-untyped-def]
    Y,
    H,
    C,
    weekend,
    holiday,
    calendar,
    min_gain,
    mad_to_sigma,
    missing_at,
    missing,
    mean,
    total,
    model,
    at_h,
    at_c,
    intercept,
    beta_h,
    beta_c,
    beta_weekend,
    beta_holiday,
    r2,
    adj_r2,
    sigma,
    robust,
):
    """Coefficients, R2 and both sigmas of the chosen models, from centred columns; weekend and holiday terms where they
    lower BIC enough."""
    days = Y.shape[1]
    X = np.empty((4, days))
    y = np.empty(days)
    keep = np.empty(days, np.bool_)
    scratch = np.empty(days)
    G, g, x, x_best = np.empty((4, 4)), np.empty(4), np.empty(4), np.empty(4)
    sub_G, sub_g = np.empty((4, 4)), np.empty(4)
    means = np.empty(4)
    for i in range(Y.shape[0]):
        beta_h[i], beta_c[i], beta_weekend[i], beta_holiday[i] = 0.0, 0.0, 0.0, 0.0
        if model[i] < 0:
            intercept[i] = mean[i]
            r2[i], adj_r2[i], sigma[i], robust[i] = np.nan, np.nan, np.nan, np.nan
            continue
        n = days - missing[i]
        keep[:] = True
        for k in range(missing[i]):
            keep[missing_at[i, k]] = False
        m = 0
        base_terms = (1 if at_h[i] >= 0 else 0) + (1 if at_c[i] >= 0 else 0)
        terms = base_terms + (2 if calendar else 0)
        for j in range(days):
            if keep[j]:
                y[m] = Y[i, j] - mean[i]
                t = 0
                if at_h[i] >= 0:
                    X[t, m] = H[at_h[i], j]
                    t += 1
                if at_c[i] >= 0:
                    X[t, m] = C[at_c[i], j]
                    t += 1
                if calendar:
                    X[t, m] = weekend[j]
                    X[t + 1, m] = holiday[j]
                m += 1
        for t in range(terms):
            s = 0.0
            for j in range(n):
                s += X[t, j]
            means[t] = s / n
            for j in range(n):
                X[t, j] -= means[t]
        for a in range(terms):
            s = 0.0
            for j in range(n):
                s += X[a, j] * y[j]
            g[a] = s
            for b in range(a + 1):
                s = 0.0
                for j in range(n):
                    s += X[a, j] * X[b, j]
                G[a, b] = s
                G[b, a] = s
        # 0: the chosen model as it is; 1 adds weekends, 2 holidays, 3 both
        best_extra, best_bic, first_bic = -1, np.inf, np.inf
        for extra in range(4 if calendar and n > 30 else 1):
            p = base_terms
            for a in range(base_terms):
                sub_g[a] = g[a]
                for b in range(base_terms):
                    sub_G[a, b] = G[a, b]
            for bit in range(2):
                if extra >> bit & 1:
                    source = base_terms + bit
                    other = 0
                    for b in range(p):
                        other = b if b < base_terms else base_terms  # only the weekend can stand before the holiday
                        sub_G[p, b] = G[source, other]
                        sub_G[b, p] = G[other, source]
                    sub_G[p, p] = G[source, source]
                    sub_g[p] = g[source]
                    p += 1
            if not _solve(sub_G, sub_g, p, x):
                continue
            explained = 0.0
            for a in range(p):
                explained += x[a] * sub_g[a]
            if extra:
                negative = False
                for a in range(base_terms):
                    negative = negative or x[a] < 0.0
                if negative:
                    continue
            sse = max(total[i] - explained, 1e-12 * total[i])
            bic = (n * np.log(sse / n) if sse > 0.0 else -np.inf) + p * np.log(n)
            if best_extra < 0 or (bic < best_bic and bic < first_bic - min_gain):
                if best_extra < 0:
                    first_bic = bic
                best_extra, best_bic = extra, bic
                for a in range(p):
                    x_best[a] = x[a]
        if best_extra < 0:
            model[i], best_extra, base_terms = 0, 0, 0
        p = base_terms
        at = mean[i]
        for a in range(base_terms):
            at -= x_best[a] * means[a]
        t = 0
        if at_h[i] >= 0 and base_terms:
            beta_h[i] = x_best[t]
            t += 1
        if at_c[i] >= 0 and base_terms:
            beta_c[i] = x_best[t]
        if best_extra & 1:
            beta_weekend[i] = x_best[p]
            at -= x_best[p] * means[base_terms]
            p += 1
        if best_extra & 2:
            beta_holiday[i] = x_best[p]
            at -= x_best[p] * means[base_terms + 1]
            p += 1
        intercept[i] = at
        sse = 0.0
        for j in range(n):
            r = y[j]
            for a in range(base_terms):
                r -= x_best[a] * X[a, j]
            if best_extra & 1:
                r -= beta_weekend[i] * X[base_terms, j]
            if best_extra & 2:
                r -= beta_holiday[i] * X[base_terms + 1, j]
            scratch[j] = r
            sse += r * r
        r2[i] = 1.0 - sse / total[i] if total[i] > 0.0 and p > 0 else 0.0
        adj_r2[i] = 1.0 - (1.0 - r2[i]) * (n - 1.0) / (n - p - 1.0) if p > 0 and n > p + 1 else 0.0
        sigma[i] = np.sqrt(sse / (n - p - 1.0)) if n > p + 1 else np.nan
        centre = _median(scratch, n)
        for j in range(n):
            scratch[j] = abs(scratch[j] - centre)
        robust[i] = mad_to_sigma * _median(scratch, n)
