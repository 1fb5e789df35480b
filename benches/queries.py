"""The peers of benches/queries.rs, on the same values: FAISS's flat index in memory, h5py and a sort."""

import sys
import time

import faiss
import h5py
import numpy as np

folder, n = sys.argv[1], int(sys.argv[2])
print(f"# python {sys.version.split()[0]}, numpy {np.__version__}, faiss {faiss.__version__}, h5py {h5py.__version__}")


def best(times, run):
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        took.append(time.perf_counter() - begun)
    return min(took)


vectors = np.fromfile(f"{folder}/vectors.f16", dtype=np.float16).reshape(n, 512).astype(np.float32)
index = faiss.IndexFlatL2(512)
index.add(vectors)
queries = vectors[[i * n // 100 for i in range(100)]]
print("knn", best(5, lambda: index.search(queries, 51)))

maps = np.memmap(f"{folder}/maps.f16", dtype=np.float16, mode="r", shape=(n, 64, 16, 16))
with h5py.File(f"{folder}/maps.h5", "w") as f:
    d = f.create_dataset("maps", shape=maps.shape, dtype=np.float16)
    for start in range(0, n, 1000):
        d[start : start + 1000] = maps[start : start + 1000]


def topk():
    with h5py.File(f"{folder}/maps.h5", "r") as f:
        unit = f["maps"][:, 17].max(axis=(1, 2))
    return np.argsort(-unit.astype(np.float32), kind="stable")[:10]


print("topk", best(3, topk))
