"""Parts of networks rewritten for a CPU; `tiny_vit.fast_path_available` tells where they are faster."""
