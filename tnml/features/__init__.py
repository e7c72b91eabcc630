"""Local feature maps: a pixel value x, meant to lie in [0, 1], becomes a vector phi(x) of d numbers.

| name | components | dim | normalisation | weights of the identity path |
|---|---|---|---|---|
| linear | 1-x, x | 2 | sum | 1, 1 |
| affine | 1, x | 2 | none | 1, 0 |
| polynomial | 1, x, x², ... | any | none | 1, 0, 0, ... |
| legendre | 1, √3 (2x-1), ... | any | orthonormal | 1, 0, 0, ... |
| fourier | 1, √2 cos 2πkx, √2 sin 2πkx, ... | odd | orthonormal | 1, 0, 0, ... |
| trigonometric | cos πx/2, sin πx/2 (dim 2) | any | norm | none (odd dim: see below) |
| one-hot | 1 at the nearest of d levels | any | sum | 1, 1, ... |
| rbf | Gaussians about d centres | any | sum | 1, 1, ... (normalise=False: none) |

The identity path: with weights w such that sum_d w_d phi_d(x) = 1 for every x, the cores A[d] = w_d * 1 carry
their input through any number of sites unchanged, whatever the pixels are, and a chain that starts there is
healthy at any length. (cos, sin) has no such weights. The remedy for such maps: let the layer measure the
data and rescale its cores once, `MPSLayer.rescale_(x)`; or take the trigonometric map with an odd `dim`,
where cos² + sin² = 1 provides them.

The columns of a table can each have a map of their own: {"name": "columns", "columns": [..], "missing": [..]}
is described in `tnml.features.columns`.

Every map takes any float dtype on any device, in a few kernels without a loop over pixels, and gradients of
any order flow to x. That of "one-hot" is zero, because the nearest level does not move with x.
"""

from tnml.features.maps import FeatureMap
from tnml.features.named import FEATURE_NAMES
from tnml.features.orders import site_order
from tnml.features.spec import feature_map

__all__ = ["FEATURE_NAMES", "FeatureMap", "feature_map", "site_order"]
