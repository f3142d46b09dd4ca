"""Parts of networks rewritten for a CPU; `fused_convolution.fast_path_available` tells where they are faster."""
