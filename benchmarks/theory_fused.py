"""A GPU kernel that simulates a trial without ever storing a row: Philox numbers live in registers.

One warp runs one trial: it draws four rows at a time, uses them for u = X'y or g = Z'(Zv) and forgets
them, so memory traffic is six numbers per trial instead of three passes over (n + k) d. W = w I, Sx = I,
no noise. `theory_linear` times it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

OUTPUTS = 6
"""|v|^2, |u|^2, u along b, v'Du, g'Du and |g|^2 of each trial."""


@triton.jit
def _row(x_a, x_b, aim_a, aim_b, sum_a, sum_b, used):
    label = (tl.sum(x_a * aim_a, axis=0) + tl.sum(x_b * aim_b, axis=0)) * used
    return sum_a + label * x_a, sum_b + label * x_b


@triton.jit
def _four_rows(seed, start, row, rows, place, aim_a, aim_b, sum_a, sum_b, A: tl.constexpr, B: tl.constexpr):
    a0, a1, a2, a3 = tl.randn4x(seed, start + place * (A + B) + tl.arange(0, A))
    b0, b1, b2, b3 = tl.randn4x(seed, start + place * (A + B) + A + tl.arange(0, B))
    sum_a, sum_b = _row(a0, b0, aim_a, aim_b, sum_a, sum_b, 1.0)
    sum_a, sum_b = _row(a1, b1, aim_a, aim_b, sum_a, sum_b, tl.where(row + 1 < rows, 1.0, 0.0))
    sum_a, sum_b = _row(a2, b2, aim_a, aim_b, sum_a, sum_b, tl.where(row + 2 < rows, 1.0, 0.0))
    sum_a, sum_b = _row(a3, b3, aim_a, aim_b, sum_a, sum_b, tl.where(row + 3 < rows, 1.0, 0.0))
    return sum_a, sum_b


@triton.jit
def _trial(out, seed, d, n, k, weight, turn, flat, trials, first_train, A: tl.constexpr, B: tl.constexpr):
    trial = tl.program_id(0)
    key = seed + trial
    inside_a = tl.arange(0, A) < d
    inside_b = A + tl.arange(0, B) < d
    task_a = tl.where(tl.arange(0, A) == 0, 1.0, 0.0)
    zero_b = tl.zeros((B,), dtype=tl.float32)
    u_a, u_b = tl.zeros((A,), dtype=tl.float32), zero_b
    for row in range(0, n, 4):
        u_a, u_b = _four_rows(key, 0, row, n, row // 4, task_a, zero_b, u_a, u_b, A, B)
    u_a, u_b = tl.where(inside_a, u_a, 0.0), tl.where(inside_b, u_b, 0.0)
    v_a, v_b = task_a - weight * u_a, -weight * u_b
    g_a, g_b = tl.zeros((A,), dtype=tl.float32), tl.zeros((B,), dtype=tl.float32)
    for row in range(0, k, 4):
        g_a, g_b = _four_rows(key, first_train, row, k, row // 4, v_a, v_b, g_a, g_b, A, B)
    g_a, g_b = tl.where(inside_a, g_a, 0.0), tl.where(inside_b, g_b, 0.0)
    along_b = tl.sum(u_a * task_a, axis=0)
    change_a, change_b = turn * along_b * task_a - flat * (u_a - along_b * task_a), -flat * u_b
    tl.store(out + 0 * trials + trial, tl.sum(v_a * v_a, axis=0) + tl.sum(v_b * v_b, axis=0))
    tl.store(out + 1 * trials + trial, tl.sum(u_a * u_a, axis=0) + tl.sum(u_b * u_b, axis=0))
    tl.store(out + 2 * trials + trial, along_b)
    tl.store(out + 3 * trials + trial, tl.sum(v_a * change_a, axis=0) + tl.sum(v_b * change_b, axis=0))
    tl.store(out + 4 * trials + trial, tl.sum(g_a * change_a, axis=0) + tl.sum(g_b * change_b, axis=0))
    tl.store(out + 5 * trials + trial, tl.sum(g_a * g_a, axis=0) + tl.sum(g_b * g_b, axis=0))


def fused_trials(d: int, n: int, k: int, weight: float, trials: int, seed: int, device: str) -> torch.Tensor:
    """Return the six scalars of each trial, shape (OUTPUTS, trials), float32, for |b| = 1.

    Rows have d columns in two blocks, powers of two, so that few lanes idle: 256 + 64 for d = 300.
    """
    out = torch.empty((OUTPUTS, trials), dtype=torch.float32, device=device)
    large = 1 << max(d.bit_length() - 1, 0)
    small = 1 << max((d - large - 1).bit_length(), 0) if d > large else 1
    turn, flat = n * (1 - weight * (n + 1)) - weight * n, weight * n
    first_train = -(-n // 4) * (large + small)
    _trial[(trials,)](
        out, seed, d, n, k, weight, turn, flat, trials, first_train, A=large, B=small, num_warps=1
    )
    return out


def fused_losses(scalars: torch.Tensor, n: int, eta: float) -> torch.Tensor:
    """Return the loss of each trial after the fixed step `eta` on a fresh context, shape (trials,)."""
    residual, square, along_b, _, along, size = scalars.double()
    reach = n * (n + 1) * along_b**2 + n * square
    return residual - 4 * eta * along + 4 * eta**2 * size * reach
