"""Weight initializers shared by the architectures, as `jax.nn.initializers` functions `(key, shape, dtype) -> array`.

The last two axes of `shape` are the input and output channels, as in the kernels `[kh kw in out]` of `Conv` and the
matrices `[in out]` of `make_linear`. `fan_in` is the number of inputs summed into one output, `fan_out` the number of
outputs that one input reaches.
"""

from jax.nn import initializers

__all__ = [
    "he_normal",
    "he_normal_fan_in",
    "he_normal_fan_out",
    "he_uniform",
    "kaiming_uniform_fan_out",
    "lecun_normal",
    "torch_uniform",
    "transformer_normal",
    "uniform_fan_out",
]

#: Truncated normal with standard deviation `sqrt(2 / fan_in)` (He et al. 2015, "Delving Deep into Rectifiers", eq. 10).
he_normal = initializers.he_normal()

#: `he_normal` without truncation: `torch.nn.init.kaiming_normal_(mode="fan_in", nonlinearity="relu")`.
he_normal_fan_in = initializers.variance_scaling(2.0, "fan_in", "normal")

#: Normal with standard deviation `sqrt(2 / fan_out)` (He et al. 2015, eq. 14):
#: `torch.nn.init.kaiming_normal_(mode="fan_out", nonlinearity="relu")`.
he_normal_fan_out = initializers.variance_scaling(2.0, "fan_out", "normal")

#: Uniform up to `sqrt(6 / fan_in)` (He et al. 2015, eq. 10): `torch.nn.init.kaiming_uniform_(nonlinearity="relu")`.
he_uniform = initializers.he_uniform()

#: Truncated normal with standard deviation `sqrt(1 / fan_in)` (LeCun et al. 1998, "Efficient BackProp", eq. 16), the
#: default of `flax.linen.Conv` and `flax.linen.Dense`.
lecun_normal = initializers.lecun_normal()

#: Uniform up to `1 / sqrt(fan_in)`, the default of `torch.nn.Conv2d` and `torch.nn.Linear` (`reset_parameters`).
torch_uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")

#: Uniform up to `1 / sqrt(fan_out)`, which torchvision's EfficientNets use for the classifier.
uniform_fan_out = initializers.variance_scaling(1 / 3, "fan_out", "uniform")

#: Uniform up to `sqrt(3 / fan_out)`, which torchvision's MNASNets use for the classifier:
#: `torch.nn.init.kaiming_uniform_(mode="fan_out", nonlinearity="sigmoid")`.
kaiming_uniform_fan_out = initializers.variance_scaling(1.0, "fan_out", "uniform")

#: Normal with standard deviation 0.02, truncated at two standard deviations (BERT's code, Devlin et al. 2019).
transformer_normal = initializers.truncated_normal(0.02)
