"""SVCCA and CKA of two arrays in memory by numpy and scipy: the peer of similarity.rs. Prints JSON.

    python similarity.py X.npy Y.npy
"""
import json
import sys
import time

import numpy as np
import scipy
import scipy.linalg


def shortest(run, n):
    """Seconds and value; other work on the machine only ever adds to a time."""
    run()
    times = []
    for _ in range(n):
        begun = time.perf_counter()
        value = run()
        times.append(time.perf_counter() - begun)
    return min(times), float(value)


def subspace(a, threshold=0.99):
    u, s, _ = np.linalg.svd(a - a.mean(0), full_matrices=False)
    return u[:, : np.searchsorted(np.cumsum(s**2) / np.sum(s**2), threshold) + 1]


def svcca_by_svd(x, y):
    return scipy.linalg.svdvals(subspace(x).T @ subspace(y)).mean()


def svcca_by_covariance(x, y, threshold=0.99):
    """The quickest way to write it: eigenvectors of covariances instead of an SVD of the data."""
    x, y = x - x.mean(0), y - y.mean(0)

    def whiten(a):
        values, vectors = scipy.linalg.eigh(a.T @ a)
        values, vectors = values[::-1], vectors[:, ::-1]
        k = np.searchsorted(np.cumsum(values) / np.sum(values), threshold) + 1
        return vectors[:, :k] / np.sqrt(values[:k])

    return scipy.linalg.svdvals(whiten(x).T @ (x.T @ y) @ whiten(y)).mean()


def linear_cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def rbf_cka(x, y):
    def kernel(a):
        norms = (a * a).sum(1)
        d = np.maximum(norms[:, None] + norms - 2 * (a @ a.T), 0)
        k = np.exp(-d / (2 * np.median(d)))
        k -= k.mean(0)
        k -= k.mean(1)[:, None]
        return k

    k, l = kernel(x), kernel(y)
    return np.vdot(k, l) / (np.linalg.norm(k) * np.linalg.norm(l))


x, y = (np.load(p) for p in sys.argv[1:3])
wide = [a.astype(np.float64) for a in (x, y)]
out = {"versions": f"numpy {np.__version__}, scipy {scipy.__version__}"}
out["svcca_svd_f32"] = shortest(lambda: svcca_by_svd(x, y), 3)
out["svcca_svd_f64"] = shortest(lambda: svcca_by_svd(*wide), 3)
out["svcca_covariance_f64"] = shortest(lambda: svcca_by_covariance(*wide), 3)
out["linear_cka_f32"] = shortest(lambda: linear_cka(x, y), 9)
out["linear_cka_f64"] = shortest(lambda: linear_cka(*wide), 5)
out["rbf_cka_f64"] = shortest(lambda: rbf_cka(*wide), 1)
json.dump(out, sys.stdout)
