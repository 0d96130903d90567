"""State grid, transition algebra, quantiles and noise of GPU power chains: numpy only, reproducible bit by bit.

Integers are exact (int64). Floats are added with `math.fsum` in a fixed order; BLAS (`@`, `dot`, `linalg`) and
numpy's float reductions are not used, because their order of additions depends on the machine.
"""
